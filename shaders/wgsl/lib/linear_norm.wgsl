    // Template of the kernels for few rows: with NORM, sums times the norm's factor. INDEX is the invocation's.
#if NORM
    add_up_squares(${INDEX});
    for (var t = 0u; t < TOKENS; t++) {
        let by = inverseSqrt(squares[t] * params.norm_share + params.norm_eps);
        for (var r = 0u; r < ROWS; r++) {
            sums[r * TOKENS + t] *= by;
#if GATED
            ups[r * TOKENS + t] *= by;
#endif
        }
    }
#endif
