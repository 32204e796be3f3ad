#import words
// F32: four bytes an element, little-endian. Rows begin at multiples of four bytes.

fn f32_at(row_byte: u32, i: u32) -> f32 {
    return bitcast<f32>(weights[(row_byte >> 2u) + i]);
}

// Elements i .. i + 3.
fn f32_4(row_byte: u32, i: u32) -> vec4<f32> {
    let w = (row_byte >> 2u) + i;
    return bitcast<vec4<f32>>(vec4<u32>(weights[w], weights[w + 1u], weights[w + 2u], weights[w + 3u]));
}
