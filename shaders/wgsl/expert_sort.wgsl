// Pairs of row and slot, sorted by the expert that they chose: a counting sort in one workgroup.
//
//   route   rows of `slots` experts' numbers and as many weights, f32 in the arena
//   pairs   u32: where each expert's pairs begin, EXPERTS + 1 of them; then the pairs, row * slots + slot
//   OUTPUTS   rows are outputs (lib/batch.wgsl)
//
// Within an expert their order is arbitrary: each pair is worked on by itself.
//
// One workgroup, whose memory has the count of every expert (4 bytes each): over several the sums would take a dispatch
// of their own. WG is 256 where the adapter allows: 512 rows of 8 slots are 16 turns, and the one invocation that adds
// up the counts keeps no more than these waiting. Bytes: 12 a pair, whose expert is read twice, and 4 an expert. Flops:
// none, but two atomic additions a pair.
#import batch

struct Params {
    route: Place,
    slots: u32,
}

const EXPERTS = ${EXPERTS}u;
const WG = ${WG}u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
@group(0) @binding(4) var<storage, read_write> pairs: array<u32>;

var<workgroup> next: array<atomic<u32>, EXPERTS>;

fn expert_of(pair: u32) -> u32 {
#if OUTPUTS
    let at_row = at_output(params.route, pair / params.slots);
#else
    let at_row = at(params.route, pair / params.slots);
#endif
    return min(u32(arena[at_row + pair % params.slots]), EXPERTS - 1u);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
#if OUTPUTS
    let count = batch[1] * params.slots;
#else
    let count = batch[0] * params.slots;
#endif
    for (var e = lane; e < EXPERTS; e += WG) {
        atomicStore(&next[e], 0u);
    }
    workgroupBarrier();
    for (var p = lane; p < count; p += WG) {
        atomicAdd(&next[expert_of(p)], 1u);
    }
    workgroupBarrier();
    if lane == 0u {
        var sum = 0u;
        for (var e = 0u; e < EXPERTS; e++) {
            let n = atomicLoad(&next[e]);
            atomicStore(&next[e], sum);
            pairs[e] = sum;
            sum += n;
        }
        pairs[EXPERTS] = sum;
    }
    workgroupBarrier();
    for (var p = lane; p < count; p += WG) {
        pairs[EXPERTS + 1u + atomicAdd(&next[expert_of(p)], 1u)] = p;
    }
}
