// Scores by which the keys of a sequence are chosen (DeepSeek V3.2's lightning indexer): Σ_h w_h · max(q_h · key, 0).
//
// x counts blocks of WG keys, y rows; an invocation is a key. HEADS heads at a time: a key is read once for them, and
// their queries lie in workgroup memory, where all invocations read the same address (SOLO: in the arena, without
// barriers, for devices whose lanes are a CPU's). So keys of 128 halves take 8 KiB for 16 heads. Rows that see no more keys
// than are chosen need no scores.
// Bytes: the keys, n_heads / HEADS times, but from a cache all the same after the first; 4 a key written. Flops:
// 2 · n_heads · head_dim a row and key: bound by them.
//
//   OF_BLOCKS   keys stand for blocks of `every` tokens

#import arena
#import kv
#import kv4 NAME=kv AT=5
#import select

struct Params {
    q: Place,
    weights: Place,
    kv: KvLayout,
    n_heads: u32,
    selected: u32,
    every: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read_write> scores: array<u32>;

const WG = ${WG}u;
const D4 = ${D4}u;
const HEADS = ${HEADS}u;
#if !SOLO
var<workgroup> queries: array<vec4<f32>, HEADS * D4>;
#endif

// Four elements of a query. Heads beyond the last repeat it, and count for nothing.
fn query(begin: u32, head: u32, d: u32) -> vec4<f32> {
    let i = begin + (min(head, params.n_heads - 1u) * D4 + d) * 4u;
    return vec4(arena[i], arena[i + 1u], arena[i + 2u], arena[i + 3u]);
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wg.y;
    let seen = (batch[batch[3] + row] + 1u) / params.every;
    if seen <= params.selected || wg.x * WG >= seen {
        return;
    }
    let own = wg.x * WG + lane;
    let entry = min(own, seen - 1u);
    let start = page_start(params.kv, sequence_record(batch[batch[4] + row]), entry);
    let key = keys_of(params.kv, start, 0u) + entry % PAGE * row_size(4u * D4);
    let begin = at(params.q, row);
    let weights = at(params.weights, row);
    var total = 0.0;
    for (var first = 0u; first < params.n_heads; first += HEADS) {
#if !SOLO
        for (var i = lane; i < HEADS * D4; i += WG) {
            queries[i] = query(begin, first + i / D4, i % D4);
        }
        workgroupBarrier();
#endif
        var dots: array<f32, HEADS>;
        for (var h = 0u; h < HEADS; h++) {
            dots[h] = 0.0;
        }
        for (var d = 0u; d < D4; d++) {
            let k = kv4(key, 4u * d, 4u * D4);
            for (var h = 0u; h < HEADS; h++) {
#if SOLO
                dots[h] += dot(query(begin, first + h, d), k);
#else
                dots[h] += dot(queries[h * D4 + d], k);
#endif
            }
        }
        for (var h = 0u; h < min(HEADS, params.n_heads - first); h++) {
            total += arena[weights + first + h] * max(dots[h], 0.0);
        }
#if !SOLO
        workgroupBarrier();
#endif
    }
    if own < seen {
        scores[scores_at(row, params.every) + own] = ordered(total);
    }
}
