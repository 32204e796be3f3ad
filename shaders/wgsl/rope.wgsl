// Rotates the heads of a row by the token's position, where no other kernel can do it on the way (attention's own
// rotation is in heads.wgsl).
//
//   INTERLEAVED: pairs are neighbours; else half a rotation apart   OUTPUTS: rows are outputs (lib/batch.wgsl)
//
// One invocation a pair of elements, those beyond the rotated ones included; x counts blocks of a row, y rows.
// 16 bytes and 6 flops a pair.

#import arena
#import rope

struct Params {
    a: Place,
    result: Place,
    rope: u32,
    // Pairs of a head that turn.
    half: u32,
    head_dim: u32,
    // Elements of a row.
    width: u32,
    // First element of a head that turns.
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // The pairs of a head, and one more where its size is odd.
    let pairs = (params.head_dim + 1u) / 2u;
    let head = id.x / pairs;
    let j = id.x % pairs;
    if head * params.head_dim >= params.width {
        return;
    }
    let a = source(params.a, id.y) + head * params.head_dim;
    let result = target_row(params.result, id.y) + head * params.head_dim;
    if j < params.half {
        var token = id.y;
#if OUTPUTS
        token = batch[batch[5] + id.y];
#endif
        let angles = row_angles(params.rope, params.half, token);
        let at = pair(j, params.half) + params.first;
        let y = turned(vec2(arena[a + at.x], arena[a + at.y]), ropes[angles + j], ropes[angles + params.half + j]);
        arena[result + at.x] = y.x;
        arena[result + at.y] = y.y;
    } else {
        // The elements before the ones that turn, then those behind them.
        for (var n = 2u * j; n < min(2u * j + 2u, params.head_dim); n++) {
            let before = n - 2u * params.half;
            let i = select(n, before, before < params.first);
            arena[result + i] = arena[a + i];
        }
    }
}
