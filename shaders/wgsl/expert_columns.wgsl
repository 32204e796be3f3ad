// y = x W by the experts that each row of x has chosen, for floats that the file stores with a row per input.
//
//   x   rows of k f32 in the arena, or one for each slot of a row     W   [k, out] for each expert (lib/experts.wgsl)
//   y   f32 in the arena, one slot after the other
//
// One invocation an element of y, so that neighbours read neighbouring weights. A workgroup has 64, whole subgroups on
// every adapter: they share nothing but x, which the cache has, and the smaller they are, the more cores a single row
// keeps busy. Bytes: W of the experts chosen, once for each row that did. Flops: 2 a weight. x counts 64 elements of y,
// y rows of x, z slots.
#import linear
#import ${FORMAT0}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let column = id.x * 64u + index;
    if !choose_expert(id.y, id.z) || column >= params.parts[0].rows {
        return;
    }
    let x = x_row(0u);
    var sum = 0.0;
    for (var i = 0u; i < params.k; i++) {
        sum = fma(load1(x + i), ${FORMAT0}_at(expert_byte + i * params.parts[0].row_bytes, column), sum);
    }
    finish_expert(column, 0u, sum);
}
