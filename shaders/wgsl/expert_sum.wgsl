// The sum over a row's experts, one row after the other:
//
//   out[i] = Σ w[s] · y[s · width + i]     w: the second half of the route     WEIGHTED: else w is 1
//   y: a row's slots, one behind the other; all are f32 in the arena     OUTPUTS: rows are outputs (lib/batch.wgsl)
//
// One invocation an element; x counts blocks of a row, y rows. Invocations share nothing but the weights, which the
// cache has: WG is 64, whole subgroups on every adapter, and a single row still goes to many cores. 4 · (slots + 1)
// bytes and 2 · slots flops (without weights half of that) an element.
#import arena

struct Params {
    y: Place,
    route: Place,
    result: Place,
    width: u32,
    slots: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let y = source(params.y, id.y) + id.x;
    let route = source(params.route, id.y) + params.slots;
    var sum = 0.0;
    for (var s = 0u; s < params.slots; s++) {
#if WEIGHTED
        sum = fma(arena[route + s], arena[y + s * params.width], sum);
#else
        sum += arena[y + s * params.width];
#endif
    }
    arena[target_row(params.result, id.y) + id.x] = sum;
}
