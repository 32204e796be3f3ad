// Joins the partial results that attention over parts of the keys left:
//
//   out[d] = Σ_p 2^(top[p] - top) · value[p][d] / (Σ_p 2^(top[p] - top) · sum[p] + the sink's share)
//   top = max_p top[p]
//
// A part without keys has the sum 0. A part whose sum is NaN counts, and makes the result NaN.
//
//   partials   the parts' maxima, sums and weighted values (lib/split.wgsl)     out   heads of v_dim f32 in the arena
//
// One workgroup a row (x) and head (y), which has nothing to do where the row is a single part; an invocation takes elements
// of the value. WG is v_dim up to 256, so that nearly always each takes one; on software devices it is 8, lanes of a CPU's
// vector. Every invocation runs over the parts' maxima and sums by itself: there are a few dozen at most, all read the same,
// and sharing them would cost barriers. Bytes: the partial results once (maxima and sums from the cache after that) and 4 an
// element written. Flops: about 6 and two exponentials an element and part.

#import attention
#import split

@group(0) @binding(6) var<storage, read> partials: array<f32>;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wg.x;
    let head = wg.y;
    let parts = parts_of(row);
    let n = parts.y;
    if n == 1u {
        return;
    }
    let begin = partial_at(parts.x, head);
    // From one part to the next.
    let stride = partial_at(1u, 0u);
    var top = NO_SCORE;
    for (var i = 0u; i < n; i++) {
        if bitcast<u32>(partials[begin + i * stride + 1u]) != 0u {
            top = max(top, partials[begin + i * stride]);
        }
    }
    var sum = 0.0;
    for (var i = 0u; i < n; i++) {
        let own = partials[begin + i * stride + 1u];
        if bitcast<u32>(own) != 0u {
            sum += own * exp2(partials[begin + i * stride] - top);
        }
    }
    let factor = normaliser(top, sum, head);
    let to = at(params.result, row) + head * params.kv.v_dim;
    for (var d = lane; d < params.kv.v_dim; d += ${WG}u) {
        var x = 0.0;
        for (var i = 0u; i < n; i++) {
            let part = begin + i * stride;
            if bitcast<u32>(partials[part + 1u]) != 0u {
                x += partials[part + 4u + d] * exp2(partials[part] - top);
            }
        }
        arena[to + d] = x * factor;
    }
}
