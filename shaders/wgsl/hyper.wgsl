// The coefficients of hyper-connections for a residual of N streams, from projections x of them, with s = scale and
// b = base (both in `vectors`):
//
//   read [N]      sigmoid(s₀ x + b) + eps
//   write [N]     2 sigmoid(s₁ x + b)
//   mix [N][N]    softmax over each row of (s₂ x + b), + eps; columns divided by their sums + eps, then
//                 (iterations - 1) times rows, then columns; stored turned
//
// MIX: all three; else read alone   OUTPUTS: rows are outputs (lib/batch.wgsl)
//
// x and out are f32 in the arena, the parts of a row in that order.
//
// An invocation a row, whose matrix is in registers; x counts blocks of WG rows. WG is 32, the least that fills a
// subgroup of most adapters: rows are few, and spread over more cores that way. Bytes: 8 for each of the N² + 2 N
// numbers of a row (N without MIX). Flops: some ten and an exponential for each of them, and 4 N² an iteration. Half of
// the latter are divisions, one after the other: they take most of the time.

#import arena

struct Params {
    x: Place,
    result: Place,
    scale: u32,
    base: u32,
    iterations: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

const N = ${N}u;

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

// Projection `i`, which is of that part, scaled and moved.
fn projected(x: u32, i: u32, part: u32) -> f32 {
    return vectors[params.scale + part] * arena[x + i] + vectors[params.base + i];
}

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= batch[params.result.w] {
        return;
    }
    let x = source(params.x, row);
    let to = target_row(params.result, row);
    for (var i = 0u; i < N; i++) {
        arena[to + i] = sigmoid(projected(x, i, 0u)) + params.eps;
    }
#if MIX
    for (var i = N; i < 2u * N; i++) {
        arena[to + i] = 2.0 * sigmoid(projected(x, i, 1u));
    }
    var mix: array<f32, N * N>;
    for (var r = 0u; r < N; r++) {
        var top = projected(x, (2u + r) * N, 2u);
        for (var c = 0u; c < N; c++) {
            mix[r * N + c] = projected(x, (2u + r) * N + c, 2u);
            top = max(top, mix[r * N + c]);
        }
        var sum = 0.0;
        for (var c = 0u; c < N; c++) {
            // Exponents are bounded: drivers differ in what they make of what is too small.
            mix[r * N + c] = exp(max(mix[r * N + c] - top, -80.0));
            sum += mix[r * N + c];
        }
        for (var c = 0u; c < N; c++) {
            mix[r * N + c] = mix[r * N + c] / sum + params.eps;
        }
    }
    for (var turn = 0u; turn < params.iterations; turn++) {
        if turn > 0u {
            for (var r = 0u; r < N; r++) {
                var sum = params.eps;
                for (var c = 0u; c < N; c++) {
                    sum += mix[r * N + c];
                }
                for (var c = 0u; c < N; c++) {
                    mix[r * N + c] /= sum;
                }
            }
        }
        for (var c = 0u; c < N; c++) {
            var sum = params.eps;
            for (var r = 0u; r < N; r++) {
                sum += mix[r * N + c];
            }
            for (var r = 0u; r < N; r++) {
                mix[r * N + c] /= sum;
            }
        }
    }
    for (var r = 0u; r < N; r++) {
        for (var c = 0u; c < N; c++) {
            arena[to + (2u + c) * N + r] = mix[r * N + c];
        }
    }
#endif
}
