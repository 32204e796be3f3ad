// y = x W for a weight whose rows belong to inputs: element o of the output is the product of x and column o. For heads of
// latent attention, whose key matrix is read the other way round than it is stored.
//
//   x   rows of k f32 in the arena    W   k rows of blocks as in the file (lib/<format>.wgsl)    y   f32 in the arena
//   FORMAT0   the format     TOKENS   rows of x of an invocation     WG   invocations
//
// An invocation is an element of the output: neighbours read neighbouring elements of a row of W, and all of them the same
// element of x. x and z count workgroups (of all heads), y blocks of TOKENS rows of x. No workgroup memory, no barrier.
// Bytes: W once for every TOKENS rows of x. Flops: 2 a weight and token.
#import linear
#import ${FORMAT0}

const TOKENS = ${TOKENS}u;
const WG = ${WG}u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let group = own_group(id.x + id.z * count.x);
    let first_token = id.y * TOKENS;
    let tokens = row_count();
    let result = target_of(0u);
    let column = group * WG + index;
    let own = min(column, result.rows - 1u);
    let row_bytes = params.parts[0].row_bytes;
    var byte = weights_of(0u);
    var x_at: array<u32, TOKENS>;
    var sums: array<f32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        x_at[t] = x_row(first_token + t);
        sums[t] = 0.0;
    }
    for (var i = 0u; i < params.k; i++) {
        var w = ${FORMAT0}_at(byte, own);
#if SCALES
        w *= scale_of(0u, i, own);
#endif
        for (var t = 0u; t < TOKENS; t++) {
            sums[t] += w * load1(x_at[t] + i);
        }
        byte += row_bytes;
    }
    for (var t = 0u; t < TOKENS; t++) {
        if column < result.rows && first_token + t < tokens {
            finish(result, column, first_token + t, biased(result, column, sums[t]));
        }
    }
}
