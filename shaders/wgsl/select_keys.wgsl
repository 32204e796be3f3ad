// The keys with the best scores, `selected` of those that a row sees: their numbers in ascending order, then -1. Of equal
// scores the earlier key.
//
// One workgroup a row. A radix search finds the score T of the last that is chosen, eight bits a turn from the top: counts
// of all scores by their next bits, among those whose bits above are T's. Then each invocation takes a share of the keys
// one after the other, counts what it will keep (all above T, and so many of those at T as there are still to take),
// learns from the counts of those before it where its own begin, and writes them. Whatever the scores are, sums of integers
// do not depend on an order, and there are always as many keys as there should be.
// Bytes: six times 4 a key; no flops. Sequences are never so long that a row has work for many workgroups.

#import arena
#import select

struct Params {
    result: Place,
    selected: u32,
    every: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read> scores: array<u32>;

const WG = ${WG}u;
// Shares whose counts are added up first.
const SPAN = ${SPAN}u;

// By eight bits: how many scores have them.
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> counts: array<u32, 256>;
var<workgroup> sums: array<u32, 16>;
// The bits of T that are known, and how many are to be taken of those that have them.
var<workgroup> prefix: u32;
var<workgroup> wanted: u32;
// By invocation: keys above T and at T; then by SPAN invocations.
var<workgroup> kept: array<vec2<u32>, WG>;
var<workgroup> spans: array<vec2<u32>, WG / SPAN>;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wg.x;
    let seen = (batch[batch[3] + row] + 1u) / params.every;
    let result = at(params.result, row);
    if seen <= params.selected {
        for (var i = lane; i < params.selected; i += WG) {
            arena[result + i] = select(-1.0, f32(i), i < seen);
        }
        return;
    }
    let begin = scores_at(row, params.every);
    if lane == 0u {
        prefix = 0u;
        wanted = params.selected;
    }
    for (var turn = 0u; turn < 4u; turn++) {
        let shift = 24u - 8u * turn;
        for (var i = lane; i < 256u; i += WG) {
            atomicStore(&bins[i], 0u);
        }
        workgroupBarrier();
        let known = prefix;
        let left = wanted;
        for (var i = lane; i < seen; i += WG) {
            let score = scores[begin + i];
            // Not by 32 at once, which would be no shift.
            if (score >> shift) >> 8u == known {
                atomicAdd(&bins[(score >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        for (var i = lane; i < 256u; i += WG) {
            counts[i] = atomicLoad(&bins[i]);
        }
        workgroupBarrier();
        for (var s = lane; s < 16u; s += WG) {
            var sum = 0u;
            for (var i = 0u; i < 16u; i++) {
                sum += counts[16u * s + i];
            }
            sums[s] = sum;
        }
        workgroupBarrier();
        for (var b = lane; b < 256u; b += WG) {
            // Those that come before the ones in this bin.
            var above = 0u;
            for (var s = b / 16u + 1u; s < 16u; s++) {
                above += sums[s];
            }
            for (var i = b + 1u; i < b / 16u * 16u + 16u; i++) {
                above += counts[i];
            }
            if above < left && left <= above + counts[b] {
                prefix = (known << 8u) | b;
                wanted = left - above;
            }
        }
        workgroupBarrier();
    }
    let last = prefix;
    let equals = wanted;

    let share = (seen + WG - 1u) / WG;
    let own_first = min(lane * share, seen);
    let own_end = min(own_first + share, seen);
    var own = vec2(0u);
    for (var i = own_first; i < own_end; i++) {
        let score = scores[begin + i];
        own += vec2(select(0u, 1u, score > last), select(0u, 1u, score == last));
    }
    kept[lane] = own;
    workgroupBarrier();
    if lane < WG / SPAN {
        var sum = vec2(0u);
        for (var i = 0u; i < SPAN; i++) {
            sum += kept[lane * SPAN + i];
        }
        spans[lane] = sum;
    }
    workgroupBarrier();
    var before = vec2(0u);
    for (var s = 0u; s < lane / SPAN; s++) {
        before += spans[s];
    }
    for (var i = lane / SPAN * SPAN; i < lane; i++) {
        before += kept[i];
    }
    var same = before.y;
    var next = result + before.x + min(same, equals);
    for (var i = own_first; i < own_end; i++) {
        let score = scores[begin + i];
        if score > last || (score == last && same < equals) {
            arena[next] = f32(i);
            next += 1u;
        }
        same += select(0u, 1u, score == last);
    }
}
