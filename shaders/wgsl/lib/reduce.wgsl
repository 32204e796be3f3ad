// Sums and maxima over a workgroup of WG (a power of two) invocations; every invocation gets the result.
//
// Subgroups first where there are any: one partial result a subgroup, whatever its size. Else up to 32 invocations add
// up all partial results each, and more do so in two steps; a tree would cost a barrier a level.
// Call them in uniform control flow.

// What an invocation knows of itself.
struct Who {
    lane: u32,
#if SUBGROUPS
    sub_lane: u32,
    sub: u32,
    subs: u32,
#endif
}

// The kernel is `run`. Subgroup builtins have to be direct arguments of `main`: naga's HLSL has none for those in a struct
// (docs/upstream/naga-hlsl-subgroup-builtins.md).
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#if SUBGROUPS
    @builtin(subgroup_invocation_id) sub_lane: u32,
    @builtin(subgroup_id) sub: u32,
    @builtin(num_subgroups) subs: u32,
#endif
) {
#if SUBGROUPS
    run(group, Who(lane, sub_lane, sub, subs));
#else
    run(group, Who(lane));
#endif
}

const WG = ${WG}u;
// Partial results that the last step reads.
const LAST = min(WG, 16u);

var<workgroup> reduced: array<f32, WG>;

#import sum NAME=workgroup_sum TYPE=f32 PARTS=reduced

fn workgroup_max(x: f32, who: Who) -> f32 {
#if SUBGROUPS
    var top = subgroupMax(x);
    if who.sub_lane == 0u {
        reduced[who.sub] = top;
    }
    workgroupBarrier();
    for (var i = 0u; i < who.subs; i++) {
        top = max(top, reduced[i]);
    }
#else
    var top = x;
    reduced[who.lane] = x;
    workgroupBarrier();
    if WG > 32u {
        if who.lane < LAST {
            for (var i = who.lane; i < WG; i += LAST) {
                top = max(top, reduced[i]);
            }
        }
        workgroupBarrier();
        if who.lane < LAST {
            reduced[who.lane] = top;
        }
        workgroupBarrier();
        for (var i = 0u; i < LAST; i++) {
            top = max(top, reduced[i]);
        }
    } else {
        for (var i = 0u; i < WG; i++) {
            top = max(top, reduced[i]);
        }
    }
#endif
    workgroupBarrier();
    return top;
}
