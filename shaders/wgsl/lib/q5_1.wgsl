#import words
#import group
// Q5_1: 32 elements in 24 bytes, x = d q + m.
//
//   byte  0      2      4        8                         24
//         d f16  m f16  qh u32   qs: 16 bytes
//   byte k of qs:  hhhh llll   low four bits of the quants of elements k (l) and k + 16 (h)
//   bit  i of qh:  fifth bit of the quant of element i

fn q5_1_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 5u) * 24u;
    let k = i & 31u;
    let dm = unpack2x16float(weights[block >> 2u]);
    let low = (byte_at(block + 8u + (k & 15u)) >> ((k & 16u) >> 2u)) & 15u;
    let high = (weights[(block >> 2u) + 1u] >> k) & 1u;
    return dm.x * f32(low | (high << 4u)) + dm.y;
}

fn q5_1_group(row_byte: u32, g: u32) -> Group {
    let w = (row_byte >> 2u) + g * 6u;
    let dm = unpack2x16float(weights[w]);
    let qh = weights[w + 1u];
    let q = vec4<u32>(weights[w + 2u], weights[w + 3u], weights[w + 4u], weights[w + 5u]);
    let low = q & vec4<u32>(0x0f0f0f0fu);
    let high = (q >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
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
        dm.xyxy,
    );
}
