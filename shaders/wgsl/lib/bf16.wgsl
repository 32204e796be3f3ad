#import words
// BF16: two bytes an element, the upper half of a binary32. Rows begin at any even byte.

fn bf16_at(row_byte: u32, i: u32) -> f32 {
    return bitcast<f32>(half_bits_at(row_byte + 2u * i) << 16u);
}

// Elements i .. i + 3. Where they straddle three words the third is read, else the second once more.
fn bf16_4(row_byte: u32, i: u32) -> vec4<f32> {
    let byte = row_byte + 2u * i;
    let w = byte >> 2u;
    let odd = (byte & 2u) != 0u;
    let a = weights[w];
    let b = weights[w + 1u];
    let c = weights[w + select(1u, 2u, odd)];
    let lo = select(a, straddle(a, b), odd);
    let hi = select(b, straddle(b, c), odd);
    return bitcast<vec4<f32>>(vec4<u32>(lo << 16u, lo & 0xffff0000u, hi << 16u, hi & 0xffff0000u));
}
