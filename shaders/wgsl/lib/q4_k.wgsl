#import words
#import group
#import k_scales
// Q4_K: 256 elements in 144 bytes, eight sub-blocks of 32, x = (d scale) q - (dmin minimum).
//
//   byte  0      2         4                    16                      144
//         d f16  dmin f16  scales: 12 bytes     qs: 4 x 32 bytes
//   scales: 6-bit scale and minimum of each sub-block, see k_scales
//   byte k of the c-th 32 of qs:  hhhh llll   l = element 64c + k (sub-block 2c), h = element 64c + 32 + k (2c + 1)

fn q4_k_at(row_byte: u32, i: u32) -> f32 {
    let block = (row_byte >> 2u) + (i >> 8u) * 36u;
    let sub = (i >> 5u) & 7u;
    let scale = k_scale(block, sub);
    let q = (byte_at(4u * block + 16u + 32u * (sub >> 1u) + (i & 31u)) >> ((sub & 1u) << 2u)) & 15u;
    return scale.x * f32(q) + scale.y;
}

fn q4_k_group(row_byte: u32, g: u32) -> Group {
    let block = (row_byte >> 2u) + (g >> 3u) * 36u;
    let w = block + 4u + 8u * ((g >> 1u) & 3u);
    let shift = vec4<u32>((g & 1u) << 2u);
    let mask = vec4<u32>(0x0f0f0f0fu);
    let a = (vec4<u32>(weights[w], weights[w + 1u], weights[w + 2u], weights[w + 3u]) >> shift) & mask;
    let b = (vec4<u32>(weights[w + 4u], weights[w + 5u], weights[w + 6u], weights[w + 7u]) >> shift) & mask;
    let s = k_scale(block, g & 7u);
    return Group(array<u32, 8>(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w), s.xyxy);
}
