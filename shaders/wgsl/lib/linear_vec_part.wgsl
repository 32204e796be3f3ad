#import ${FORMAT}
// Template of linear_vec: sums of part N, whose format is FORMAT.

fn sums_${N}(lane: u32, first_row: u32, first_token: u32, sums: ptr<function, Sums>) {
    let groups_of_k = params.groups;
    let k = params.k;
    var row_byte: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        let row = min(first_row + r, params.parts[${N}].rows - 1u);
        row_byte[r] = weights_of(${N}u) + row * params.parts[${N}].row_bytes;
    }
    var x_at: array<u32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        x_at[t] = x_row(first_token + t);
    }
#if NORM
    for (var t = 0u; t < TOKENS; t++) {
        squares[t] = 0.0;
    }
#endif
    var total: Sums;
    for (var i = 0u; i < SUMS; i++) {
        total[i] = 0.0;
    }
#if KIND == float
    for (var i = 4u * lane; i + 4u <= k; i += 4u * TEAM) {
        var x: array<vec4<f32>, TOKENS>;
        for (var t = 0u; t < TOKENS; t++) {
            x[t] = input4(t, x_at[t], i);
        }
        for (var r = 0u; r < ROWS; r++) {
#if SCALES
            let row = min(first_row + r, params.parts[${N}].rows - 1u);
            let w = ${FORMAT}_4(row_byte[r], i) * scale_of(${N}u, row, i);
#else
            let w = ${FORMAT}_4(row_byte[r], i);
#endif
            for (var t = 0u; t < TOKENS; t++) {
                total[r * TOKENS + t] += dot(w, x[t]);
            }
        }
    }
#if TAIL
    for (var i = (k & ~3u) + lane; i < k; i += TEAM) {
        for (var r = 0u; r < ROWS; r++) {
            var w = ${FORMAT}_at(row_byte[r], i);
#if SCALES
            w *= scale_of(${N}u, min(first_row + r, params.parts[${N}].rows - 1u), i);
#endif
            for (var t = 0u; t < TOKENS; t++) {
                total[r * TOKENS + t] += w * load1(x_at[t] + i);
            }
        }
    }
#endif
#else
    for (var g = lane; g < groups_of_k; g += TEAM) {
        var groups: array<Group, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            groups[r] = ${FORMAT}_group(row_byte[r], g);
        }
#if INT8
        for (var t = 0u; t < TOKENS; t++) {
            let x = bytes_of(t, x_at[t], 32u * g);
            for (var r = 0u; r < ROWS; r++) {
                var low = 0;
                var high = 0;
                for (var j = 0u; j < 4u; j++) {
                    low += dot4I8Packed(groups[r].q[j], x.q[j]);
                    high += dot4I8Packed(groups[r].q[j + 4u], x.q[j + 4u]);
                }
                let s = groups[r].scale;
                let y = dot(s, vec4<f32>(vec4<i32>(low, x.sums.x, high, x.sums.y)));
                total[r * TOKENS + t] += x.scale * y;
            }
        }
#else
#if F16
        for (var t = 0u; t < TOKENS; t++) {
            let x = halves_of(t, x_at[t], 32u * g);
            for (var r = 0u; r < ROWS; r++) {
                var low = vec4<f16>();
                var high = vec4<f16>();
                for (var j = 0u; j < 4u; j++) {
                    low = fma(${KIND}_to_f16(groups[r].q[j]), x.x[j], low);
                    high = fma(${KIND}_to_f16(groups[r].q[j + 4u]), x.x[j + 4u], high);
                }
                let s = groups[r].scale;
                let y = dot(s, vec4<f32>(sum4(vec4<f32>(low)), x.sums.x, sum4(vec4<f32>(high)), x.sums.y));
                total[r * TOKENS + t] += x.scale * y;
            }
        }
#else
        for (var h = 0u; h < 2u; h++) {
            var dots: Sums;
            for (var i = 0u; i < SUMS; i++) {
                dots[i] = 0.0;
            }
            var x_sum: array<f32, TOKENS>;
            for (var t = 0u; t < TOKENS; t++) {
                x_sum[t] = 0.0;
            }
            for (var j = 4u * h; j < 4u * h + 4u; j++) {
                var x: array<vec4<f32>, TOKENS>;
                for (var t = 0u; t < TOKENS; t++) {
                    x[t] = input4(t, x_at[t], 32u * g + 4u * j);
                    x_sum[t] += sum4(x[t]);
                }
                for (var r = 0u; r < ROWS; r++) {
                    let w = ${KIND}_to_f32(groups[r].q[j]);
                    for (var t = 0u; t < TOKENS; t++) {
                        dots[r * TOKENS + t] += dot(w, x[t]);
                    }
                }
            }
            for (var r = 0u; r < ROWS; r++) {
                let scale = select(groups[r].scale.xy, groups[r].scale.zw, h == 1u);
                for (var t = 0u; t < TOKENS; t++) {
                    total[r * TOKENS + t] += scale.x * dots[r * TOKENS + t] + scale.y * x_sum[t];
                }
            }
        }
#endif
#endif
    }
#endif
    *sums = total;
}
