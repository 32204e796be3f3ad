#import ${FORMAT}
// Template of linear_lanes: sums of part N, whose format is FORMAT.

fn sums_${N}(lane: u32, first_row: u32, first_token: u32, sums: ptr<function, Sums>) {
    let groups_of_k = params.groups;
    let k = params.k;
    var row_byte: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        let row = min(first_row + r * WG, params.parts[${N}].rows - 1u);
        row_byte[r] = weights_of(${N}u) + row * params.parts[${N}].row_bytes;
    }
    var x_at: array<u32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        x_at[t] = x_row(first_token + t);
    }
    // Where an invocation's own elements of a group begin.
    let own = 4u * (lane & (LANES - 1u));
#if NORM
    for (var t = 0u; t < TOKENS; t++) {
        squares[t] = 0.0;
    }
#endif
    var total: Sums;
    for (var i = 0u; i < SUMS; i++) {
        total[i] = 0.0;
    }
    for (var g = 0u; g < groups_of_k; g++) {
#if LANES != 1
        // Four elements of each lane; where there are but four lanes, the other four of a group come from a second load.
        var x_low: array<vec4<f32>, TOKENS>;
        for (var t = 0u; t < TOKENS; t++) {
            x_low[t] = input4(t, x_at[t], 32u * g + own);
        }
#endif
#if LANES == 4
        var x_high: array<vec4<f32>, TOKENS>;
        for (var t = 0u; t < TOKENS; t++) {
            x_high[t] = input4(t, x_at[t], 32u * g + 16u + own);
        }
#endif
#if KIND == float
        let at = 32u * g;
#if SCALES
        var scales: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            scales[r] = scale_of(${N}u, min(first_row + r * WG, params.parts[${N}].rows - 1u), at);
        }
#endif
#else
        var groups: array<Group, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            groups[r] = ${FORMAT}_group(row_byte[r], g);
        }
#endif
        var x: vec4<f32>;
        var w: array<vec4<f32>, ROWS>;
#import linear_lanes_word J=0 L=0 X=x_low SCALE=xy
#import linear_lanes_word J=1 L=1 X=x_low SCALE=xy
#import linear_lanes_word J=2 L=2 X=x_low SCALE=xy
#import linear_lanes_word J=3 L=3 X=x_low SCALE=xy
#if LANES == 4
#import linear_lanes_word J=4 L=0 X=x_high SCALE=zw
#import linear_lanes_word J=5 L=1 X=x_high SCALE=zw
#import linear_lanes_word J=6 L=2 X=x_high SCALE=zw
#import linear_lanes_word J=7 L=3 X=x_high SCALE=zw
#else
#import linear_lanes_word J=4 L=4 X=x_low SCALE=zw
#import linear_lanes_word J=5 L=5 X=x_low SCALE=zw
#import linear_lanes_word J=6 L=6 X=x_low SCALE=zw
#import linear_lanes_word J=7 L=7 X=x_low SCALE=zw
#endif
    }
#if TAIL
    for (var i = 32u * groups_of_k; i < k; i++) {
        for (var r = 0u; r < ROWS; r++) {
            var w = ${FORMAT}_at(row_byte[r], i);
#if SCALES
            w *= scale_of(${N}u, min(first_row + r * WG, params.parts[${N}].rows - 1u), i);
#endif
            for (var t = 0u; t < TOKENS; t++) {
                total[r * TOKENS + t] += w * load1(x_at[t] + i);
            }
        }
    }
#endif
    *sums = total;
}
