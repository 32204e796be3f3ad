#import words
#import group
// Q5_0: 32 elements in 22 bytes, x = d (q - 16).
//
//   byte  0      2        6                         22
//         d f16  qh u32   qs: 16 bytes
//   byte k of qs:  hhhh llll   low four bits of the quants of elements k (l) and k + 16 (h)
//   bit  i of qh:  fifth bit of the quant of element i
//
// Blocks begin at any even byte: six words from the one that has d always hold the whole block.

fn q5_0_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 5u) * 22u;
    let k = i & 31u;
    let low = (byte_at(block + 6u + (k & 15u)) >> ((k & 16u) >> 2u)) & 15u;
    let high = (byte_at(block + 2u + (k >> 3u)) >> (k & 7u)) & 1u;
    return half_at(block) * (f32(low | (high << 4u)) - 16.0);
}

fn q5_0_group(row_byte: u32, g: u32) -> Group {
    let block = row_byte + g * 22u;
    let odd = (block & 2u) != 0u;
    let w = block >> 2u;
    let a = weights[w];
    let b = weights[w + 1u];
    let c = weights[w + 2u];
    let e = weights[w + 3u];
    let f = weights[w + 4u];
    let h = weights[w + 5u];
    let qh = select(straddle(a, b), b, odd);
    let q = vec4<u32>(
        select(straddle(b, c), c, odd),
        select(straddle(c, e), e, odd),
        select(straddle(e, f), f, odd),
        select(straddle(f, h), h, odd),
    );
    let low = q & vec4<u32>(0x0f0f0f0fu);
    let high = (q >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    let d = unpack2x16float(select(a, a >> 16u, odd)).x;
    return Group(
        array<u32, 8>(
            low.x | spread_bits(qh, 4u),
            low.y | spread_bits(qh >> 4u, 4u),
            low.z | spread_bits(qh >> 8u, 4u),
            low.w | spread_bits(qh >> 12u, 4u),
            high.x | spread_bits(qh >> 16u, 4u),
            high.y | spread_bits(qh >> 20u, 4u),
            high.z | spread_bits(qh >> 24u, 4u),
            high.w | spread_bits(qh >> 28u, 4u),
        ),
        vec4<f32>(d, -16.0 * d, d, -16.0 * d),
    );
}
