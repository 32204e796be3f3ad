// What lies in workgroup memory: four elements, as f16 with F16 (elements beyond its range become its ends), else f32.
#if F16
alias Staged = vec4<f16>;

fn staged(v: vec4<f32>) -> Staged {
    return Staged(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
#else
alias Staged = vec4<f32>;

fn staged(v: vec4<f32>) -> Staged {
    return v;
}
#endif
