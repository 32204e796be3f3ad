#import words
#import group
#import k_scales
// Q5_K: 256 elements in 176 bytes, eight sub-blocks of 32, x = (d scale) q - (dmin minimum).
//
//   byte  0      2         4                    16                48                  176
//         d f16  dmin f16  scales: 12 bytes     qh: 32 bytes      qs: 4 x 32 bytes
//   scales: 6-bit scale and minimum of each sub-block, see k_scales
//   byte k of the c-th 32 of qs:  hhhh llll   low bits of l = element 64c + k (sub-block 2c), h = 64c + 32 + k (2c + 1)
//   bit  s of byte k of qh:                   fifth bit of element 32s + k (sub-block s)

fn q5_k_at(row_byte: u32, i: u32) -> f32 {
    let block = (row_byte >> 2u) + (i >> 8u) * 44u;
    let sub = (i >> 5u) & 7u;
    let k = i & 31u;
    let scale = k_scale(block, sub);
    let low = (byte_at(4u * block + 48u + 32u * (sub >> 1u) + k) >> ((sub & 1u) << 2u)) & 15u;
    let high = (byte_at(4u * block + 16u + k) >> sub) & 1u;
    return scale.x * f32(low | (high << 4u)) + scale.y;
}

fn q5_k_group(row_byte: u32, g: u32) -> Group {
    let block = (row_byte >> 2u) + (g >> 3u) * 44u;
    let h = block + 4u;
    let w = block + 12u + 8u * ((g >> 1u) & 3u);
    let shift = vec4<u32>((g & 1u) << 2u);
    let bit = vec4<u32>(g & 7u);
    let mask = vec4<u32>(0x0f0f0f0fu);
    let one = vec4<u32>(0x01010101u);
    let four = vec4<u32>(4u);
    var a = (vec4<u32>(weights[w], weights[w + 1u], weights[w + 2u], weights[w + 3u]) >> shift) & mask;
    var b = (vec4<u32>(weights[w + 4u], weights[w + 5u], weights[w + 6u], weights[w + 7u]) >> shift) & mask;
    a |= ((vec4<u32>(weights[h], weights[h + 1u], weights[h + 2u], weights[h + 3u]) >> bit) & one) << four;
    b |= ((vec4<u32>(weights[h + 4u], weights[h + 5u], weights[h + 6u], weights[h + 7u]) >> bit) & one) << four;
    let s = k_scale(block, g & 7u);
    return Group(array<u32, 8>(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w), s.xyxy);
}
