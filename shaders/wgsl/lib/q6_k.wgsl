#import words
#import group
// Q6_K: 256 elements in 210 bytes, sixteen sub-blocks of 16, x = (d scale) (q - 32).
//
//   byte  0                    128                 192                208     210
//         ql: 2 x 64 bytes     qh: 2 x 32 bytes    scales: 16 x i8    d f16
//   half h of the block (elements 128h ..) has the h-th 64 bytes of ql and the h-th 32 of qh; in it, for k < 32:
//   byte k      of ql:  cccc aaaa   low bits of a = element k, c = element k + 64
//   byte k + 32 of ql:  dddd bbbb   low bits of b = element k + 32, d = element k + 96
//   byte k      of qh:  DDCCBBAA    upper bits of the same four
//   scale s is that of elements 16s ..
//
// Blocks begin at any even byte.

fn q6_k_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 8u) * 210u;
    let half = (i >> 7u) & 1u;
    let quarter = (i >> 5u) & 3u;
    let k = i & 31u;
    let low = (byte_at(block + 64u * half + 32u * (quarter & 1u) + k) >> ((quarter & 2u) << 1u)) & 15u;
    let high = (byte_at(block + 128u + 32u * half + k) >> (quarter << 1u)) & 3u;
    let scale = bitcast<i32>(byte_at(block + 192u + ((i >> 4u) & 15u)) << 24u) >> 24u;
    return (half_at(block + 208u) * f32(scale)) * (f32(low | (high << 4u)) - 32.0);
}

fn q6_k_group(row_byte: u32, g: u32) -> Group {
    let block = row_byte + (g >> 3u) * 210u;
    let half = (g >> 2u) & 1u;
    let quarter = g & 3u;
    let ql = block + 64u * half + 32u * (quarter & 1u);
    let qh = block + 128u + 32u * half;
    let nibble = vec4<u32>((quarter & 2u) << 1u);
    let pair = vec4<u32>(quarter << 1u);
    let low = vec4<u32>(0x0f0f0f0fu);
    let high = vec4<u32>(0x03030303u);
    let four = vec4<u32>(4u);
    let a = ((words16_at(ql) >> nibble) & low) | (((words16_at(qh) >> pair) & high) << four);
    let b = ((words16_at(ql + 16u) >> nibble) & low) | (((words16_at(qh + 16u) >> pair) & high) << four);
    let scales = half_bits_at(block + 192u + 2u * (g & 7u));
    let d = half_at(block + 208u);
    let s = d * f32(bitcast<i32>(scales << 24u) >> 24u);
    let t = d * f32(bitcast<i32>(scales << 16u) >> 24u);
    return Group(array<u32, 8>(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w), vec4<f32>(s, -32.0 * s, t, -32.0 * t));
}
