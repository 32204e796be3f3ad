#import words
#import group
#import iq4
// IQ4_XS: 256 elements in 136 bytes, eight sub-blocks of 32, x = (d scale) values[q], with the values of IQ4_NL.
//
//   byte  0      2         4          8                    136
//         d f16  high u16  low: 4     qs: 8 x 16 bytes
//   bits 2s, 2s + 1 of high:          upper bits of the scale of sub-block s, which is centred on 32
//   byte k of low:        hhhh llll   lower bits of the scales of sub-blocks 2k (l) and 2k + 1 (h)
//   byte k of the s-th 16 of qs:
//                         hhhh llll   l = index of element 32s + k, h = index of element 32s + k + 16

// d times the scale of sub-block s of the block whose first word is `block`.
fn iq4_xs_scale(block: u32, s: u32) -> f32 {
    let head = weights[block];
    let low = (weights[block + 1u] >> (s << 2u)) & 15u;
    let high = (head >> (16u + (s << 1u))) & 3u;
    return unpack2x16float(head).x * (f32(low | (high << 4u)) - 32.0);
}

fn iq4_xs_at(row_byte: u32, i: u32) -> f32 {
    let block = (row_byte >> 2u) + (i >> 8u) * 34u;
    let sub = (i >> 5u) & 7u;
    let q = (byte_at(4u * block + 8u + 16u * sub + (i & 15u)) >> ((i & 16u) >> 2u)) & 15u;
    return iq4_xs_scale(block, sub) * iq4_value(q);
}

fn iq4_xs_group(row_byte: u32, g: u32) -> Group {
    let block = (row_byte >> 2u) + (g >> 3u) * 34u;
    let w = block + 2u + 4u * (g & 7u);
    let q = vec4<u32>(weights[w], weights[w + 1u], weights[w + 2u], weights[w + 3u]);
    let high = q >> vec4<u32>(4u);
    let d = iq4_xs_scale(block, g & 7u);
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
