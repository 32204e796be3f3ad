#import words
#import group
#import iq4
// IQ4_NL: 32 elements in 18 bytes, x = d values[q].
//
//   byte  0      2                         18
//         d f16  qs: 16 bytes
//   byte k of qs:  hhhh llll   l = index of element k, h = index of element k + 16
//
// Blocks begin at any even byte: five words from the one that has d always hold the whole block.

fn iq4_nl_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 5u) * 18u;
    let q = (byte_at(block + 2u + (i & 15u)) >> ((i & 16u) >> 2u)) & 15u;
    return half_at(block) * iq4_value(q);
}

fn iq4_nl_group(row_byte: u32, g: u32) -> Group {
    let block = row_byte + g * 18u;
    let odd = (block & 2u) != 0u;
    let w = block >> 2u;
    let a = weights[w];
    let b = weights[w + 1u];
    let c = weights[w + 2u];
    let e = weights[w + 3u];
    let f = weights[w + 4u];
    let q = vec4<u32>(
        select(straddle(a, b), b, odd),
        select(straddle(b, c), c, odd),
        select(straddle(c, e), e, odd),
        select(straddle(e, f), f, odd),
    );
    let high = q >> vec4<u32>(4u);
    let d = unpack2x16float(select(a, a >> 16u, odd)).x;
    return Group(
        array<u32, 8>(
            iq4_quants(q.x),
            iq4_quants(q.y),
            iq4_quants(q.z),
            iq4_quants(q.w),
            iq4_quants(high.x),
            iq4_quants(high.y),
            iq4_quants(high.z),
            iq4_quants(high.w),
        ),
        vec4<f32>(d, 0.0, d, 0.0),
    );
}
