// Chooses a token for each output row, where the next step's embedding and a late read-back find it.
//
// One workgroup an output row (x), behind logit_chunks: all of it must agree on each bound. WG is 256, the most that
// every adapter allows, so that even a vocabulary of 262144 is one chunk an invocation; on software devices 32, for
// their barriers are dear. The order of steps is the host sampler's: top-k, top-p, min-p (probabilities at temperature
// 1), temperature, draw. Temperature 0 takes the largest logit.
//
//   samplers, binding 5: for each output row 8 words: temperature, top_p, min_p (f32), top_k (0: all), seed (2 words),
//   the row of `tokens` that gets the token or NONE, unused.
//   tokens, binding 6; chosen, binding 7: token of output row r at word 11 of the batch + r; NONE where there is none.
//
// The kept logits are all above a bound and the first few of those equal to it: no list is ever sorted. Bounds are
// found by bisection over the integers that order the logits. The chunks' largest logits rule out most of the row: the
// k-th largest of them is no larger than the k-th largest logit, and min-p has a bound from the start. Logits above the
// bound are gathered into workgroup memory, if LIST entries hold them; else every pass runs over the whole row.
// The draw is an exponential race: of random E(id) ~ Exp(1), the least E(id) / weight wins with the probability that its
// weight has. E comes from a hash of seed, position and id: no state, the same on every device but for rounding.
// Bytes: the row's chunks, and 4 KiB for each chunk with candidates (the row once for each pass where there are too many).
// Flops: at temperature 0 a comparison a chunk. Else up to some 50 passes for each of top-k and top-p, with a
// comparison a candidate, for top-p an exponential, too; then a hash and two logarithms for each that is left.

#import logits

@group(0) @binding(4) var<storage, read> chunks: array<u32>;
@group(0) @binding(5) var<storage, read> samplers: array<u32>;
@group(0) @binding(6) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(7) var<storage, read_write> chosen: array<u32>;

const LIST = 1024u;

// Candidates in no order, as keys and ids.
var<workgroup> list: array<vec2<u32>, LIST>;
var<workgroup> listed: atomic<u32>;
var<workgroup> shared_word: u32;

// Where candidates come from: 0 the row's chunks, 1 the list, 2 the whole row.
struct Source {
    kind: u32,
    n: u32,
    // First chunk, or first logit.
    start: u32,
}

fn item(source: Source, i: u32) -> vec2<u32> {
    if source.kind == 0u {
        return vec2(chunks[source.start + 4u * i], chunks[source.start + 4u * i + 1u]);
    }
    if source.kind == 1u {
        return list[i];
    }
    return vec2(order(arena[source.start + i]), i);
}

// All candidates above `key`, and those equal to it up to the id `last`.
struct Bound {
    key: u32,
    last: u32,
}

fn within(x: vec2<u32>, bound: Bound) -> bool {
    return x.x > bound.key || (x.x == bound.key && x.y <= bound.last);
}

fn weight(key: u32, top: f32) -> f32 {
    return exp(value_of(key) - top);
}

// A sum over the workgroup that all of it knows to be the same.
fn agreed(x: f32, who: Who) -> f32 {
    let sum = workgroup_sum(x, who);
    if who.lane == 0u {
        shared_word = bitcast<u32>(sum);
    }
    return bitcast<f32>(workgroupUniformLoad(&shared_word));
}

// How many candidates (or with `weighed` how much weight) `bound` leaves of what `limit` does.
fn measure(source: Source, bound: Bound, limit: Bound, weighed: bool, top: f32, who: Who) -> f32 {
    var sum = 0.0;
    for (var i = who.lane; i < source.n; i += WG) {
        let x = item(source, i);
        if within(x, bound) && within(x, limit) {
            if weighed {
                sum += weight(x.x, top);
            } else {
                sum += 1.0;
            }
        }
    }
    return agreed(sum, who);
}

// The highest key that leaves at least `wanted` of what `limit` does, or the limit's.
fn highest_key(source: Source, limit: Bound, wanted: f32, weighed: bool, top: f32, who: Who) -> u32 {
    var low = limit.key;
    var high = order(top);
    while low < high {
        let middle = high - (high - low) / 2u;
        if measure(source, Bound(middle, NONE), limit, weighed, top, who) >= wanted {
            low = middle;
        } else {
            high = middle - 1u;
        }
    }
    return low;
}

// The tightest bound that leaves at least `wanted` of what `limit` does; the limit where that has less.
fn tighten(source: Source, limit: Bound, wanted: f32, weighed: bool, top: f32, who: Who) -> Bound {
    let key = highest_key(source, limit, wanted, weighed, top, who);
    // Of several equal ones the first: mostly there is but one.
    let all = measure(source, Bound(key, NONE), limit, false, top, who);
    if all - measure(source, Bound(key + 1u, NONE), limit, false, top, who) <= 1.0 {
        return Bound(key, limit_of(key, limit));
    }
    var low = 0u;
    var high = params.vocab - 1u;
    while low < high {
        let middle = (low + high) / 2u;
        if measure(source, Bound(key, middle), limit, weighed, top, who) >= wanted {
            high = middle;
        } else {
            low = middle + 1u;
        }
    }
    return Bound(key, min(low, limit_of(key, limit)));
}

// The last id that the limit allows at `key`.
fn limit_of(key: u32, limit: Bound) -> u32 {
    return select(NONE, limit.last, key == limit.key);
}

// PCG's output function as a hash (Jarzynski and Olano 2020).
fn pcg(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// -ln of an exponentially distributed number. Small numbers keep their digits: they are the ones that win.
fn luck(seed: u32, id: u32) -> f32 {
    let u = (f32(pcg(seed ^ pcg(id))) + 0.5) * 2.3283064e-10;
    let e = select(-log(max(1.0 - u, 1e-9)), u + u * u * (0.5 + u * (1.0 / 3.0)), u < 0.01);
    return -log(e);
}

fn draw(source: Source, bound: Bound, top: f32, temperature: f32, seed: u32, who: Who) -> u32 {
    var best = vec2(0u, NONE);
    for (var i = who.lane; i < source.n; i += WG) {
        let x = item(source, i);
        if within(x, bound) {
            let score = (value_of(x.x) - top) / temperature + luck(seed, x.y);
            best = better(best, vec2(order(score), x.y));
        }
    }
    return best_of_all(best, who).y;
}

fn write(row: u32, slot: u32, token: u32) {
    chosen[batch[11] + row] = token;
    if slot != NONE && token != NONE {
        tokens[slot] = token;
    }
}

fn run(wg: vec3<u32>, who: Who) {
    let row = wg.x;
    let sampler = 8u * row;
    let temperature = bitcast<f32>(samplers[sampler]);
    let top_p = bitcast<f32>(samplers[sampler + 1u]);
    let min_p = bitcast<f32>(samplers[sampler + 2u]);
    let top_k = samplers[sampler + 3u];
    let slot = samplers[sampler + 6u];
    let by_chunk = Source(0u, params.chunks, 4u * row * params.chunks);

    var best = vec2(0u, NONE);
    for (var i = who.lane; i < by_chunk.n; i += WG) {
        best = better(best, item(by_chunk, i));
    }
    best = best_of_all(best, who);
    if who.lane == 0u {
        shared_word = best.x;
    }
    let top_key = workgroupUniformLoad(&shared_word);
    // None above -inf leaves no choice, and one that is infinite or no number none that means anything.
    if temperature == 0.0 || top_key >= INFINITE || top_key <= NO_LOGIT {
        if who.lane == 0u {
            write(row, slot, select(NONE, best.y, top_key > NO_LOGIT && top_key < INFINITE));
        }
        return;
    }
    let top = value_of(top_key);
    let k_counts = top_k > 0u && top_k < params.vocab;
    // All that is kept lies at or above `first`. Top-p among the top k has to see all of them, those that min-p
    // will drop included.
    var first = NO_LOGIT + 1u;
    if k_counts && top_k <= params.chunks {
        first = max(first, highest_key(by_chunk, Bound(0u, NONE), f32(top_k), false, top, who));
    }
    // A hair too low, which the weights below correct.
    var floor_key = NO_LOGIT + 1u;
    if min_p > 0.0 {
        floor_key = max(floor_key, order(top + log(min_p) - 1e-4 * (1.0 + abs(top))));
        if top_p >= 1.0 || !k_counts {
            first = max(first, floor_key);
        }
    }

    // Gather what may be kept, if it is not far too much.
    let logits = at(params.logits, row);
    var source = Source(2u, params.vocab, logits);
    if first > NO_LOGIT + 1u {
        if who.lane == 0u {
            atomicStore(&listed, 0u);
        }
        workgroupBarrier();
        for (var chunk = 0u; chunk < params.chunks; chunk++) {
            if chunks[by_chunk.start + 4u * chunk] >= first {
                let end = min((chunk + 1u) * CHUNK, params.vocab);
                for (var i = chunk * CHUNK + who.lane; i < end; i += WG) {
                    let key = order(arena[logits + i]);
                    if key >= first {
                        let to = atomicAdd(&listed, 1u);
                        if to < LIST {
                            list[to] = vec2(key, i);
                        }
                    }
                }
            }
        }
        workgroupBarrier();
        if who.lane == 0u {
            shared_word = atomicLoad(&listed);
        }
        let n = workgroupUniformLoad(&shared_word);
        if n <= LIST {
            source = Source(1u, n, 0u);
        }
    }

    var bound = Bound(NO_LOGIT + 1u, NONE);
    var total = 0.0;
    if k_counts {
        bound = tighten(source, bound, f32(top_k), false, top, who);
        total = measure(source, bound, bound, true, top, who);
    } else {
        for (var i = who.lane; i < by_chunk.n; i += WG) {
            let key = item(by_chunk, i).x;
            if key > NO_LOGIT {
                total += bitcast<f32>(chunks[by_chunk.start + 4u * i + 2u]) * weight(key, top);
            }
        }
        total = agreed(total, who);
    }
    if top_p < 1.0 {
        bound = tighten(source, bound, top_p * total, true, top, who);
    }
    if min_p > 0.0 {
        // The lowest key whose weight is enough.
        var low = floor_key;
        var high = top_key;
        while low < high {
            let middle = low + (high - low) / 2u;
            if weight(middle, top) >= min_p {
                high = middle;
            } else {
                low = middle + 1u;
            }
        }
        if low > bound.key {
            bound = Bound(low, NONE);
        }
    }
    let position = batch[batch[3] + batch[batch[5] + row]];
    let seed = pcg(samplers[sampler + 4u] ^ pcg(samplers[sampler + 5u] ^ pcg(position)));
    let token = draw(source, bound, top, temperature, seed, who);
    if who.lane == 0u {
        write(row, slot, token);
    }
}
