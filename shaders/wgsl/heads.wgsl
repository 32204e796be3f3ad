// The work between the q/k/v linears and attention, head by head and for all rows in one dispatch: an RMS norm over the
// head, the rotation by position, another norm (some models norm after rotating), a factor that depends on the
// position. Then q goes back to its place, and k and v go to their pages.
//
//   KV_F16: pages hold halves; KV_Q8_0: blocks of bytes; else floats   INTERLEAVED: the rotation's pairs are neighbours
//   SOLO: one invocation a head, in place and without barriers, for devices whose lanes are a CPU's; else one workgroup
//   a head, which lies in workgroup memory (DIM floats) meanwhile
//
// x counts rows; y counts heads (WG of them a workgroup where SOLO): q's, unless they stay unchanged, k's, v's.
// Bytes: the heads read once and written once, 1 to 4 bytes an element into the pages; flops: about 8 an element.
// All of it hides behind the linears around it: what counts is that it is one dispatch.

#import arena
#import reduce
#import rope
#import position
#import kv
#import kv_store AT=5

struct Params {
    // q, k, v
    places: array<vec4<u32>, 3>,
    kv: KvLayout,
    parts: array<Part, 3>,
    // 0 where q stays as it is.
    q_heads: u32,
    // Heads of k, and of v, that are written: none where the cache is another layer's.
    kv_heads: u32,
}

struct Part {
    // Norms before and after the rotation: whether they are there, the weight's place in `vectors` or NONE.
    norm: vec2<u32>,
    weight: vec2<u32>,
    offset: vec2<f32>,
    eps: vec2<f32>,
    // NONE for no rotation.
    rope: u32,
    half: u32,
    // First element of a head that turns.
    first: u32,
    // The factor by position; no factor where the length is 0.
    length: u32,
    shift: u32,
    beta: f32,
    unused: vec2<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;

// Start of the head's row in its page.
fn page_row(row: u32, part: u32, head: u32) -> u32 {
    let position = batch[batch[3] + row];
    let start = page_start(params.kv, sequence_record(batch[batch[4] + row]), position);
    if part == 1u {
        return keys_of(params.kv, start, head) + position % PAGE * row_size(params.kv.head_dim);
    }
    return values_of(params.kv, start, head) + position % PAGE * row_size(params.kv.v_dim);
}

#if KV_Q8_0
fn cached(i: u32) -> f32 {
#if SOLO
    return arena[i];
#else
    return values[i];
#endif
}
#endif

#if SOLO
fn normalise(a: u32, dim: u32, part: u32, which: u32) {
    var squares = 0.0;
    for (var i = 0u; i < dim; i++) {
        squares += arena[a + i] * arena[a + i];
    }
    let factor = inverseSqrt(squares / f32(dim) + params.parts[part].eps[which]);
    let weight = params.parts[part].weight[which];
    for (var i = 0u; i < dim; i++) {
        var y = arena[a + i] * factor;
        if weight != NONE {
            y *= vectors[weight + i] + params.parts[part].offset[which];
        }
        arena[a + i] = y;
    }
}
#else
var<workgroup> values: array<f32, ${DIM}>;

fn normalise(dim: u32, part: u32, which: u32, who: Who) {
    var squares = 0.0;
    for (var i = who.lane; i < dim; i += WG) {
        squares += values[i] * values[i];
    }
    let factor = inverseSqrt(workgroup_sum(squares, who) / f32(dim) + params.parts[part].eps[which]);
    let weight = params.parts[part].weight[which];
    for (var i = who.lane; i < dim; i += WG) {
        var y = values[i] * factor;
        if weight != NONE {
            y *= vectors[weight + i] + params.parts[part].offset[which];
        }
        values[i] = y;
    }
    workgroupBarrier();
}
#endif

fn run(group: vec3<u32>, who: Who) {
    let row = group.x;
#if SOLO
    var head = group.y * WG + who.lane;
#else
    var head = group.y;
#endif
    var part = 0u;
    var dim = params.kv.head_dim;
    if head >= params.q_heads {
        head -= params.q_heads;
        part = 1u;
        if head >= params.kv_heads {
            head -= params.kv_heads;
            part = 2u;
            dim = params.kv.v_dim;
        }
    }
    let a = at(params.places[part], row) + head * dim;
    let half = params.parts[part].half;
    let first = params.parts[part].first;
    let length = params.parts[part].length;
    var factor = 1.0;
    if length != 0u {
        factor = position_factor(params.parts[part].beta, length, params.parts[part].shift, row);
    }
#if SOLO
#if V_IN_K
    if part == 2u {
#else
    if part == 2u && head >= params.kv_heads {
#endif
        return;
    }
    if params.parts[part].norm.x != 0u {
        normalise(a, dim, part, 0u);
    }
    if params.parts[part].rope != NONE {
        let angles = row_angles(params.parts[part].rope, half, row);
        for (var j = 0u; j < half; j++) {
            let to = pair(j, half) + first;
            let y = turned(vec2(arena[a + to.x], arena[a + to.y]), ropes[angles + j], ropes[angles + half + j]);
            arena[a + to.x] = y.x;
            arena[a + to.y] = y.y;
        }
    }
    if params.parts[part].norm.y != 0u {
        normalise(a, dim, part, 1u);
    }
    if part != 0u {
        let to = page_row(row, part, head);
#if KV_Q8_0
        for (var w = 0u; w < row_size(dim); w++) {
            store_word(to, w, dim, a, factor);
        }
#else
        for (var i = 0u; i < dim; i += 2u) {
            store(to + i, factor * arena[a + i], factor * arena[a + i + 1u]);
        }
#endif
    } else if length != 0u {
        for (var i = 0u; i < dim; i++) {
            arena[a + i] *= factor;
        }
    }
#else
    for (var i = who.lane; i < dim; i += WG) {
        values[i] = arena[a + i];
    }
    workgroupBarrier();
    if params.parts[part].norm.x != 0u {
        normalise(dim, part, 0u, who);
    }
    if params.parts[part].rope != NONE {
        let angles = row_angles(params.parts[part].rope, half, row);
        for (var j = who.lane; j < half; j += WG) {
            let to = pair(j, half) + first;
            let y = turned(vec2(values[to.x], values[to.y]), ropes[angles + j], ropes[angles + half + j]);
            values[to.x] = y.x;
            values[to.y] = y.y;
        }
        workgroupBarrier();
    }
    if params.parts[part].norm.y != 0u {
        normalise(dim, part, 1u, who);
    }
    if part == 0u {
        for (var i = who.lane; i < dim; i += WG) {
            arena[a + i] = factor * values[i];
        }
    } else {
        let to = page_row(row, part, head);
#if KV_Q8_0
        for (var w = who.lane; w < row_size(dim); w += WG) {
            store_word(to, w, dim, 0u, factor);
        }
#else
        for (var i = 2u * who.lane; i < dim; i += 2u * WG) {
            store(to + i, factor * values[i], factor * values[i + 1u]);
        }
#endif
    }
#endif
}
