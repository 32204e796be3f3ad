        // Elements 4 J .. 4 J + 3 of the group, which lane L has in X.
        for (var r = 0u; r < ROWS; r++) {
#if KIND == float
            w[r] = ${FORMAT}_4(row_byte[r], at + 4u * ${J}u);
#if SCALES
            w[r] *= scales[r];
#endif
#else
            w[r] = ${KIND}_to_f32(groups[r].q[${J}]) * groups[r].scale.${SCALE}.x + groups[r].scale.${SCALE}.y;
#endif
        }
        for (var t = 0u; t < TOKENS; t++) {
#if LANES == 1
            x = input4(t, x_at[t], 32u * g + 4u * ${J}u);
#else
            x = subgroupBroadcast(${X}[t], ${L}u);
#endif
            for (var r = 0u; r < ROWS; r++) {
                let i = r * TOKENS + t;
                total[i] = fma(w[r].w, x.w, fma(w[r].z, x.z, fma(w[r].y, x.y, fma(w[r].x, x.x, total[i]))));
            }
        }
