#import words
#import group
// Q8_0: 32 elements in 34 bytes, x = d q.
//
//   byte  0      2                         34
//         d f16  qs: 32 signed bytes, element i in byte i
//
// Blocks begin at any even byte: nine words from the one that has d always hold the whole block.

fn q8_0_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 5u) * 34u;
    let q = bitcast<i32>(byte_at(block + 2u + (i & 31u)) << 24u) >> 24u;
    return half_at(block) * f32(q);
}

fn q8_0_group(row_byte: u32, g: u32) -> Group {
    let block = row_byte + g * 34u;
    let odd = (block & 2u) != 0u;
    let w = block >> 2u;
    let a = weights[w];
    let b = vec4<u32>(weights[w + 1u], weights[w + 2u], weights[w + 3u], weights[w + 4u]);
    let c = vec4<u32>(weights[w + 5u], weights[w + 6u], weights[w + 7u], weights[w + 8u]);
    let d = unpack2x16float(select(a, a >> 16u, odd)).x;
    return Group(
        array<u32, 8>(
            select(straddle(a, b.x), b.x, odd),
            select(straddle(b.x, b.y), b.y, odd),
            select(straddle(b.y, b.z), b.z, odd),
            select(straddle(b.z, b.w), b.w, odd),
            select(straddle(b.w, c.x), c.x, odd),
            select(straddle(c.x, c.y), c.y, odd),
            select(straddle(c.y, c.z), c.z, odd),
            select(straddle(c.z, c.w), c.w, odd),
        ),
        vec4<f32>(d, 0.0, d, 0.0),
    );
}
