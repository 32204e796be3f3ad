// Makes the state that a step writes the one that it reads, for kernels that work in place: copies it from the slot
// before, or zeroes it for a new sequence. Nothing is done, and nothing read, where both are the same.
//
// States are f32, a slot behind the other (lib/state.wgsl).
//
// An invocation an element; y counts workgroups beyond the first 65535, z sequences. Mostly there is nothing to do, and
// then workgroups cost by their number: WG is 256, the most that every adapter allows. Bytes: 8 an element copied.
// Flops: none.

#import state

struct Params {
    // Of a state.
    elements: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

const WG = ${WG}u;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = state_rows(wg.z);
    let i = (wg.y * 65535u + wg.x) * WG + lane;
    if s.rows == 0u || s.before == s.behind || i >= params.elements {
        return;
    }
    var x = 0.0;
    if s.before != NO_STATE {
        x = states[s.before * params.elements + i];
    }
    states[s.behind * params.elements + i] = x;
}
