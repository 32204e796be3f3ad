// Columns of a row by groups, or two rows joined group by group:
//
//   out[g · group + j] = a[g · a_period + a_offset + j]      for j < first
//                        b[g · b_period + j - first]         for the rest (JOIN)
//
//   OUTPUTS: rows are outputs (lib/batch.wgsl)   VEC: four elements at a time (lib/arena.wgsl)
//
// One invocation an E; x counts blocks of a row, y rows. 8 bytes an element, no flops: it only copies.

#import arena

struct Params {
    a: Place,
    b: Place,
    result: Place,
    // All in E's: those of a row of the result, and of its groups.
    width: u32,
    group: u32,
    first: u32,
    a_period: u32,
    a_offset: u32,
    b_period: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let g = id.x / params.group;
    let j = id.x % params.group;
    var element = source(params.a, id.y) + g * params.a_period + params.a_offset + j;
#if JOIN
    if j >= params.first {
        element = source(params.b, id.y) + g * params.b_period + j - params.first;
    }
#endif
    arena[target_row(params.result, id.y) + id.x] = arena[element];
}
