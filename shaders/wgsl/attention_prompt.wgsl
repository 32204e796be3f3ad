// Attention of many query rows of a sequence, in tiles with an online softmax (Dao et al. 2022).
//
// x counts tiles of TOKENS tokens of a sequence, y tiles of HEADS query heads that share a key/value head, z sequences.
// A tile is ROWS = 16 · RPT query rows, row r being token r / HEADS and head r % HEADS of the tile; 256 invocations
// as 16 x 16 keep RPT rows each (ty, ty + 16, …):
//   scores: RPT x KPT of them an invocation (keys tx, tx + 16, …), from SLICE elements of queries and keys at a time in
//   workgroup memory; then 16 invocations share a row's maximum and sum; then the probabilities go to workgroup
//   memory and values come there SLICE elements at a time: each invocation sums RPT rows x V16 elements
//   (tx, tx + 16, …) in registers.
// KEYS = 16 · KPT keys a turn. Workgroup memory is padded by a float a row, or 16 rows would meet in one bank.
// ROWS is 64 for values of up to 128 elements, 32 up to 256, else 16: RPT · V16 registers hold the sums.
// Bytes: keys and values once for each tile, queries once for each turn (from the cache); flops: 4 · head_dim a key and
// query row: 2 · RPT · KPT / (RPT + KPT) flops a load from workgroup memory.

#import attention

const D = ${D}u;
const V = ${V}u;
const HEADS = ${HEADS}u;
const RPT = ${RPT}u;
const KPT = ${KPT}u;
const ROWS = 16u * RPT;
const KEYS = 16u * KPT;
const TOKENS = ROWS / HEADS;
const SLICE = 32u;
const V16 = (V + 15u) / 16u;
const PAD_SLICE = SLICE + 1u;
const PAD_KEYS = KEYS + 1u;

// A slice of the queries, and later the probabilities.
var<workgroup> left: array<f32, ROWS * max(PAD_SLICE, PAD_KEYS)>;
// A slice of keys or values.
var<workgroup> right: array<f32, KEYS * PAD_SLICE>;
var<workgroup> reduced: array<f32, ROWS * 16u>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let record = sequence_record(wg.z);
    let rows = batch[record + 1u];
    let token = wg.x * TOKENS;
    if token >= rows {
        return;
    }
    let first_row = batch[record] + token;
    let lowest = batch[batch[3] + first_row];
    let tokens = min(TOKENS, rows - token);
    let angles = key_angles(wg.z);
    let tiles = (params.group + HEADS - 1u) / HEADS;
    let kv_head = wg.y / tiles;
    let first_head = kv_head * params.group + wg.y % tiles * HEADS;
    let heads = min(HEADS, params.group - wg.y % tiles * HEADS);
    let tx = lane % 16u;
    let ty = lane / 16u;

    var sums: array<f32, RPT * V16>;
    var tops: array<f32, RPT>;
    var totals: array<f32, RPT>;
    var visible: array<u32, RPT>;
    for (var r = 0u; r < RPT; r++) {
        tops[r] = NO_SCORE;
        totals[r] = 0.0;
        visible[r] = first_key(lowest + (ty + 16u * r) / HEADS);
        for (var v = 0u; v < V16; v++) {
            sums[r * V16 + v] = 0.0;
        }
    }
    let first = first_key(lowest);
    let end = lowest + tokens;
    for (var block = first / KEYS * KEYS; block < end; block += KEYS) {
        var scores: array<f32, RPT * KPT>;
        for (var i = 0u; i < RPT * KPT; i++) {
            scores[i] = 0.0;
        }
        // KEYS divides a page.
        let start = page_start(params.kv, record, block);
        let keys = keys_of(params.kv, start, kv_head) + block % PAGE * row_size(params.kv.head_dim);
        for (var slice = 0u; slice < D; slice += SLICE) {
            for (var i = lane; i < ROWS * SLICE; i += 256u) {
                let r = i / SLICE;
                let d = slice + i % SLICE;
                var x = 0.0;
                if r / HEADS < tokens && r % HEADS < heads && d < D {
                    x = arena[at(params.q, first_row + r / HEADS) + (first_head + r % HEADS) * D + d];
                }
                left[r * PAD_SLICE + i % SLICE] = x;
            }
            for (var i = lane; i < KEYS * SLICE / 4u; i += 256u) {
                let k = i / (SLICE / 4u);
                let d = slice + i % (SLICE / 4u) * 4u;
                var x = vec4(0.0);
                // Memory that was never written may hold NaN.
                if block + k >= first && block + k < end && d < D {
                    x = key4(keys + k * row_size(D), d, angles, block + k);
                }
                let to = k * PAD_SLICE + d - slice;
                right[to] = x.x;
                right[to + 1u] = x.y;
                right[to + 2u] = x.z;
                right[to + 3u] = x.w;
            }
            workgroupBarrier();
            for (var d = 0u; d < SLICE; d++) {
                var q: array<f32, RPT>;
                for (var r = 0u; r < RPT; r++) {
                    q[r] = left[(ty + 16u * r) * PAD_SLICE + d];
                }
                for (var k = 0u; k < KPT; k++) {
                    let x = right[(tx + 16u * k) * PAD_SLICE + d];
                    for (var r = 0u; r < RPT; r++) {
                        scores[r * KPT + k] += q[r] * x;
                    }
                }
            }
            workgroupBarrier();
        }
        for (var r = 0u; r < RPT; r++) {
            let position = lowest + (ty + 16u * r) / HEADS;
            var top = NO_SCORE;
            for (var k = 0u; k < KPT; k++) {
                let key = block + tx + 16u * k;
                let seen = key >= visible[r] && key <= position && key < end;
                let s = select(NO_SCORE, score(scores[r * KPT + k]), seen);
                scores[r * KPT + k] = s;
                top = max(top, s);
            }
            reduced[(ty + 16u * r) * 16u + tx] = top;
        }
        workgroupBarrier();
        var partial: array<f32, RPT>;
        for (var r = 0u; r < RPT; r++) {
            let row = ty + 16u * r;
            var top = tops[r];
            for (var i = 0u; i < 16u; i++) {
                top = max(top, reduced[row * 16u + i]);
            }
            let factor = exp2(tops[r] - top);
            tops[r] = top;
            totals[r] *= factor;
            for (var v = 0u; v < V16; v++) {
                sums[r * V16 + v] *= factor;
            }
            var sum = 0.0;
            for (var k = 0u; k < KPT; k++) {
                let s = scores[r * KPT + k];
                let p = select(0.0, exp2(s - top), s > NO_SCORE);
                left[row * PAD_KEYS + tx + 16u * k] = p;
                sum += p;
            }
            partial[r] = sum;
        }
        workgroupBarrier();
        for (var r = 0u; r < RPT; r++) {
            reduced[(ty + 16u * r) * 16u + tx] = partial[r];
        }
        let stride = row_size(value_row(params.kv));
        let values = values_of(params.kv, start, kv_head) + block % PAGE * stride;
        for (var slice = 0u; slice < V; slice += SLICE) {
            for (var i = lane; i < KEYS * SLICE / 4u; i += 256u) {
                let k = i / (SLICE / 4u);
                let d = slice + i % (SLICE / 4u) * 4u;
                var x = vec4(0.0);
                if block + k >= first && block + k < end && d < V {
                    x = kv4(values + k * stride, d, value_row(params.kv));
                }
                let to = k * PAD_SLICE + d - slice;
                right[to] = x.x;
                right[to + 1u] = x.y;
                right[to + 2u] = x.z;
                right[to + 3u] = x.w;
            }
            workgroupBarrier();
            for (var half = 0u; half < SLICE / 16u; half++) {
                let v = slice / 16u + half;
                if v < V16 {
                    var more: array<f32, RPT>;
                    for (var r = 0u; r < RPT; r++) {
                        more[r] = 0.0;
                    }
                    for (var k = 0u; k < KEYS; k++) {
                        let x = right[k * PAD_SLICE + 16u * half + tx];
                        for (var r = 0u; r < RPT; r++) {
                            more[r] += left[(ty + 16u * r) * PAD_KEYS + k] * x;
                        }
                    }
                    for (var r = 0u; r < RPT; r++) {
                        sums[r * V16 + v] += more[r];
                    }
                }
            }
            workgroupBarrier();
        }
        for (var r = 0u; r < RPT; r++) {
            for (var i = 0u; i < 16u; i++) {
                totals[r] += reduced[(ty + 16u * r) * 16u + i];
            }
        }
        // The next turn overwrites `reduced` behind further barriers only.
    }

    for (var r = 0u; r < RPT; r++) {
        let row = ty + 16u * r;
        if row / HEADS < tokens && row % HEADS < heads {
            let head = first_head + row % HEADS;
            let factor = normaliser(tops[r], totals[r], head);
            let to = at(params.result, first_row + row / HEADS) + head * V;
            for (var v = 0u; v < V16; v++) {
                if 16u * v + tx < V {
                    arena[to + 16u * v + tx] = sums[r * V16 + v] * factor;
                }
            }
        }
    }
}
