// The values of the step, and the small vectors of the model, one element at a time or (VEC) four.
//
// VEC needs widths, places and vector offsets that four divides. It pays wherever it is possible: loads of 16 bytes
// reach a bandwidth that loads of 4 do not.
//
// Values are f32 on every device: sums of SmolLM2's residual stream reach 20 000, where halves are 16 apart, and such
// values are a few thousandths of the bytes of the matrices around them. Halves were tried: benches/results,
// 2026-11-28, gpu_lavapipe.md. Data that is read often is f16 where allowed: keys and values, and the factors of matrix
// products.

#import batch

#if VEC
alias E = vec4<f32>;
const WIDE = 4u;

fn sum_of(x: E) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
#else
alias E = f32;
const WIDE = 1u;

fn sum_of(x: E) -> f32 {
    return x;
}
#endif

@group(0) @binding(2) var<storage, read_write> arena: array<E>;
@group(0) @binding(3) var<storage, read> vectors: array<E>;

// Where a vector would begin that there is not.
const NONE = 0xffffffffu;

// First E of a row that is read, and of one that is written.
fn source(place: Place, row: u32) -> u32 {
#if OUTPUTS
    return at_output(place, row) / WIDE;
#else
    return at(place, row) / WIDE;
#endif
}

fn target_row(place: Place, row: u32) -> u32 {
    return at(place, row) / WIDE;
}
