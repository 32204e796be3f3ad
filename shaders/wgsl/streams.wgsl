// Rows made of several streams side by side.
//
//   MIX: out[s · width + i] = Σ_u (b[s · inputs + u] + offset) · a[u · width + i]   else a row added to each stream:
//   out[s · width + i] = a[s · width + i] + b[i]
//   OUTPUTS: rows are outputs (lib/batch.wgsl)
//
// An invocation an element; y counts rows. Bytes: 4 · inputs (from the cache but once), and 4 written; 2 · inputs flops.

#import arena

struct Params {
    a: Place,
    b: Place,
    result: Place,
    // Elements of a stream, and of the result's row.
    width: u32,
    elements: u32,
    inputs: u32,
    offset: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

const WG = ${WG}u;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = wg.x * WG + lane;
    if i >= params.elements {
        return;
    }
    let a = source(params.a, wg.y);
    let b = source(params.b, wg.y);
#if MIX
    var sum = 0.0;
    for (var u = 0u; u < params.inputs; u++) {
        let coef = arena[b + i / params.width * params.inputs + u] + params.offset;
        sum += coef * arena[a + u * params.width + i % params.width];
    }
#else
    let sum = arena[a + i] + arena[b + i % params.width];
#endif
    arena[target_row(params.result, wg.y) + i] = sum;
}
