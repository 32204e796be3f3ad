// Four elements of the pages that are bound as ${AT}: `${NAME}4(at)`, where `at` is a multiple of four.

#if KV_F16
@group(0) @binding(${AT}) var<storage, read> ${NAME}: array<vec2<u32>>;
#else
@group(0) @binding(${AT}) var<storage, read> ${NAME}: array<vec4<u32>>;
#endif

fn ${NAME}4(at: u32) -> vec4<f32> {
#if KV_F16
    let w = ${NAME}[at / 4u];
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
#else
    return bitcast<vec4<f32>>(${NAME}[at / 4u]);
#endif
}
