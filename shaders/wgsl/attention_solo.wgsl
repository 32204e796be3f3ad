// Attention without barriers or workgroup memory: an invocation is one query row of one head, and keeps its query, its
// sums and the scores of a few keys in private arrays. Right for any step; meant for devices whose lanes are a CPU's.
//
//   PROMPT: the WG invocations of a workgroup are consecutive tokens of one sequence, all of which read the same key at
//   the same time; x counts such tiles, y heads, z sequences. Else they are heads of one row: x counts rows, y WG heads,
//   and z the parts that a row's keys are divided into where there is more than one (SPLIT, see attention_decode).
//
// Bytes: keys and values once for each head and WG tokens; flops: 4 · head_dim a key, query row and head.
// Scores of BLOCK keys are made before their values are added, so that sums are scaled once a block.

#import attention

const WG = ${WG}u;
const D4 = ${D4}u;
const V4 = ${V4}u;
const BLOCK = 8u;

#if SPLIT
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
#else
    let row = wg.x;
    let sequence = batch[batch[4] + row];
    let record = sequence_record(sequence);
    let n_heads = params.kv.n_kv_heads * params.group;
    let stores = wg.y * WG + lane < n_heads;
    let head = min(wg.y * WG + lane, n_heads - 1u);
    let position = batch[batch[3] + row];
    var first = first_key(position);
    var end = position + 1u;
#if SPLIT
    let part = part_of(first, end, wg.z);
    first = part.x;
    end = part.y;
#endif
#endif
    let visible = first_key(position);
    let kv_head = head / params.group;
    let angles = key_angles(sequence);

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

    // Blocks begin at multiples of BLOCK, so that none crosses a page.
    for (var block = first / BLOCK * BLOCK; block < end; block += BLOCK) {
        let start = page_start(params.kv, record, block);
        let keys = keys_of(params.kv, start, kv_head) + block % PAGE * params.kv.head_dim;
        var highest = top;
        for (var i = 0u; i < BLOCK; i++) {
            let key = block + i;
            var s = NO_SCORE;
            // What was not written yet may be no number: it must not be read, not just be masked.
            if key >= first && key < end {
                var dots = vec4(0.0);
                for (var d = 0u; d < D4; d++) {
                    dots += q[d] * key4(keys + i * params.kv.head_dim, 4u * d, angles, key);
                }
                s = score((dots.x + dots.y) + (dots.z + dots.w));
            }
            s = select(NO_SCORE, s, key >= visible && key <= position);
            scores[i] = s;
            highest = max(highest, s);
        }
        let factor = exp2(top - highest);
        top = highest;
        sum *= factor;
        for (var d = 0u; d < V4; d++) {
            sums[d] *= factor;
        }
        let stride = value_stride(params.kv);
        let values = values_of(params.kv, start, kv_head) + block % PAGE * stride;
        for (var i = 0u; i < BLOCK; i++) {
            let key = block + i;
            if key >= first && key < end {
                let p = select(0.0, exp2(scores[i] - top), scores[i] > NO_SCORE);
                sum += p;
                for (var d = 0u; d < V4; d++) {
                    sums[d] += p * kv4(values + i * stride + 4u * d);
                }
            }
        }
    }

    if !stores {
        return;
    }
#if SPLIT
    let to = partial_at(row, head, wg.z);
    partials[to] = top;
    partials[to + 1u] = sum;
    for (var d = 0u; d < V4; d++) {
        partials[to + 4u + 4u * d] = sums[d].x;
        partials[to + 5u + 4u * d] = sums[d].y;
        partials[to + 6u + 4u * d] = sums[d].z;
        partials[to + 7u + 4u * d] = sums[d].w;
    }
#else
    let factor = normaliser(top, sum, head);
    let to = at(params.result, row) + head * params.kv.v_dim;
    for (var d = 0u; d < V4; d++) {
        store4(to + 4u * d, sums[d] * factor);
    }
#endif
}
