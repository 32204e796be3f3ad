// y = x Wᵀ where a GPU is a CPU: lanes are those of its vector unit, and every load costs a loop over them.
//
//   x   rows of k f32 in the arena    W   rows of blocks as in the file (lib/<format>.wgsl)    y   f32 in the arena
//   FORMAT0 .. 3, KIND0 .. 3   formats of the parts, and how their groups are read: float, bytes or signed
//   ROWS   rows of W of an invocation     TOKENS   rows of x     WG   invocations
//   LANES   4 or 8: invocations of the smallest subgroup that may be met, at most 8; 1 without subgroups
//   TAIL   32 does not divide k, which only float formats allow
//
// An invocation computes whole sums: ROWS rows of W times TOKENS rows of x, without a reduction at the end. Loads are
// what such devices are slow at (each lane in turn, with its own bounds check), so few are made: a group of 32 weights
// with the loads its block has words, once for all TOKENS; 32 elements of x with one load of 16 bytes a lane, from
// where broadcasts hand every element to all lanes (without subgroups each lane reads all of x itself). No workgroup
// memory, no barrier.
//
// Bytes: W once for every TOKENS rows of x. Flops: 2 a weight and token. One workgroup does WG * ROWS rows; x and z
// count workgroups of all parts, y blocks of TOKENS rows of x.
#import linear

const ROWS = ${ROWS}u;
const TOKENS = ${TOKENS}u;
const SUMS = ROWS * TOKENS;
const WG = ${WG}u;
const LANES = ${LANES}u;

alias Sums = array<f32, SUMS>;

#import linear_parts PART=linear_lanes_part

#if NORM
// Makes `squares` those of whole rows, which LANES invocations have read together.
fn add_up_squares(index: u32) {
#if LANES != 1
    for (var t = 0u; t < TOKENS; t++) {
        for (var d = 1u; d < LANES; d <<= 1u) {
            squares[t] += subgroupShuffleXor(squares[t], d);
        }
    }
#endif
}
#endif

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
#if LANES != 1
    @builtin(subgroup_invocation_id) lane: u32,
#endif
) {
#if LANES == 1
    let lane = 0u;
#endif
    let group = own_group(id.x + id.z * count.x);
    let first_token = id.y * TOKENS;
    let p = part_of(group);
    // Rows of an invocation are WG apart.
    let first_row = (group - params.parts[p].first_group) * (WG * ROWS) + index;
    var sums: Sums;
#import linear_sums ARGS=lane,first_row,first_token,&sums
#if GATED
    var ups: Sums;
    sums_1(lane, first_row, first_token, &ups);
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
    for (var i = 0u; i < SUMS; i++) {
        let row = first_row + i / TOKENS * WG;
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
