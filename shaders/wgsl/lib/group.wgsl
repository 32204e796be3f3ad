// 32 consecutive elements of a row of a block format, unpacked half way: quants as bytes, and what turns them into
// weights. Word j has elements 4j .. 4j + 3, the first in the lowest byte; element i is
//   scale.x * q + scale.y   for i < 16,   scale.z * q + scale.w   for the others.
// Bytes are 0 .. 63, or signed (the KIND of the format): all of them do for dot4I8Packed.
struct Group {
    q: array<u32, 8>,
    scale: vec4<f32>,
}

fn bytes_to_f32(q: u32) -> vec4<f32> {
    return vec4<f32>(vec4<u32>(q & 255u, (q >> 8u) & 255u, (q >> 16u) & 255u, q >> 24u));
}

fn signed_to_f32(q: u32) -> vec4<f32> {
    let s = vec4<i32>(bitcast<i32>(q << 24u), bitcast<i32>(q << 16u), bitcast<i32>(q << 8u), bitcast<i32>(q));
    return vec4<f32>(s >> vec4<u32>(24u));
}

#if F16
fn bytes_to_f16(q: u32) -> vec4<f16> {
    return vec4<f16>(bytes_to_f32(q));
}

fn signed_to_f16(q: u32) -> vec4<f16> {
    return vec4<f16>(signed_to_f32(q));
}
#endif

// Bits 0 .. 3 of `bits` as bit `bit` of the four bytes.
fn spread_bits(bits: u32, bit: u32) -> u32 {
    return (((bits & 15u) * 0x00204081u) & 0x01010101u) << bit;
}
