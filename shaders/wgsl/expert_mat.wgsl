// y = x Wᵀ by the experts that each row of x has chosen, for many rows: as linear_mat.wgsl, over the pairs of row and slot
// that chose an expert, which expert_sort.wgsl has put together.
//
//   x, W, y   as in expert_vec.wgsl     other defines as in linear_mat.wgsl, with TOKENS 64
//
// Bytes: W of each expert chosen once for every 64 pairs, x once for every 64 rows of W. Flops: 2 a weight and pair.
// x counts 64 rows of W, y 64 pairs of an expert, z experts: workgroups beyond an expert's pairs end at once.
#import linear
#import linear_mat_tiles
#import linear_mat_part N=0 FORMAT=${FORMAT0} KIND=${KIND0}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let first_token = id.y * TOKENS;
    let first_row = id.x * TILE;
    if !choose_expert(id.z, first_token) {
        return;
    }
    var sums: Sums;
    sums_0(index, first_row, first_token, &sums);
    for (var t = 0u; t < T; t++) {
        let token = first_token + t * (TOKENS / T) + index / (TILE / R);
        for (var r = 0u; r < R; r++) {
            let row = first_row + r * (TILE / R) + index % (TILE / R);
            if row < params.parts[0].rows && token < x_rows() {
                finish_expert(row, token, sums[r * T + t]);
            }
        }
    }
}
