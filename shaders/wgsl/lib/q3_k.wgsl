#import words
#import group
// Q3_K: 256 elements in 110 bytes, sixteen sub-blocks of 16, x = (d scale) (q - 4).
//
//   byte  0                  32                  96                   108    110
//         high: 32 bytes     qs: 2 x 32 bytes    scales: 12 bytes     d f16
//   half h of the block (elements 128h ..) has the h-th 32 bytes of qs; in it, for k < 32:
//   byte k of qs:               ddccbbaa    low bits of a = element k, b = element k + 32, c = k + 64, d = k + 96
//   bit  s of byte k of high:               third bit of element 32s + k
//   scales are centred on 32; that of sub-block s (elements 16s ..) has its
//   low four bits in byte s % 8 of scales, those of sub-blocks 8 .. in the upper half, and its
//   upper two bits in byte 8 + s % 4, from bit 2 (s / 4) on
//
// Blocks begin at any even byte.

// The scales of sub-blocks 2g and 2g + 1 in two bytes.
fn q3_k_scales(block: u32, g: u32) -> u32 {
    let low = half_bits_at(block + 96u + ((2u * g) & 7u)) >> (g & 4u);
    let high = half_bits_at(block + 104u + ((2u * g) & 3u)) >> (g & 6u);
    return (low & 0x0f0fu) | ((high & 0x0303u) << 4u);
}

fn q3_k_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 8u) * 110u;
    let sub = (i >> 5u) & 7u;
    let k = i & 31u;
    let low = (byte_at(block + 32u + 32u * (sub >> 2u) + k) >> ((sub & 3u) << 1u)) & 3u;
    let high = (byte_at(block + k) >> sub) & 1u;
    let scale = (q3_k_scales(block, sub) >> ((i & 16u) >> 1u)) & 255u;
    return (half_at(block + 108u) * (f32(scale) - 32.0)) * (f32(low | (high << 2u)) - 4.0);
}

fn q3_k_group(row_byte: u32, g: u32) -> Group {
    let block = row_byte + (g >> 3u) * 110u;
    let sub = g & 7u;
    let qs = block + 32u + 32u * (sub >> 2u);
    let pair = vec4<u32>((sub & 3u) << 1u);
    let bit = vec4<u32>(sub);
    let low = vec4<u32>(0x03030303u);
    let high = vec4<u32>(0x01010101u);
    let two = vec4<u32>(2u);
    let a = ((words16_at(qs) >> pair) & low) | (((words16_at(block) >> bit) & high) << two);
    let b = ((words16_at(qs + 16u) >> pair) & low) | (((words16_at(block + 16u) >> bit) & high) << two);
    let scales = q3_k_scales(block, sub);
    let d = half_at(block + 108u);
    let s = d * (f32(scales & 255u) - 32.0);
    let t = d * (f32(scales >> 8u) - 32.0);
    return Group(array<u32, 8>(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w), vec4<f32>(s, -4.0 * s, t, -4.0 * t));
}
