// Joins the partial results that attention over parts of the keys left (lib/split.wgsl).
//
// One workgroup a row (x) and head (y); an invocation takes elements of the value. Every one of them runs over the
// parts' maxima and sums by itself: there are a few dozen at most, and all read the same. Bytes: the partial results
// read once.

#import attention
#import split

@group(0) @binding(6) var<storage, read> partials: array<f32>;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wg.x;
    let head = wg.y;
    let n = parts();
    let begin = partial_at(row, head, 0u);
    let stride = params.kv.v_dim + 4u;
    var top = NO_SCORE;
    for (var i = 0u; i < n; i++) {
        if partials[begin + i * stride + 1u] > 0.0 {
            top = max(top, partials[begin + i * stride]);
        }
    }
    var sum = 0.0;
    for (var i = 0u; i < n; i++) {
        let own = partials[begin + i * stride + 1u];
        if own > 0.0 {
            sum += own * exp2(partials[begin + i * stride] - top);
        }
    }
    let factor = normaliser(top, sum, head);
    let to = at(params.result, row) + head * params.kv.v_dim;
    for (var d = lane; d < params.kv.v_dim; d += ${WG}u) {
        var x = 0.0;
        for (var i = 0u; i < n; i++) {
            let part = begin + i * stride;
            if partials[part + 1u] > 0.0 {
                x += partials[part + 4u + d] * exp2(partials[part] - top);
            }
        }
        arena[to + d] = x * factor;
    }
}
