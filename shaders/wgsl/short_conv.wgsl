// Depthwise causal convolution over the tokens of a sequence, then SiLU:
//   out[t][c] = silu(Σ_j w[c][j] · x[t - (TAPS - 1) + j][c])
// Inputs before the step's first token come out of the state, [TAPS - 1][width], which then gets the last ones.
//
// An invocation a channel, which runs through the sequence's rows with the inputs before in private memory; x counts
// channels, z sequences. Neighbours read neighbouring channels. Bytes: 8 an element of the step, and of the state; 4 a tap;
// flops: 2 · TAPS an element.

#import arena
#import state
#import act T=f32 ACT=silu

struct Params {
    x: Place,
    result: Place,
    width: u32,
    // First tap of channel 0 in `vectors`; [width][TAPS].
    weight: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

const WG = ${WG}u;
const TAPS = ${TAPS}u;
const PAST = TAPS - 1u;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = state_rows(wg.z);
    let c = wg.x * WG + lane;
    if s.rows == 0u || c >= params.width {
        return;
    }
    var taps: array<f32, TAPS>;
    for (var j = 0u; j < TAPS; j++) {
        taps[j] = vectors[params.weight + c * TAPS + j];
    }
    var past: array<f32, PAST>;
    for (var j = 0u; j < PAST; j++) {
        past[j] = 0.0;
        if s.before != NO_STATE {
            past[j] = states[(s.before * PAST + j) * params.width + c];
        }
    }
    for (var t = 0u; t < s.rows; t++) {
        let x = arena[at(params.x, s.first_row + t) + c];
        var sum = taps[PAST] * x;
        for (var j = 0u; j < PAST; j++) {
            sum += taps[j] * past[j];
        }
        for (var j = 0u; j + 1u < PAST; j++) {
            past[j] = past[j + 1u];
        }
        past[PAST - 1u] = x;
        arena[at(params.result, s.first_row + t) + c] = gate(sum, 1.0);
    }
    for (var j = 0u; j < PAST; j++) {
        states[(s.behind * PAST + j) * params.width + c] = past[j];
    }
}
