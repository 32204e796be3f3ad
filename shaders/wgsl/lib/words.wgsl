// Reads from `weights`, which the importing kernel declares as var<storage, read> weights: array<u32>.
//
// Byte offsets count from the start of the binding. Blocks of 18, 22, 34, 110 or 210 bytes start at any even byte, so their
// words may straddle two words of the binding; nothing here reads a word that has no byte of what was asked for.

fn byte_at(byte: u32) -> u32 {
    return (weights[byte >> 2u] >> ((byte & 3u) << 3u)) & 255u;
}

// The two bytes at an even offset.
fn half_bits_at(byte: u32) -> u32 {
    return (weights[byte >> 2u] >> ((byte & 2u) << 3u)) & 0xffffu;
}

fn half_at(byte: u32) -> f32 {
    return unpack2x16float(half_bits_at(byte)).x;
}

// The four bytes that begin two bytes into `a`.
fn straddle(a: u32, b: u32) -> u32 {
    return (a >> 16u) | (b << 16u);
}

// The 16 bytes at an even offset. The fifth word is read where they straddle it, else the fourth once more.
fn words16_at(byte: u32) -> vec4<u32> {
    let w = byte >> 2u;
    let odd = (byte & 2u) != 0u;
    let a = vec4<u32>(weights[w], weights[w + 1u], weights[w + 2u], weights[w + 3u]);
    let b = vec4<u32>(a.yzw, weights[w + select(3u, 4u, odd)]);
    return select(a, (a >> vec4<u32>(16u)) | (b << vec4<u32>(16u)), odd);
}
