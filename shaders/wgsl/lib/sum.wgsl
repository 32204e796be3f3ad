// NAME, a sum over the workgroup as lib/reduce.wgsl says: of TYPE (f32 or a vector of it), through WG of them in PARTS.
// A template.

fn ${NAME}(x: ${TYPE}, who: Who) -> ${TYPE} {
    var sum = ${TYPE}();
#if SUBGROUPS
    let part = subgroupAdd(x);
    if who.sub_lane == 0u {
        ${PARTS}[who.sub] = part;
    }
    workgroupBarrier();
    for (var i = 0u; i < who.subs; i++) {
        sum += ${PARTS}[i];
    }
#else
    ${PARTS}[who.lane] = x;
    workgroupBarrier();
    if WG > 32u {
        if who.lane < LAST {
            for (var i = who.lane; i < WG; i += LAST) {
                sum += ${PARTS}[i];
            }
        }
        workgroupBarrier();
        if who.lane < LAST {
            ${PARTS}[who.lane] = sum;
        }
        workgroupBarrier();
        sum = ${TYPE}();
        for (var i = 0u; i < LAST; i++) {
            sum += ${PARTS}[i];
        }
    } else {
        for (var i = 0u; i < WG; i++) {
            sum += ${PARTS}[i];
        }
    }
#endif
    workgroupBarrier();
    return sum;
}
