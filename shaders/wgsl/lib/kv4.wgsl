// Four elements of the pages that are bound as ${AT}: `${NAME}4(row, i, dim)`, those from `i` on, a multiple of four, of
// the row of `dim` elements that begins at `row`. With KV_Q8_0 also in two parts, of which one serves a block of 32.

#if KV_F16
@group(0) @binding(${AT}) var<storage, read> ${NAME}: array<vec2<u32>>;
#else
#if KV_Q8_0
@group(0) @binding(${AT}) var<storage, read> ${NAME}: array<u32>;
#else
@group(0) @binding(${AT}) var<storage, read> ${NAME}: array<vec4<u32>>;
#endif
#endif

#if KV_Q8_0
fn ${NAME}_scale(row: u32, i: u32, dim: u32) -> f32 {
    return unpack2x16float(${NAME}[row + dim / 4u + i / 64u] >> ((i & 32u) >> 1u)).x;
}

fn ${NAME}_bytes(row: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(${NAME}[row + i / 4u]) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
#endif

fn ${NAME}4(row: u32, i: u32, dim: u32) -> vec4<f32> {
#if KV_F16
    let w = ${NAME}[(row + i) / 4u];
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
#else
#if KV_Q8_0
    return ${NAME}_bytes(row, i) * ${NAME}_scale(row, i, dim);
#else
    return bitcast<vec4<f32>>(${NAME}[(row + i) / 4u]);
#endif
#endif
}
