    // Template of the kernels for few rows: with NORM, sums times the norm's factor, where SQUARES are those of the whole row.
#if NORM
    let by = inverseSqrt(${SQUARES} * params.norm_share + params.norm_eps);
    for (var i = 0u; i < SUMS; i++) {
        sums[i] *= by;
#if GATED
        ups[i] *= by;
#endif
    }
#endif
