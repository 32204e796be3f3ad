// Chooses tokens from rows of logits, where the next step's embedding and a late read-back find them.
//
// One workgroup a choice (x; see lib/choice.wgsl), behind logit_chunks: all of it must agree on each bound. WG is 256, the most that
// every adapter allows, so that even a vocabulary of 262144 is one chunk an invocation; on software devices 32, for
// their barriers are dear. The order of steps is the host sampler's: top-k, top-p, min-p (probabilities at temperature
// 1), temperature, draw. Temperature 0 takes the largest logit.
//
//   tokens, binding 5: the token of choice c at word 11 of the batch + c; NONE where there is none.
//
// The kept logits are all above a bound and the first few of those equal to it: no list is ever sorted. Bounds are
// found digit by digit to the base of 4, over the integers that order the logits and over ids. The chunks' largest logits
// rule out most of the row: the k-th largest of them is no larger than the k-th largest logit, and min-p has a bound from
// the start. Logits above the bound are gathered into workgroup memory, if LIST entries hold them; else every pass runs
// over the whole row. A search has as many passes as there are digits, whatever it finds, and what needs no choice is
// drawn in vain: barriers may depend on nothing that comes out of workgroup memory, where neither browsers nor Direct3D's
// older compiler can see that all of the workgroup reads the same.
// The draw is an exponential race: of random E(id) ~ Exp(1), the least E(id) / weight wins with the probability that its
// weight has. E comes from a hash of seed, position and id: no state, the same on every device but for rounding.
// Bytes: the row's chunks, and 4 KiB for each chunk with candidates (the row once for each pass where there are too many).
// Flops: at temperature 0 a comparison a chunk. Else some 25 passes for each of top-k and top-p, with three comparisons
// a candidate, for top-p an exponential, too; then a hash and two logarithms for each that is left.

#import logits
#import sum NAME=workgroup_sum3 TYPE=vec3<f32> PARTS=reduced3

@group(0) @binding(4) var<storage, read> chunks: array<u32>;
@group(0) @binding(5) var<storage, read_write> tokens: array<u32>;

const LIST = 1024u;

var<workgroup> reduced3: array<vec3<f32>, WG>;
// Candidates in no order, as keys and ids.
var<workgroup> list: array<vec2<u32>, LIST>;
var<workgroup> listed: atomic<u32>;

// Where candidates come from: 0 the row's chunks, 1 the list, 2 the whole row.
struct Source {
    kind: u32,
    n: u32,
    // First chunk, or first logit.
    start: u32,
}

fn item(source: Source, i: u32) -> vec2<u32> {
    var x = vec2(0u, i);
    if source.kind == 0u {
        x = vec2(chunks[source.start + 4u * i], chunks[source.start + 4u * i + 1u]);
    } else if source.kind == 1u {
        x = list[i];
    } else {
        x.x = order(arena[source.start + i]);
    }
    return x;
}

// All candidates above `key`, and those equal to it with ids below `end`.
struct Bound {
    key: u32,
    end: u32,
}

fn within(x: vec2<u32>, bound: Bound) -> bool {
    return x.x > bound.key || (x.x == bound.key && x.y < bound.end);
}

fn weight(key: u32, top: f32) -> f32 {
    return exp(value_of(key) - top);
}

// What a search looks for: the tightest bound that leaves at least `wanted` of what `limit` does, in candidates or, where
// `weighed`, in their weights.
struct Search {
    source: Source,
    limit: Bound,
    wanted: f32,
    weighed: bool,
    top: f32,
}

// How much each of three bounds leaves of what the limit does.
fn measure(search: Search, keys: vec3<u32>, ends: vec3<u32>, who: Who) -> vec3<f32> {
    var sums = vec3<f32>();
    for (var i = who.lane; i < search.source.n; i += WG) {
        let x = item(search.source, i);
        if within(x, search.limit) {
            var amount = 1.0;
            if search.weighed {
                amount = weight(x.x, search.top);
            }
            let kept = select(vec3(x.x) > keys, vec3(x.y) < ends, vec3(x.x) == keys);
            sums += select(vec3<f32>(), vec3(amount), kept);
        }
    }
    return workgroup_sum3(sums, who);
}

// How many of three bounds leave enough.
fn enough(search: Search, keys: vec3<u32>, ends: vec3<u32>, who: Who) -> u32 {
    let left = measure(search, keys, ends, who);
    return dot(select(vec3<u32>(), vec3(1u), left >= vec3(search.wanted)), vec3(1u));
}

// The highest key that leaves enough, or the limit's.
fn highest_key(search: Search, who: Who) -> u32 {
    var key = 0u;
    for (var digit = 1u << 30u; digit > 0u; digit >>= 2u) {
        key += digit * enough(search, key + digit * vec3(1u, 2u, 3u), vec3(NONE), who);
    }
    return clamp(key, search.limit.key, order(search.top));
}

// The tightest bound that leaves enough; the limit where that has less.
fn tighten(search: Search, who: Who) -> Bound {
    let key = highest_key(search, who);
    // Of several equal ones the first: the most of them that are not enough, and one more.
    var end = 0u;
    for (var digit = 1u << (firstLeadingBit(params.vocab) & 30u); digit > 0u; digit >>= 2u) {
        end += digit * (3u - enough(search, vec3(key), end + digit * vec3(1u, 2u, 3u), who));
    }
    return Bound(key, min(end + 1u, select(NONE, search.limit.end, key == search.limit.key)));
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

// A random one of the row of choice `i`, whose largest key is `top_key`; anything where that leaves no choice.
fn sampled(i: u32, record: u32, temperature: f32, top_key: u32, who: Who) -> u32 {
    let row = batch[record];
    let top_p = choice_f32(record, 2u);
    let min_p = choice_f32(record, 3u);
    let top_k = batch[record + 4u];
    let by_chunk = chunks_of(i);
    let top = value_of(top_key);
    let all = Bound(NO_LOGIT + 1u, NONE);
    let k_counts = top_k > 0u && top_k < params.vocab;
    // All that is kept lies at or above `first`. Top-p among the top k has to see all of them, those that min-p
    // will drop included.
    var first = all.key;
    // Direct3D's older compiler takes a comparison with `params.chunks` for one that varies, as the loops up to it do.
    if k_counts && top_k <= params.vocab / CHUNK {
        first = max(first, highest_key(Search(by_chunk, Bound(0u, NONE), f32(top_k), false, top), who));
    }
    // A hair too low, which the weights below correct.
    var floor_key = all.key;
    if min_p > 0.0 {
        floor_key = max(floor_key, order(top + log(min_p) - 1e-4 * (1.0 + abs(top))));
        if top_p >= 1.0 || !k_counts {
            first = max(first, floor_key);
        }
    }

    // Gather what may be kept, if it is not far too much.
    let logits = at(params.logits, row);
    var source = Source(2u, params.vocab, logits);
    if who.lane == 0u {
        atomicStore(&listed, 0u);
    }
    workgroupBarrier();
    if first > all.key {
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
    }
    workgroupBarrier();
    let n = atomicLoad(&listed);
    if first > all.key && n <= LIST {
        source = Source(1u, n, 0u);
    }

    var bound = all;
    var total = 0.0;
    if k_counts {
        bound = tighten(Search(source, all, f32(top_k), false, top), who);
        total = measure(Search(source, bound, 0.0, true, top), vec3(0u), vec3(0u), who).x;
    } else {
        for (var i = who.lane; i < by_chunk.n; i += WG) {
            let key = item(by_chunk, i).x;
            if key > NO_LOGIT {
                total += bitcast<f32>(chunks[by_chunk.start + 4u * i + 2u]) * weight(key, top);
            }
        }
        total = workgroup_sum(total, who);
    }
    if top_p < 1.0 {
        // The likeliest one weighs 1, and is always enough for a share as small as this.
        let wanted = max(top_p * total, 1e-30);
        bound = tighten(Search(source, bound, wanted, true, top), who);
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
    let seed = pcg(batch[record + 5u] ^ pcg(batch[record + 6u] ^ pcg(position)));
    return draw(source, bound, top, temperature, seed, who);
}

fn chunks_of(i: u32) -> Source {
    return Source(0u, params.chunks, 4u * i * params.chunks);
}

fn run(group: vec3<u32>, who: Who) {
    let record = choice_at(group.x);
    let temperature = choice_f32(record, 1u);
    let by_chunk = chunks_of(group.x);
    var best = vec2(0u, NONE);
    for (var i = who.lane; i < by_chunk.n; i += WG) {
        best = better(best, item(by_chunk, i));
    }
    best = best_of_all(best, who);
    var token = best.y;
    if temperature != 0.0 {
        token = sampled(group.x, record, temperature, best.x, who);
    }
    // None above -inf leaves no choice, and one that is infinite or no number none that means anything.
    if best.x <= NO_LOGIT || best.x >= INFINITE {
        token = NONE;
    }
    if who.lane == 0u {
        tokens[batch[11] + group.x] = token;
    }
}
