#import words
#import group
// Q2_K: 256 elements in 84 bytes, sixteen sub-blocks of 16, x = (d scale) q - (dmin minimum).
//
//   byte  0                    16                  80     82        84
//         scales: 16 bytes     qs: 2 x 32 bytes    d f16  dmin f16
//   byte s of scales:  mmmm ssss   s = scale, m = minimum of elements 16s ..
//   half h of the block (elements 128h ..) has the h-th 32 bytes of qs; in it, for k < 32:
//   byte k of qs:      ddccbbaa    a = element k, b = element k + 32, c = k + 64, d = k + 96

fn q2_k_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 8u) * 84u;
    let unit = unpack2x16float(weights[(block >> 2u) + 20u]);
    let s = byte_at(block + ((i >> 4u) & 15u));
    let q = (byte_at(block + 16u + 32u * ((i >> 7u) & 1u) + (i & 31u)) >> (((i >> 5u) & 3u) << 1u)) & 3u;
    return (unit.x * f32(s & 15u)) * f32(q) - unit.y * f32(s >> 4u);
}

fn q2_k_group(row_byte: u32, g: u32) -> Group {
    let block = (row_byte >> 2u) + (g >> 3u) * 21u;
    let w = block + 4u + 8u * ((g >> 2u) & 1u);
    let shift = vec4<u32>((g & 3u) << 1u);
    let mask = vec4<u32>(0x03030303u);
    let a = (vec4<u32>(weights[w], weights[w + 1u], weights[w + 2u], weights[w + 3u]) >> shift) & mask;
    let b = (vec4<u32>(weights[w + 4u], weights[w + 5u], weights[w + 6u], weights[w + 7u]) >> shift) & mask;
    let s = weights[block + ((g & 7u) >> 1u)] >> ((g & 1u) << 4u);
    let sm = vec4<f32>((vec4<u32>(s) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u));
    let unit = unpack2x16float(weights[block + 20u]) * vec2<f32>(1.0, -1.0);
    return Group(array<u32, 8>(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w), unit.xyxy * sm);
}
