// A gated activation, by the define ACT, for T (f32, or a vector of it):  gate(g, u) = act(g) · u, or the formula of
// the two activations that bound both, with the defines ACT_ALPHA and ACT_LIMIT. Exponents are bounded: drivers differ
// in their treatment of infinities, and their own tanh overflows to NaN beyond about 44.

fn logistic(x: ${T}) -> ${T} {
    return 1.0 / (1.0 + exp(min(-x, ${T}(80.0))));
}

fn gate(g: ${T}, u: ${T}) -> ${T} {
#if ACT == silu
    return g * logistic(g) * u;
#endif
#if ACT == gelu_tanh
    // x · ½ · (1 + tanh(√(2/π) · (x + 0.044715 x³))), with ½ · (1 + tanh(y)) = logistic(2y).
    return g * logistic(1.5957691 * (g + 0.044715 * g * g * g)) * u;
#endif
#if ACT == relu
    return max(g, ${T}(0.0)) * u;
#endif
#if ACT == sigmoid
    return logistic(g) * u;
#endif
#if ACT == tanh
    return tanh(clamp(g, ${T}(-15.0), ${T}(15.0))) * u;
#endif
#if ACT == swiglu_oss
    let g_bound = min(g, ${T}(${ACT_LIMIT}));
    let u_bound = clamp(u, ${T}(-${ACT_LIMIT}), ${T}(${ACT_LIMIT}));
    return (u_bound + 1.0) * g_bound * logistic(${ACT_ALPHA} * g_bound);
#endif
#if ACT == silu_clamped
    let g_bound = min(g, ${T}(${ACT_LIMIT}));
    return g_bound * logistic(g_bound) * clamp(u, ${T}(-${ACT_LIMIT}), ${T}(${ACT_LIMIT}));
#endif
}
