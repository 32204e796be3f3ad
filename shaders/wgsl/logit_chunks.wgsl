// The largest logit of each chunk of a row, where it stands, and the chunk's sum of exponentials: all that greedy
// choice needs, and what spares sampling most of the row.
//
// x counts chunks of CHUNK logits, y choices (lib/choice.wgsl). A workgroup of WG invocations takes a chunk. Bytes: the logits read
// once; flops: one exponential a logit. The layout of the result is in lib/logits.wgsl.

#import logits

@group(0) @binding(4) var<storage, read_write> chunks: array<u32>;

fn run(wg: vec3<u32>, who: Who) {
    let row = at(params.logits, batch[choice_at(wg.y)]);
    let first = wg.x * CHUNK;
    let end = min(first + CHUNK, params.vocab);
    var best = vec2(0u, NONE);
    for (var i = first + who.lane; i < end; i += WG) {
        best = better(best, vec2(order(arena[row + i]), i));
    }
    best = best_of_all(best, who);
    let top = value_of(best.x);
    var sum = 0.0;
    if best.x > NO_LOGIT && best.x < INFINITE {
        for (var i = first + who.lane; i < end; i += WG) {
            let x = arena[row + i];
            if order(x) > NO_LOGIT {
                sum += exp(x - top);
            }
        }
    }
    sum = workgroup_sum(sum, who);
    if who.lane == 0u {
        let to = 4u * (wg.y * params.chunks + wg.x);
        chunks[to] = best.x;
        chunks[to + 1u] = best.y;
        chunks[to + 2u] = bitcast<u32>(sum);
    }
}
