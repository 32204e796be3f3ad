#import words
// The scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima in 12 bytes.
//
//   byte 0..4    HHss ssss   s = scale of sub-block j,       H = upper two bits of scale of sub-block j + 4
//   byte 4..8    GGmm mmmm   m = minimum of sub-block j,     G = upper two bits of minimum of sub-block j + 4
//   byte 8..12   gggg hhhh   h, g = lower four bits of scale and minimum of sub-block j + 4
//                j = the byte's number within its four

// Scale and negated minimum of sub-block s (0 .. 7): x = scale q + offset. `block` is the block's first word, whose
// halves are the units of the scales and of the minima. Both ways are computed and one is chosen: lanes at different
// sub-blocks do not diverge.
fn k_scale(block: u32, s: u32) -> vec2<f32> {
    let shift = (s & 3u) << 3u;
    let a = weights[block + 1u] >> shift;
    let b = weights[block + 2u] >> shift;
    let c = weights[block + 3u] >> shift;
    let low = vec2<u32>(a & 63u, b & 63u);
    let high = vec2<u32>((c & 15u) | ((a >> 2u) & 48u), ((c >> 4u) & 15u) | ((b >> 2u) & 48u));
    let sm = vec2<f32>(select(high, low, s < 4u));
    return unpack2x16float(weights[block]) * sm * vec2<f32>(1.0, -1.0);
}
