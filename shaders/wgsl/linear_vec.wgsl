// y = x Wᵀ for rows of x that the model chose, few or many: an element has the same sums with any number of rows.
//
//   x   rows of k f32 in the arena    W   rows of blocks as in the file (lib/<format>.wgsl)    y   f32 in the arena
//   FORMAT0 .. 3, KIND0 .. 3   formats of the parts, and how their groups are read: float, bytes or signed
//   ROWS   rows of W that a team computes     TOKENS   rows of x     WG   invocations     TEAM   invocations a team
//   SUB   invocations whose sums subgroup shuffles add up: the smallest subgroup that may be met, at most TEAM;
//         1 without subgroups     TAIL   32 does not divide k, which only float formats allow
//   INT8   weights in blocks are multiplied as bytes by elements of x rounded to bytes, 32 of them to a scale
//   F16   the same with halves, which the products are, too; sums of four products are f32
//
// A team of TEAM consecutive invocations goes along ROWS rows of W together, a group of 32 elements each at a time, so
// that neighbours read neighbouring blocks and every word of W is read once for all TOKENS. Each piece of x is read
// once for all ROWS. Long rows get large teams, which keeps many reads in flight when W has few rows; short rows get
// small ones, so that few invocations idle in the last round. Sums are added by shuffles within SUB invocations, then
// through workgroup memory (WG / SUB * ROWS * TOKENS words).
//
// INT8 is for adapters that multiply four bytes at once. Unpacking 4 weights to f32 and adding up their products takes
// about 16 operations, which are more than the memory leaves time for on wide adapters; with bytes it takes 2. Rounding
// x costs about 4 an element, shared by ROWS, and needs no dispatch and no memory of its own: every invocation rounds
// what it has just read. F16 is for adapters without such products but with halves, of which registers hold twice as many.
//
// Bytes: W once, ROWS-fold fewer reads of x from cache. Flops: 2 a weight and token. One workgroup does
// WG / TEAM * ROWS rows; y and z count workgroups of all parts, x blocks of TOKENS rows of x: those that read the same rows of
// W run together.
#import linear

#import linear_vec_sums

#import linear_parts PART=linear_vec_part

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
#if SUBGROUPS
    @builtin(subgroup_invocation_id) sub_lane: u32,
    @builtin(subgroup_id) sub: u32,
    @builtin(subgroup_size) sub_size: u32,
#else
    @builtin(local_invocation_index) index: u32,
#endif
) {
#if SUBGROUPS
    // Shuffles go by the place in the subgroup, so the place in the team has to as well.
    let index = sub * sub_size + sub_lane;
#endif
    let lane = index % TEAM;
    let group = own_group(id.y + id.z * count.y);
    let first_token = id.x * TOKENS;
    let p = part_of(group);
    let first_row = (group - params.parts[p].first_group) * (WG / TEAM * ROWS) + index / TEAM * ROWS;
    var sums: Sums;
#import linear_sums ARGS=lane,first_row,first_token,&sums
#if ROUNDED
#if !NORM
    if id.y + id.z == 0u {
        look_for_odd(lane, first_token, &sums);
    }
#endif
#endif
    add_up(index, &sums);
#if GATED
    var ups: Sums;
    sums_1(lane, first_row, first_token, &ups);
    add_up(index, &ups);
#endif
#import linear_norm INDEX=index
#if GATED
    let gate_target = target_of(0u);
    let up_target = target_of(1u);
    let rows = gate_target.rows;
#else
    let result = target_of(p);
    let rows = result.rows;
#endif
    let tokens = row_count();
    for (var i = lane; i < SUMS; i += TEAM) {
        let row = first_row + i / TOKENS;
        let token = first_token + i % TOKENS;
        if row < rows && token < tokens {
#if GATED
            finish(gate_target, row, token, gate(biased(gate_target, row, sums[i]), biased(up_target, row, ups[i])));
#else
            finish(result, row, token, biased(result, row, sums[i]));
#endif
        }
    }
}
