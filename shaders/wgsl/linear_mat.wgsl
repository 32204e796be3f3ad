// y = x Wᵀ for many rows of x: prompts.
//
//   x   rows of k f32 in the arena    W   rows of blocks as in the file (lib/<format>.wgsl)    y   f32 in the arena
//   FORMAT0 .. 3, KIND0 .. 3   formats of the parts, and how their groups are read: float, bytes or signed
//   TAIL   32 does not divide k, which only float formats allow
//   F16   workgroup memory holds f16; products and sums are f32     TOKENS   rows of x in a tile: 64, or 32 for few
//
// A workgroup of 128 computes 64 rows of W times 64 rows of x. In each round half of the invocations unpack a group of
// 32 weights each and the other half copy 32 elements of x each into workgroup memory: 2 x 64 x 32 f32, the 16 KiB that
// every adapter has, or with F16 half of it. Weights are unpacked once for 64 rows of x. Then each invocation adds up
// 8 x 4 products from four elements of 8 rows and 4 tokens at a time: 12 reads of 16 bytes for 128 fused multiply-adds.
// Tiles lie as [four elements][row], and rows of an invocation are 8 apart (tokens 16), so that neighbours read
// neighbouring words. For up to 32 rows of x a narrow tile leaves out the products of rows that there are not: 8 x 2 an
// invocation, 10 reads for 64 multiply-adds, which is less than unpacking takes.
//
// F16 is for models whose keys and values are f16, too; for adapters without matrix units but with f16; and for weights
// that have no more than its precision. The 12 reads of an invocation are 192 bytes for 128 multiply-adds, which is near
// what workgroup memory gives on such adapters (128 bytes a clock for 128 lanes); f16 halves the bytes, and lets twice as
// many workgroups be under way. Their instructions take f16 factors into f32 products, so that widening costs nothing. The
// arena stays f32: values there are read once a workgroup, not 64 times, and sums of the residual stream need the range.
//
// Bytes: W once for every TOKENS rows of x, x once for every 64 rows of W. Flops: 2 a weight and token.
// x and z count workgroups of all parts, y blocks of TOKENS rows of x.
#import linear
#import linear_mat_tiles

#import linear_parts PART=linear_mat_part

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let group = own_group(id.x + id.z * count.x);
    let first_token = id.y * TOKENS;
    let p = part_of(group);
    let first_row = (group - params.parts[p].first_group) * TILE;
    var sums: Sums;
#import linear_sums ARGS=index,first_row,first_token,&sums
#if GATED
    var ups: Sums;
    sums_1(index, first_row, first_token, &ups);
#endif
#if GATED
    let gate_target = target_of(0u);
    let up_target = target_of(1u);
    let rows = gate_target.rows;
#else
    let result = target_of(p);
    let rows = result.rows;
#endif
    let tokens = row_count();
    for (var t = 0u; t < T; t++) {
        let token = first_token + t * (TOKENS / T) + index / (TILE / R);
        for (var r = 0u; r < R; r++) {
            let row = first_row + r * (TILE / R) + index % (TILE / R);
            if row < rows && token < tokens {
                let i = r * T + t;
#if GATED
                finish(gate_target, row, token, gate(biased(gate_target, row, sums[i]), biased(up_target, row, ups[i])));
#else
                finish(result, row, token, biased(result, row, sums[i]));
#endif
            }
        }
    }
}
