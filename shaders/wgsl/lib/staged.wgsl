// Elements of workgroup memory by fours, as f16 with F16, else f32. Elements beyond the range of f16 become its ends.
// Inputs that are infinite or NaN stay so, because a bound could make finite numbers of them.
#if F16
alias Staged = vec4<f16>;

fn staged(v: vec4<f32>) -> Staged {
    return Staged(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

fn staged_input(v: vec4<f32>) -> Staged {
    let odd = (bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
    let bounded = clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return Staged(select(bounded, v, odd));
}
#else
alias Staged = vec4<f32>;

fn staged(v: vec4<f32>) -> Staged {
    return v;
}

fn staged_input(v: vec4<f32>) -> Staged {
    return v;
}
#endif
