// Two floats as halves in a word; those beyond 65504 become infinite, and NaN stays NaN.

// The bits of a half that is not finite, for a float that none is near; else 0. 65520 rounds to the first power beyond.
fn beyond(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    let half = ((bits >> 16u) & 0x8000u) | select(0x7c00u, 0x7e00u, size > 0x7f800000u);
    return select(0u, half, size >= 0x477ff000u);
}

fn half_bits(x: vec2<f32>) -> u32 {
    let halves = pack2x16float(clamp(x, vec2(-65504.0), vec2(65504.0)));
    let odd = vec2(beyond(x.x), beyond(x.y));
    let low = select(halves & 0xffffu, odd.x, odd.x != 0u);
    let high = select(halves >> 16u, odd.y, odd.y != 0u);
    return low | (high << 16u);
}
