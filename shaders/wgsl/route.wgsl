// The choice of experts: of each row of logits the `CHOSEN` best, and their weights (graph::RouteOp).
//
//   logits   rows of EXPERTS f32     result   rows of CHOSEN experts' numbers, best first, then their weights
//   SCORE    softmax, sigmoid, sqrt_softplus, raw or sparse (Phi-3.5-MoE)     WEIGHT   score, softmax or sigmoid
//   GROUPS   groups of experts, of which `keep` take part; BEST_TWO: judged by their two best
//   TABLE    experts come from a table by token id (binding 4), TOKENS rows of CHOSEN; an id beyond them has the last one's,
//            for the device may have chosen none (see sample.wgsl)     RENORMALISE     OUTPUTS: rows are outputs
//
// One workgroup a row, in turns of a maximum over all experts that are left. Exponents are bounded: drivers differ in what
// they make of infinities. Bytes: 4 an expert; flops: some ten an expert, and CHOSEN comparisons.
#import arena
#import reduce

struct Params {
    logits: Place,
    result: Place,
    bias: u32,
    expert_scale: u32,
    table: u32,
    keep: u32,
    scale: f32,
    epsilon: f32,
    jitter: f32,
}

const EXPERTS = ${EXPERTS}u;
const CHOSEN = ${CHOSEN}u;
// Marks experts that can no longer be chosen: below all that can.
const GONE = -3.0e38;

@group(0) @binding(0) var<uniform> params: Params;
#if TABLE
#import tokens

@group(0) @binding(4) var<storage, read> tokens: array<u32>;
#endif

var<workgroup> scores: array<f32, EXPERTS>;
var<workgroup> choice: array<f32, EXPERTS>;
var<workgroup> best: array<f32, WG>;
var<workgroup> best_at: array<u32, WG>;
var<workgroup> ids: array<u32, CHOSEN>;
var<workgroup> weights: array<f32, CHOSEN>;
#if GROUPS
const GROUPS = ${GROUPS}u;
const SIZE = EXPERTS / GROUPS;
var<workgroup> group_score: array<f32, GROUPS>;
var<workgroup> group_kept: array<u32, GROUPS>;
#endif

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

// The number of the greatest that is left, in all invocations; the lower one of equals.
fn best_left(lane: u32) -> u32 {
    var top = GONE;
    var at_top = 0u;
    for (var e = lane; e < EXPERTS; e += WG) {
        if choice[e] > top {
            top = choice[e];
            at_top = e;
        }
    }
    best[lane] = top;
    best_at[lane] = at_top;
    workgroupBarrier();
    for (var span = WG / 2u; span > 0u; span >>= 1u) {
        if lane < span {
            let other = best[lane + span];
            let other_at = best_at[lane + span];
            if other > best[lane] || (other == best[lane] && other_at < best_at[lane]) {
                best[lane] = other;
                best_at[lane] = other_at;
            }
        }
        workgroupBarrier();
    }
    let id = best_at[0];
    workgroupBarrier();
    return id;
}

fn run(id: vec3<u32>, who: Who) {
    let lane = who.lane;
    let logits = source(params.logits, id.y);
#if SCORE == softmax
    var top = GONE;
    for (var e = lane; e < EXPERTS; e += WG) {
        top = max(top, arena[logits + e]);
    }
    top = workgroup_max(top, who);
    var sum = 0.0;
    for (var e = lane; e < EXPERTS; e += WG) {
        let v = exp(max(arena[logits + e] - top, -80.0));
        scores[e] = v;
        sum += v;
    }
    sum = workgroup_sum(sum, who);
#endif
    for (var e = lane; e < EXPERTS; e += WG) {
#if SCORE == softmax
        let s = scores[e] / sum;
#else
        let x = arena[logits + e];
#if SCORE == sigmoid
        let s = sigmoid(x);
#else
#if SCORE == sqrt_softplus
        let s = sqrt(max(x, 0.0) + log(1.0 + exp(max(-abs(x), -80.0))));
#else
        let s = x;
#endif
#endif
#endif
        scores[e] = s;
        var c = s;
        if params.bias != NONE {
            c += vectors[params.bias + e];
        }
        choice[e] = c;
    }
    workgroupBarrier();
#if GROUPS
    for (var g = lane; g < GROUPS; g += WG) {
        var first = GONE;
        var second = GONE;
        for (var e = g * SIZE; e < (g + 1u) * SIZE; e++) {
            let v = choice[e];
            if v > first {
                second = first;
                first = v;
            } else if v > second {
                second = v;
            }
        }
#if BEST_TWO
        if SIZE > 1u {
            first += second;
        }
#endif
        group_score[g] = first;
    }
    workgroupBarrier();
    for (var g = lane; g < GROUPS; g += WG) {
        // Its rank: the groups that come before it.
        var rank = 0u;
        for (var o = 0u; o < GROUPS; o++) {
            let other = group_score[o];
            if other > group_score[g] || (other == group_score[g] && o < g) {
                rank += 1u;
            }
        }
        group_kept[g] = select(0u, 1u, rank < params.keep);
    }
    workgroupBarrier();
    for (var e = lane; e < EXPERTS; e += WG) {
        if group_kept[e / SIZE] == 0u {
            choice[e] = GONE;
        }
    }
    workgroupBarrier();
#endif
#if TABLE
    var token = id.y;
#if OUTPUTS
    token = batch[batch[5] + id.y];
#endif
    let fixed = params.table + min(token_of(token), ${TOKENS}u - 1u) * CHOSEN;
#endif
    for (var slot = 0u; slot < CHOSEN; slot++) {
#if TABLE
        let e = min(u32(vectors[fixed + slot]), EXPERTS - 1u);
#else
        let e = best_left(lane);
#endif
#if SCORE == sparse
        let m = scores[e];
        var share = 0.0;
        for (var o = lane; o < EXPERTS; o += WG) {
            let s = scores[o];
            if choice[o] > GONE && (m - s) / max(abs(s), m) <= 2.0 * params.jitter {
                share += exp(max(s - m, -80.0));
            }
        }
        let w = 1.0 / workgroup_sum(share, who);
#else
        let w = scores[e];
#endif
        if lane == 0u {
            ids[slot] = e;
            weights[slot] = w;
            choice[e] = GONE;
        }
        workgroupBarrier();
    }
    if lane == 0u {
#if WEIGHT == softmax
        var high = weights[0];
        for (var s = 1u; s < CHOSEN; s++) {
            high = max(high, weights[s]);
        }
        var total = 0.0;
        for (var s = 0u; s < CHOSEN; s++) {
            weights[s] = exp(max(weights[s] - high, -80.0));
            total += weights[s];
        }
        for (var s = 0u; s < CHOSEN; s++) {
            weights[s] /= total;
        }
#endif
#if WEIGHT == sigmoid
        for (var s = 0u; s < CHOSEN; s++) {
            weights[s] = sigmoid(weights[s]);
        }
#endif
        var factor = params.scale;
#if RENORMALISE
        var whole = params.epsilon;
        for (var s = 0u; s < CHOSEN; s++) {
            whole += weights[s];
        }
        factor /= whole;
#endif
        let result = target_row(params.result, id.y);
        for (var s = 0u; s < CHOSEN; s++) {
            var w = weights[s] * factor;
            if params.expert_scale != NONE {
                w *= vectors[params.expert_scale + ids[s]];
            }
            arena[result + s] = f32(ids[s]);
            arena[result + CHOSEN + s] = w;
        }
    }
}
