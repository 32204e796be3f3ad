// Angles of rotary position embedding: cosines and sines that the host computed.

#import batch

@group(0) @binding(4) var<storage, read> ropes: array<f32>;

// First cosine of a token row; `half` of them, then as many sines.
fn row_angles(rope: u32, half: u32, row: u32) -> u32 {
    return batch[batch[8] + rope] + row * 2u * half;
}

// Elements of a head that pair `j` turns.
fn pair(j: u32, half: u32) -> vec2<u32> {
#if INTERLEAVED
    return vec2(2u * j, 2u * j + 1u);
#else
    return vec2(j, j + half);
#endif
}

fn turned(x: vec2<f32>, cosine: f32, sine: f32) -> vec2<f32> {
    return vec2(x.x * cosine - x.y * sine, x.x * sine + x.y * cosine);
}
