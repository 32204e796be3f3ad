// y = x Wᵀ by the experts that each row of x has chosen, for rows that the model chose: as linear_vec.wgsl, with the expert's weights.
//
//   x   rows of k f32 in the arena, or one for each slot of a row     W   [rows, k] for each expert (lib/experts.wgsl)
//   y   f32 in the arena, one slot after the other     other defines as in linear_vec.wgsl, with TOKENS 1
//
// Routes are read on the device: nothing comes back to the host. Bytes: W of the experts chosen, once for each row that
// did. Flops: 2 a weight. One workgroup does WG / TEAM * ROWS rows of W; x counts them, y rows of x, z slots.
#import linear
#import linear_vec_sums
#import linear_vec_part N=0 FORMAT=${FORMAT0} KIND=${KIND0}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
#if SUBGROUPS
    @builtin(subgroup_invocation_id) sub_lane: u32,
    @builtin(subgroup_id) sub: u32,
    @builtin(subgroup_size) sub_size: u32,
#else
    @builtin(local_invocation_index) index: u32,
#endif
) {
#if SUBGROUPS
    let index = sub * sub_size + sub_lane;
#endif
    let lane = index % TEAM;
    let first_row = id.x * (WG / TEAM * ROWS) + index / TEAM * ROWS;
    let here = choose_expert(id.y, id.z);
    var sums: Sums;
    // Nothing in here waits for other invocations.
    if here {
        sums_0(lane, first_row, 0u, &sums);
#if ROUNDED
#if !NORM
        if id.x == 0u {
            look_for_odd(lane, 0u, &sums);
        }
#endif
#endif
    }
    add_up(index, &sums);
    if here {
        for (var i = lane; i < SUMS; i += TEAM) {
            if first_row + i < params.parts[0].rows {
                finish_expert(first_row + i, 0u, sums[i]);
            }
        }
    }
}
