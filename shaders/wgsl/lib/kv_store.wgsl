// Two elements into the pages that are bound as ${AT}; `at` is even.

@group(0) @binding(${AT}) var<storage, read_write> kv: array<u32>;

fn store(at: u32, a: f32, b: f32) {
#if KV_F16
    // Beyond the largest half a conversion may give anything.
    kv[at / 2u] = pack2x16float(clamp(vec2(a, b), vec2(-65504.0), vec2(65504.0)));
#else
    kv[at] = bitcast<u32>(a);
    kv[at + 1u] = bitcast<u32>(b);
#endif
}
