#import words
// FP8 E4M3: a byte an element, seeeemmm; the importing kernel multiplies by scales of their own. Rows begin at any byte.
//
// The same digits in the places of an f16 are a number 2^8 times too small, subnormals included; what is NaN (s1111111)
// has a bit of the f16's exponent more set.

// Two elements, in bytes 0 and 2 of `b`.
fn f8_pair(b: u32) -> vec2<f32> {
    let digits = b & 0x007f007fu;
    let special = ((digits + 0x00010001u) & 0x00800080u) * 0xf8u;
    return 256.0 * unpack2x16float(((b & 0x00800080u) << 8u) | (digits << 7u) | special);
}

fn f8_e4m3_at(row_byte: u32, i: u32) -> f32 {
    return f8_pair(byte_at(row_byte + i)).x;
}

fn f8_e4m3_4(row_byte: u32, i: u32) -> vec4<f32> {
    let byte = row_byte + i;
    let shift = (byte & 3u) << 3u;
    let a = weights[byte >> 2u];
    let b = weights[(byte >> 2u) + select(1u, 0u, shift == 0u)];
    let w = select((a >> shift) | (b << ((32u - shift) & 31u)), a, shift == 0u);
    let even = f8_pair(w & 0x00ff00ffu);
    let odd = f8_pair((w >> 8u) & 0x00ff00ffu);
    return vec4<f32>(even.x, odd.x, even.y, odd.y);
}
