    // Template of the kernels of the linear op: the sums of part p, by its function with the arguments ARGS.
#if PARTS == 1
    sums_0(${ARGS});
#else
    switch p {
        case 0u: {
            sums_0(${ARGS});
        }
#if FORMAT1
        case 1u: {
            sums_1(${ARGS});
        }
#endif
#if FORMAT2
        case 2u: {
            sums_2(${ARGS});
        }
#endif
#if FORMAT3
        case 3u: {
            sums_3(${ARGS});
        }
#endif
        default: {
        }
    }
#endif
