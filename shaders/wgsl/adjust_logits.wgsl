// Biases and penalties of a choice, on its row of logits: logit + bias, then for a token that was seen count times divided
// (where positive) or multiplied by the repetition penalty, less count x frequency + presence.
//
// x counts choices (lib/choice.wgsl), a workgroup each. Tokens that steps under way have chosen are known to the device
// alone: each counts for its own entry among the changes, or, where it has none, makes one, the first of equals for all.
//
//   RESTORE: puts the logits back instead, for whoever reads what the model said.
//   tokens, binding 4 (not with RESTORE); originals, binding 5: for each change and each place two words: the token, or NONE
//   where nothing was changed, and its logit as it was.
//
// Bytes and flops: a few words a change.

#import logits

#if RESTORE
@group(0) @binding(4) var<storage, read> originals: array<u32>;
#else
@group(0) @binding(4) var<storage, read> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> originals: array<u32>;

// As many steps may be under way.
const MOST_PLACES = ${PLACES}u;

// Whether a token that a step under way has chosen has an entry of its own.
var<workgroup> known: array<atomic<u32>, MOST_PLACES>;

fn change(record: u32, row: u32, to: u32, id: u32, count: u32, bias: f32) {
    if id >= params.vocab {
        originals[to] = NONE;
        return;
    }
    let logit = arena[row + id];
    originals[to] = id;
    originals[to + 1u] = bitcast<u32>(logit);
    var x = logit + bias;
    if count > 0u {
        let repetition = choice_f32(record, 10u);
        x = select(x * repetition, x / repetition, x > 0.0);
        x -= f32(count) * choice_f32(record, 12u) + choice_f32(record, 11u);
    }
    arena[row + id] = x;
}
#endif

fn run(group: vec3<u32>, who: Who) {
    let record = choice_at(group.x);
    let row = at(params.logits, batch[record]);
    let edits = batch[record + 8u];
    let places = batch[record + 9u];
    let originals_at = batch[record + 14u];
#if RESTORE
    for (var i = who.lane; i < edits + places; i += WG) {
        let id = originals[originals_at + 2u * i];
        if id != NONE {
            arena[row + id] = bitcast<f32>(originals[originals_at + 2u * i + 1u]);
        }
    }
#else
    let list = batch[record + 7u];
    let places_at = list + 3u * edits;
    if who.lane < MOST_PLACES {
        atomicStore(&known[who.lane], 0u);
    }
    workgroupBarrier();
    for (var i = who.lane; i < edits; i += WG) {
        let id = batch[list + 3u * i];
        var count = batch[list + 3u * i + 1u];
        for (var p = 0u; p < places; p++) {
            if tokens[batch[places_at + p]] == id {
                count++;
                atomicStore(&known[p], 1u);
            }
        }
        change(record, row, originals_at + 2u * i, id, count, bitcast<f32>(batch[list + 3u * i + 2u]));
    }
    workgroupBarrier();
    if who.lane < places {
        let id = tokens[batch[places_at + who.lane]];
        var count = 0u;
        var first = atomicLoad(&known[who.lane]) == 0u;
        for (var p = 0u; p < places; p++) {
            if tokens[batch[places_at + p]] == id {
                count++;
                first = first && p >= who.lane;
            }
        }
        // A token that changes nothing here is none of the vocabulary.
        change(record, row, originals_at + 2u * (edits + who.lane), select(NONE, id, first), count, 0.0);
    }
#endif
}
