#import words
#import group
// Q4_1: 32 elements in 20 bytes, x = d q + m.
//
//   byte  0      2      4                         20
//         d f16  m f16  qs: 16 bytes
//   byte k of qs:  hhhh llll   l = quant of element k, h = quant of element k + 16

fn q4_1_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 5u) * 20u;
    let dm = unpack2x16float(weights[block >> 2u]);
    let q = (byte_at(block + 4u + (i & 15u)) >> ((i & 16u) >> 2u)) & 15u;
    return dm.x * f32(q) + dm.y;
}

fn q4_1_group(row_byte: u32, g: u32) -> Group {
    let w = (row_byte >> 2u) + g * 5u;
    let dm = unpack2x16float(weights[w]);
    let q = vec4<u32>(weights[w + 1u], weights[w + 2u], weights[w + 3u], weights[w + 4u]);
    let low = q & vec4<u32>(0x0f0f0f0fu);
    let high = (q >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    return Group(array<u32, 8>(low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w), dm.xyxy);
}
