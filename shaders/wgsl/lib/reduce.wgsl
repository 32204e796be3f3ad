// Sums and maxima over a workgroup of WG (a power of two) invocations; every invocation gets the result.
//
// Subgroups first where there are any: one partial result a subgroup, whatever its size. Else up to 32 invocations add
// up all partial results each, and more do so in two steps; a tree would cost a barrier a level.
// Call them in uniform control flow.

struct Who {
    @builtin(local_invocation_index) lane: u32,
#if SUBGROUPS
    @builtin(subgroup_invocation_id) sub_lane: u32,
    @builtin(subgroup_id) sub: u32,
    @builtin(num_subgroups) subs: u32,
#endif
}

const WG = ${WG}u;
// Partial results that the last step reads.
const LAST = min(WG, 16u);

var<workgroup> reduced: array<f32, WG>;

fn workgroup_sum(x: f32, who: Who) -> f32 {
    var sum = 0.0;
#if SUBGROUPS
    let part = subgroupAdd(x);
    if who.sub_lane == 0u {
        reduced[who.sub] = part;
    }
    workgroupBarrier();
    for (var i = 0u; i < who.subs; i++) {
        sum += reduced[i];
    }
#else
    reduced[who.lane] = x;
    workgroupBarrier();
    if WG > 32u {
        if who.lane < LAST {
            for (var i = who.lane; i < WG; i += LAST) {
                sum += reduced[i];
            }
        }
        workgroupBarrier();
        if who.lane < LAST {
            reduced[who.lane] = sum;
        }
        workgroupBarrier();
        sum = 0.0;
        for (var i = 0u; i < LAST; i++) {
            sum += reduced[i];
        }
    } else {
        for (var i = 0u; i < WG; i++) {
            sum += reduced[i];
        }
    }
#endif
    workgroupBarrier();
    return sum;
}

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
