// Attention of single query rows: for decode steps, and for other steps with few rows. Rows with lists of keys
// (lib/keys.wgsl) always come here.
//
// x counts the parts that the rows' keys are divided into (lib/split.wgsl; attention_merge joins them where a row has
// several), y tiles of HEADS query heads that share a key/value head. A workgroup of WG invocations takes WG keys at a time:
//   1. an invocation a key: its dot products with all queries of the tile, so that a key is loaded once for HEADS heads.
//      The queries lie in workgroup memory, where all invocations read the same address. It also looks up where the
//      value lies, once for all that read it.
//   2. 16 invocations a head: maximum, probabilities, sum. (16 · HEADS <= WG)
//   3. V4 invocations a value, as many values at a time as fit: each sums four elements over its share of the keys, so
//      that neighbours load neighbours. Shares are added up at the very end.
// HEADS is at most 8, and less where heads are long: the sums are HEADS registers of four, the queries 4 KiB of
// workgroup memory, the probabilities HEADS · WG floats.
// Bytes: keys and values once for each tile of heads; flops: 4 · head_dim a key and head. Bound by memory.

#import keys
#import split

const WG = ${WG}u;
const D4 = ${D4}u;
const V4 = ${V4}u;
const HEADS = ${HEADS}u;
// Values that are read at a time.
const SHARES = WG / V4;

@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

var<workgroup> queries: array<vec4<f32>, HEADS * D4>;
// Scores, then probabilities, by head and key; in the end the shares' sums by element.
var<workgroup> weights: array<f32, max(HEADS, 4u) * WG>;
// First element of each key's value.
var<workgroup> value_rows: array<u32, WG>;
var<workgroup> reduced: array<f32, WG>;
// By head: maximum, sum, and what the sums so far must be multiplied by.
var<workgroup> tops: array<f32, HEADS>;
var<workgroup> totals: array<f32, HEADS>;
var<workgroup> factors: array<f32, HEADS>;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg.x);
    let parts = parts_of(row);
    let keys = keys_of_row(row, batch[batch[4] + row], batch[batch[3] + row]);
    let own_keys = keys_of_part(keys.first, keys.end, wg.x - parts.x, parts.y);
    let first = own_keys.x;
    let end = own_keys.y;
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
            for (var d = 0u; d < D4; d++) {
                let k = load_key(keys, key, found.key, 4u * d);
                for (var h = 0u; h < HEADS; h++) {
                    dots[h] += queries[h * D4 + d] * k;
                }
            }
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
                let v = load_value(keys, block + i, value_rows[i] + 4u * (lane % V4));
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
            let partial = partial_at(wg.x, head);
            let to = at(params.result, row) + head * params.kv.v_dim;
            let factor = normaliser(tops[h], totals[h], head);
            if parts.y > 1u && lane == 0u {
                partials[partial] = tops[h];
                partials[partial + 1u] = totals[h];
            }
            for (var i = lane; i < 4u * V4; i += WG) {
                var x = 0.0;
                for (var share = 0u; share < SHARES; share++) {
                    x += weights[4u * V4 * share + i];
                }
                if parts.y > 1u {
                    partials[partial + 4u + i] = x;
                } else {
                    arena[to + i] = x * factor;
                }
            }
        }
        workgroupBarrier();
    }
}
