// The gated activation of a feed-forward:  out[i] = act(gate[i]) · up[i]
//
//   SILU or GELU_TANH   OUTPUTS: rows are outputs (lib/batch.wgsl)   VEC: four elements at a time (lib/arena.wgsl)
//
// One invocation an E; x counts blocks of a row, y rows. 12 bytes and about 10 flops an element: bound by memory, so
// there is nothing to tile.

#import arena
#import activation

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
    let gate = arena[source(params.gate, id.y) + id.x];
    let up = arena[source(params.up, id.y) + id.x];
#if SILU
    let y = gate * sigmoid(gate) * up;
#else
    let y = gelu_tanh(gate) * up;
#endif
    arena[target_row(params.result, id.y) + id.x] = y;
}
