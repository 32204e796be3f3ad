// An activation, or the gated one of a feed-forward:  out[i] = act(x[i])   or   act(gate[i]) · up[i]
//
//   ACT: which (lib/act.wgsl)   UNARY: the first form   OUTPUTS: rows are outputs (lib/batch.wgsl)
//   VEC: four elements at a time (lib/arena.wgsl)
//
// One invocation an E; x counts blocks of a row, y rows. 8 or 12 bytes and about 10 flops an element: bound by memory, so
// there is nothing to tile.

#import arena
#import act T=E

struct Params {
    gate: Place,
    up: Place,
    result: Place,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let x = arena[source(params.gate, id.y) + id.x];
#if UNARY
    let y = gate(x, E(1.0));
#else
    let y = gate(x, arena[source(params.up, id.y) + id.x]);
#endif
    arena[target_row(params.result, id.y) + id.x] = y;
}
