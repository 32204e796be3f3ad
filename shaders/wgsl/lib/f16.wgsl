#import words
// F16: two bytes an element, IEEE binary16. Rows begin at any even byte.

fn f16_at(row_byte: u32, i: u32) -> f32 {
    return half_at(row_byte + 2u * i);
}

// Elements i .. i + 3. Where they straddle three words the third is read, else the second once more.
fn f16_4(row_byte: u32, i: u32) -> vec4<f32> {
    let byte = row_byte + 2u * i;
    let w = byte >> 2u;
    let odd = (byte & 2u) != 0u;
    let a = weights[w];
    let b = weights[w + 1u];
    let c = weights[w + select(1u, 2u, odd)];
    return vec4<f32>(unpack2x16float(select(a, straddle(a, b), odd)), unpack2x16float(select(b, straddle(b, c), odd)));
}
