// Attention without barriers or workgroup memory: an invocation is one query row of one head, and keeps its query, its
// sums and the scores of a few keys in private arrays. Right for any step; meant for devices whose lanes are a CPU's.
//
//   PROMPT: the WG invocations of a workgroup are consecutive tokens of one sequence, all of which read the same key at
//   the same time; x counts such tiles, y heads, z sequences. Else they are heads of one row: x counts the parts that the
//   rows' keys are divided into, as in attention_decode, and y WG heads.
//
// Bytes: keys and values once for each head and WG tokens; flops: 4 · head_dim a key, query row and head.
// Scores of BLOCK keys are made before their values are added, so that sums are scaled once a block.
//
// D_BY_2, 4, 8 and V_BY_2, 4, 8 unroll loops over a key or value, as far as its length divides by that: llvmpipe
// silently ends every loop of an invocation once its loops have made 65535 turns together. Rows with too many keys even
// then are divided into parts (see SOLO_TURNS in the lowering).

#import keys

const WG = ${WG}u;
const D4 = ${D4}u;
const V4 = ${V4}u;
// Fours of a key, and of a value, in a turn of a loop.
const D_STEP = ${D_STEP}u;
const V_STEP = ${V_STEP}u;
const BLOCK = 8u;

#if !PROMPT
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;
#import split
#endif

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The row, its head, and the keys that the workgroup runs over.
#if PROMPT
    let record = sequence_record(wg.z);
    let first_row = batch[record];
    let rows = batch[record + 1u];
    if wg.x * WG >= rows {
        return;
    }
    let sequence = wg.z;
    let head = wg.y;
    // Lanes beyond the last row repeat it and store nothing.
    let own = wg.x * WG + lane;
    let row = first_row + min(own, rows - 1u);
    let stores = own < rows;
    let position = batch[batch[3] + row];
    let lowest = batch[batch[3] + first_row + wg.x * WG];
    let first = first_key(lowest);
    let end = lowest + min(WG, rows - wg.x * WG);
    let keys = keys_of_row(row, sequence, position);
#else
    let row = row_of(wg.x);
    let parts = parts_of(row);
    let n_heads = params.kv.n_kv_heads * params.group;
    let stores = wg.y * WG + lane < n_heads;
    let head = min(wg.y * WG + lane, n_heads - 1u);
    let position = batch[batch[3] + row];
    let keys = keys_of_row(row, batch[batch[4] + row], position);
    let own_keys = keys_of_part(keys.first, keys.end, wg.x - parts.x, parts.y);
    let first = own_keys.x;
    let end = own_keys.y;
#endif
    let kv_head = head / params.group;

    var q: array<vec4<f32>, D4>;
    var sums: array<vec4<f32>, V4>;
    let begin = at(params.q, row) + head * params.kv.head_dim;
    for (var d = 0u; d < D4; d++) {
        q[d] = q4(begin + 4u * d);
    }
    for (var d = 0u; d < V4; d++) {
        sums[d] = vec4(0.0);
    }
    var top = NO_SCORE;
    var sum = 0.0;
    var scores: array<f32, BLOCK>;
#if LISTED
    var values: array<u32, BLOCK>;
#else
    let stride = value_stride(params.kv);
#endif

    // Blocks begin at multiples of BLOCK, so that none crosses a page but where keys are LISTED, each by itself.
    for (var block = first / BLOCK * BLOCK; block < end; block += BLOCK) {
#if !LISTED
        let of_block = locate(keys, block, kv_head);
#endif
        var highest = top;
        for (var i = 0u; i < BLOCK; i++) {
            let key = block + i;
            var s = NO_SCORE;
            // Memory that was not written yet may hold NaN: it must not be read, because a mask would keep the NaN.
            if key >= first && key < end {
                var dots = vec4(0.0);
#if LISTED
                let found = locate(keys, key, kv_head);
                let at_key = found.key;
                values[i] = found.value;
#else
                let at_key = of_block.key + i * params.kv.head_dim;
#endif
                for (var d = 0u; d < D4; d += D_STEP) {
                    dots += q[d] * load_key(keys, key, at_key, 4u * d);
#if D_BY_2
                    dots += q[d + 1u] * load_key(keys, key, at_key, 4u * d + 4u);
#endif
#if D_BY_4
                    dots += q[d + 2u] * load_key(keys, key, at_key, 4u * d + 8u);
                    dots += q[d + 3u] * load_key(keys, key, at_key, 4u * d + 12u);
#endif
#if D_BY_8
                    dots += q[d + 4u] * load_key(keys, key, at_key, 4u * d + 16u);
                    dots += q[d + 5u] * load_key(keys, key, at_key, 4u * d + 20u);
                    dots += q[d + 6u] * load_key(keys, key, at_key, 4u * d + 24u);
                    dots += q[d + 7u] * load_key(keys, key, at_key, 4u * d + 28u);
#endif
                }
                s = score((dots.x + dots.y) + (dots.z + dots.w));
#if LISTED
                s = select(NO_SCORE, s, found.there);
#else
                s = select(NO_SCORE, s, key >= keys.first && key < keys.end);
#endif
            }
            scores[i] = s;
            highest = max(highest, s);
        }
        let factor = exp2(top - highest);
        top = highest;
        sum *= factor;
        for (var d = 0u; d < V4; d += V_STEP) {
            sums[d] *= factor;
#if V_BY_2
            sums[d + 1u] *= factor;
#endif
#if V_BY_4
            sums[d + 2u] *= factor;
            sums[d + 3u] *= factor;
#endif
#if V_BY_8
            sums[d + 4u] *= factor;
            sums[d + 5u] *= factor;
            sums[d + 6u] *= factor;
            sums[d + 7u] *= factor;
#endif
        }
        for (var i = 0u; i < BLOCK; i++) {
            let key = block + i;
            if key >= first && key < end {
                let p = select(0.0, exp2(scores[i] - top), scores[i] > NO_SCORE);
                sum += p;
#if LISTED
                let at_value = values[i];
#else
                let at_value = of_block.value + i * stride;
#endif
                for (var d = 0u; d < V4; d += V_STEP) {
                    sums[d] += p * load_value(keys, key, at_value + 4u * d);
#if V_BY_2
                    sums[d + 1u] += p * load_value(keys, key, at_value + 4u * d + 4u);
#endif
#if V_BY_4
                    sums[d + 2u] += p * load_value(keys, key, at_value + 4u * d + 8u);
                    sums[d + 3u] += p * load_value(keys, key, at_value + 4u * d + 12u);
#endif
#if V_BY_8
                    sums[d + 4u] += p * load_value(keys, key, at_value + 4u * d + 16u);
                    sums[d + 5u] += p * load_value(keys, key, at_value + 4u * d + 20u);
                    sums[d + 6u] += p * load_value(keys, key, at_value + 4u * d + 24u);
                    sums[d + 7u] += p * load_value(keys, key, at_value + 4u * d + 28u);
#endif
                }
            }
        }
    }

    if !stores {
        return;
    }
#if !PROMPT
    if parts.y > 1u {
        let to = partial_at(wg.x, head);
        partials[to] = top;
        partials[to + 1u] = sum;
        for (var d = 0u; d < V4; d++) {
            partials[to + 4u + 4u * d] = sums[d].x;
            partials[to + 5u + 4u * d] = sums[d].y;
            partials[to + 6u + 4u * d] = sums[d].z;
            partials[to + 7u + 4u * d] = sums[d].w;
        }
        return;
    }
#endif
    let factor = normaliser(top, sum, head);
    let to = at(params.result, row) + head * params.kv.v_dim;
    for (var d = 0u; d < V4; d++) {
        store4(to + 4u * d, sums[d] * factor);
    }
}
