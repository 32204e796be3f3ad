// Attention of single query rows: for decode steps, and for other steps with few rows. Rows with lists of keys
// (lib/keys.wgsl) always come here.
//
// x counts rows, y tiles of HEADS query heads that share a key/value head, z the parts that a row's keys are divided
// into where there is more than one (SPLIT; attention_merge joins them). A workgroup of WG invocations takes WG keys at
// a time:
//   1. an invocation a key: its dot products with all queries of the tile, so that a key is loaded once for HEADS heads.
//      The queries lie in workgroup memory, where all invocations read the same address. It also looks up where the
//      value lies, once for all that read it.
//   2. 16 invocations a head: maximum, probabilities, sum. (16 · HEADS <= WG)
//   3. V4 invocations a value, as many values at a time as fit: each sums four elements over its share of the keys, so
//      that neighbours load neighbours. Shares are added up at the very end.
// HEADS is at most 8, and less where heads are long: the sums are HEADS registers of four, the queries 4 KiB of
// workgroup memory, the probabilities HEADS · WG floats.
// KEY_BLOCKS: keys are blocks of 32 bytes that do not turn on read, so their scales are read once a block.
// Bytes: keys and values once for each tile of heads; flops: 4 · head_dim a key and head. Bound by memory.

#import keys

const WG = ${WG}u;
const D4 = ${D4}u;
const V4 = ${V4}u;
const HEADS = ${HEADS}u;
// Values that are read at a time.
const SHARES = WG / V4;

#if SPLIT
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;
#import split
#endif

var<workgroup> queries: array<vec4<f32>, HEADS * D4>;
// Scores, then probabilities, by head and key; in the end the shares' sums by element.
var<workgroup> weights: array<f32, max(HEADS, 4u) * WG>;
// Place of each key's value.
var<workgroup> value_rows: array<u32, WG>;
var<workgroup> reduced: array<f32, WG>;
// By head: maximum, sum, and what the sums so far must be multiplied by.
var<workgroup> tops: array<f32, HEADS>;
var<workgroup> totals: array<f32, HEADS>;
var<workgroup> factors: array<f32, HEADS>;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wg.x;
    let sequence = batch[batch[4] + row];
    let keys = keys_of_row(row, sequence, batch[batch[3] + row]);
    var first = keys.first;
    var end = keys.end;
#if SPLIT
    let part = part_of(first, end, wg.z);
    first = part.x;
    end = part.y;
#endif
    let tiles = (params.group + HEADS - 1u) / HEADS;
    let kv_head = wg.y / tiles;
    // Query heads of this tile; those beyond the group repeat its last and store nothing.
    let own = wg.y % tiles * HEADS;

    for (var i = lane; i < HEADS * D4; i += WG) {
        let head = kv_head * params.group + min(own + i / D4, params.group - 1u);
        queries[i] = q4(at(params.q, row) + head * params.kv.head_dim + 4u * (i % D4));
    }
    if lane < HEADS {
        tops[lane] = NO_SCORE;
        totals[lane] = 0.0;
    }
    workgroupBarrier();

    var sums: array<vec4<f32>, HEADS>;
    for (var h = 0u; h < HEADS; h++) {
        sums[h] = vec4(0.0);
    }
    for (var block = first; block < end; block += WG) {
        let key = block + lane;
        if key < end {
            let found = locate(keys, key, kv_head);
            value_rows[lane] = found.value;
            var dots: array<vec4<f32>, HEADS>;
            for (var h = 0u; h < HEADS; h++) {
                dots[h] = vec4(0.0);
            }
#if KV_Q8_0
            // A loop over blocks that compilers do not write out: llvmpipe takes minutes to compile it.
            for (var part_of_key = 0u; part_of_key < params.kv.head_dim / 32u; part_of_key++) {
#if KEY_BLOCKS
                let scale = key_scale(keys, key, found.key, 32u * part_of_key);
#endif
                for (var d = 8u * part_of_key; d < 8u * part_of_key + 8u; d++) {
#if KEY_BLOCKS
                    let k = scale * key_bytes(keys, key, found.key, 4u * d);
#else
                    let k = load_key(keys, key, found.key, 4u * d);
#endif
                    for (var h = 0u; h < HEADS; h++) {
                        dots[h] += queries[h * D4 + d] * k;
                    }
                }
            }
#else
            for (var d = 0u; d < D4; d++) {
                let k = load_key(keys, key, found.key, 4u * d);
                for (var h = 0u; h < HEADS; h++) {
                    dots[h] += queries[h * D4 + d] * k;
                }
            }
#endif
            for (var h = 0u; h < HEADS; h++) {
                let s = score((dots[h].x + dots[h].y) + (dots[h].z + dots[h].w));
                weights[h * WG + lane] = select(NO_SCORE, s, found.there);
            }
        } else {
            for (var h = 0u; h < HEADS; h++) {
                weights[h * WG + lane] = NO_SCORE;
            }
        }
        workgroupBarrier();
        let h = lane / 16u;
        var top = NO_SCORE;
        if lane < 16u * HEADS {
            for (var i = lane % 16u; i < WG; i += 16u) {
                top = max(top, weights[h * WG + i]);
            }
            reduced[lane] = top;
        }
        workgroupBarrier();
        var sum = 0.0;
        if lane < 16u * HEADS {
            top = tops[h];
            for (var i = 0u; i < 16u; i++) {
                top = max(top, reduced[16u * h + i]);
            }
            for (var i = lane % 16u; i < WG; i += 16u) {
                let s = weights[h * WG + i];
                let p = select(0.0, exp2(s - top), s > NO_SCORE);
                weights[h * WG + i] = p;
                sum += p;
            }
        }
        workgroupBarrier();
        if lane < 16u * HEADS {
            reduced[lane] = sum;
        }
        workgroupBarrier();
        if lane < 16u * HEADS && lane % 16u == 0u {
            let factor = exp2(tops[h] - top);
            var total = totals[h] * factor;
            for (var i = 0u; i < 16u; i++) {
                total += reduced[lane + i];
            }
            factors[h] = factor;
            totals[h] = total;
            tops[h] = top;
        }
        workgroupBarrier();
        if lane < SHARES * V4 {
            for (var j = 0u; j < HEADS; j++) {
                sums[j] *= factors[j];
            }
            for (var i = lane / V4; i < min(WG, end - block); i += SHARES) {
                let v = load_value(keys, block + i, value_rows[i], 4u * (lane % V4));
                for (var j = 0u; j < HEADS; j++) {
                    sums[j] += weights[j * WG + i] * v;
                }
            }
        }
        // The next block's scores overwrite the probabilities.
        workgroupBarrier();
    }

    for (var h = 0u; h < HEADS; h++) {
        let head = kv_head * params.group + own + h;
        weights[4u * lane] = sums[h].x;
        weights[4u * lane + 1u] = sums[h].y;
        weights[4u * lane + 2u] = sums[h].z;
        weights[4u * lane + 3u] = sums[h].w;
        workgroupBarrier();
        if own + h < params.group {
#if SPLIT
            let to = partial_at(row, head, wg.z);
            if lane == 0u {
                partials[to] = tops[h];
                partials[to + 1u] = totals[h];
            }
#else
            let to = at(params.result, row) + head * params.kv.v_dim;
            let factor = normaliser(tops[h], totals[h], head);
#endif
            for (var i = lane; i < 4u * V4; i += WG) {
                var x = 0.0;
                for (var share = 0u; share < SHARES; share++) {
                    x += weights[4u * V4 * share + i];
                }
#if SPLIT
                partials[to + 4u + i] = x;
#else
                arena[to + i] = x * factor;
#endif
            }
        }
        workgroupBarrier();
    }
}
