// Log-probabilities of a choice's token and of the likeliest ones: logit - largest - ln(sum of exp(logit - largest)).
//
// x counts choices (lib/choice.wgsl), a workgroup each; those that want none do nothing. The likeliest are found one by one,
// each the best below the one before: few are wanted, and rarely.
//
//   tokens, binding 4: the chosen tokens at word 11 of the batch; results, binding 5: LISTED + 1 pairs a choice: the chosen
//   token and its log-probability (f32), then the likeliest, likeliest first.
//
// Bytes: the row of logits n + 2 times for n of them; flops: an exponential a logit, a comparison a logit and pass.

#import logits

@group(0) @binding(4) var<storage, read> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> results: array<u32>;

// The most that may be listed.
const LISTED = ${LISTED}u;

fn run(group: vec3<u32>, who: Who) {
    let record = choice_at(group.x);
    let wanted = batch[record + 13u];
    if wanted != NONE {
        let row = at(params.logits, batch[record]);
        let to = 2u * (LISTED + 1u) * group.x;
        // The best of all that rank below the last one.
        var last = vec2(NONE, 0u);
        var top = 0.0;
        var log_sum = 0.0;
        for (var n = 0u; n < max(wanted, 1u); n++) {
            var best = vec2(0u, NONE);
            for (var i = who.lane; i < params.vocab; i += WG) {
                let x = vec2(order(arena[row + i]), i);
                if x.x < last.x || (x.x == last.x && x.y > last.y) {
                    best = better(best, x);
                }
            }
            last = best_of_all(best, who);
            if n == 0u {
                top = value_of(last.x);
                var sum = 0.0;
                for (var i = who.lane; i < params.vocab; i += WG) {
                    let x = arena[row + i];
                    if order(x) > NO_LOGIT {
                        sum += exp(x - top);
                    }
                }
                log_sum = log(workgroup_sum(sum, who));
                let token = tokens[batch[11] + group.x];
                if who.lane == 0u {
                    results[to] = token;
                    results[to + 1u] = bitcast<u32>(arena[row + min(token, params.vocab - 1u)] - top - log_sum);
                }
            }
            if who.lane == 0u && n < wanted {
                results[to + 2u + 2u * n] = last.y;
                results[to + 3u + 2u * n] = bitcast<u32>(value_of(last.x) - top - log_sum);
            }
        }
    }
}
