// Two elements into the pages that are bound as ${AT}; `at` is even.
//
// Halves end at 65504. Larger values become infinite and NaN stays NaN, so that attention makes no finite results of
// them: the error can then advise 32 bits. A driver's conversion may give anything instead.

@group(0) @binding(${AT}) var<storage, read_write> kv: array<u32>;

#if KV_F16
// The bits of a half that is not finite, for a float that none is near; else 0. 65520 rounds to the first power beyond.
fn beyond(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    let half = ((bits >> 16u) & 0x8000u) | select(0x7c00u, 0x7e00u, size > 0x7f800000u);
    return select(0u, half, size >= 0x477ff000u);
}
#endif

fn store(at: u32, a: f32, b: f32) {
#if KV_F16
    let halves = pack2x16float(clamp(vec2(a, b), vec2(-65504.0), vec2(65504.0)));
    let odd = vec2(beyond(a), beyond(b));
    let low = select(halves & 0xffffu, odd.x, odd.x != 0u);
    let high = select(halves >> 16u, odd.y, odd.y != 0u);
    kv[at / 2u] = low | (high << 16u);
#else
    kv[at] = bitcast<u32>(a);
    kv[at + 1u] = bitcast<u32>(b);
#endif
}
