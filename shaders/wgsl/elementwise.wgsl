// Element by element:
//
//   out[i] = a_factor · a[i] + b_factor · b[i]     out[i] = a[i] · b[i / b_group]
//   out[i] = cap · tanh(a[i] / cap)                out[i] = a[i] · a factor of the token's position
//
//   ADD: there is a `b`; without, this scales, copies and (OUTPUTS) selects rows   MUL, SOFTCAP, POSITION: other forms
//   OUTPUTS: rows are outputs (lib/batch.wgsl)   VEC: four elements at a time (lib/arena.wgsl)
//
// One invocation an E; x counts blocks of a row, y rows. 8 or 12 bytes an element and next to no flops.

#import arena
#if SOFTCAP
#import activation
#endif
#if POSITION
#import position
#endif

struct Params {
    a: Place,
    b: Place,
    result: Place,
    width: u32,
    // The cap of a softcap, the beta of POSITION, else a factor.
    a_factor: f32,
    b_factor: f32,
    // E's of `a` for each of `b`.
    b_group: u32,
    // Of POSITION.
    length: u32,
    offset: u32,
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
#if POSITION
    var token = id.y;
#if OUTPUTS
    token = batch[batch[5] + id.y];
#endif
    y *= position_factor(params.a_factor, params.length, params.offset, token);
#else
    y *= params.a_factor;
#endif
#endif
#if ADD
    y += params.b_factor * arena[source(params.b, id.y) + id.x];
#endif
#if MUL
    y *= arena[source(params.b, id.y) + id.x / params.b_group];
#endif
    arena[target_row(params.result, id.y) + id.x] = y;
}
