// Element by element:  out[i] = a_factor · a[i] + b_factor · b[i]   or   cap · tanh(a[i] / cap)
//
//   ADD: there is a `b`; without, this scales, copies and (OUTPUTS) selects rows   SOFTCAP: the second form
//   OUTPUTS: rows are outputs (lib/batch.wgsl)   VEC: four elements at a time (lib/arena.wgsl)
//
// One invocation an E; x counts blocks of a row, y rows. 8 or 12 bytes an element and next to no flops.

#import arena
#if SOFTCAP
#import activation
#endif

struct Params {
    a: Place,
    b: Place,
    result: Place,
    width: u32,
    // The cap of a softcap, else a factor.
    a_factor: f32,
    b_factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    var y = arena[source(params.a, id.y) + id.x];
#if SOFTCAP
    y = params.a_factor * bounded_tanh(y / params.a_factor);
#else
    y *= params.a_factor;
#endif
#if ADD
    y += params.b_factor * arena[source(params.b, id.y) + id.x];
#endif
    arena[target_row(params.result, id.y) + id.x] = y;
}
