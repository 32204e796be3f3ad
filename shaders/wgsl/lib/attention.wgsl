// Parameters, masks, scores, keys and values, for all attention kernels.
//
// Scores are kept in units of log2: `scale` has the factor log2(e), so that probabilities are exp2(score - maximum).
// D4 and V4 are the sizes of a key and a value in fours.

#import batch
#import rope
#import kv

struct Params {
    q: Place,
    result: Place,
    kv: KvLayout,
    // Query heads that share a key/value head.
    group: u32,
    // First element in `vectors`, or NONE.
    sinks: u32,
    // A key k is visible to q where k <= q, k > q - window and k / chunk == q / chunk. NONE for either.
    window: u32,
    chunk: u32,
    // scale · log2(e); with a softcap scale / cap.
    scale: f32,
    // cap · log2(e); 0 for none.
    cap: f32,
    // Rotation of keys that were cached without, or NONE.
    rope: u32,
    half: u32,
    // The kind of attention: where in the batch's list the place of its rows' parts is (see lib/split.wgsl).
    parts: u32,
    // Of the second cache: its group, and the tokens of a block. See lib/keys.wgsl.
    block_group: u32,
    every: u32,
    // Keys that are chosen at most, and which.
    selected: u32,
    chosen: Place,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
#import kv4 NAME=kv AT=5

const NONE = 0xffffffffu;
const LOG2_E = 1.442695;
// Start of a maximum: below any score, and finite, so that differences are no NaN.
const NO_SCORE = -1e30;

fn q4(at: u32) -> vec4<f32> {
    return vec4(arena[at], arena[at + 1u], arena[at + 2u], arena[at + 3u]);
}

fn store4(at: u32, x: vec4<f32>) {
    arena[at] = x.x;
    arena[at + 1u] = x.y;
    arena[at + 2u] = x.z;
    arena[at + 3u] = x.w;
}

// First key that a query at `position` sees; the last is its own.
fn first_key(position: u32) -> u32 {
    var first = 0u;
    if params.window != NONE && position + 1u > params.window {
        first = position + 1u - params.window;
    }
    if params.chunk != NONE {
        first = max(first, position / params.chunk * params.chunk);
    }
    return first;
}

// The score of a dot product. NaN and infinities become infinity, whose difference from itself as the maximum is NaN:
// so a row that sees this key gets no finite result. The comparison is of bits, because compilers may assume that all
// numbers are finite.
fn score(dot: f32) -> f32 {
    let exponent = bitcast<u32>(dot) & 0x7f800000u;
    if exponent == 0x7f800000u {
        return bitcast<f32>(exponent);
    }
    let s = dot * params.scale;
    if params.cap != 0.0 {
        return params.cap * tanh(clamp(s, -15.0, 15.0));
    }
    return s;
}

// One over the softmax's denominator and what the values are to be multiplied by, the sink included.
fn normaliser(top: f32, sum: f32, head: u32) -> f32 {
    if params.sinks == NONE {
        return select(1.0 / sum, 0.0, sum == 0.0);
    }
    let sink = vectors[params.sinks + head] * LOG2_E;
    let highest = max(top, sink);
    let factor = exp2(top - highest);
    return factor / (sum * factor + exp2(sink - highest));
}

#if ROTATE
// The table of the angles of a sequence's positions.
struct KeyAngles {
    table: u32,
}

fn key_angles(sequence: u32) -> KeyAngles {
    return KeyAngles(batch[batch[9] + params.rope * batch[2] + sequence]);
}

// Element `i` of the key at `key`, turned by the angles of its position.
fn rotated(key: u32, i: u32, angles: KeyAngles, position: u32) -> f32 {
    if i >= 2u * params.half {
        return kv_element(key + i);
    }
#if INTERLEAVED
    let j = i / 2u;
    let second = (i & 1u) != 0u;
#else
    let j = i % params.half;
    let second = i >= params.half;
#endif
    let both = pair(j, params.half);
    let at = angles.table + position * 2u * params.half + j;
    let x = vec2(kv_element(key + both.x), kv_element(key + both.y));
    let y = turned(x, ropes[at], ropes[at + params.half]);
    return select(y.x, y.y, second);
}

fn kv_element(at: u32) -> f32 {
    var four = kv4(at);
    return four[at & 3u];
}

// Four elements of a key, turned.
fn key4(key: u32, i: u32, angles: KeyAngles, position: u32) -> vec4<f32> {
    return vec4(
        rotated(key, i, angles, position),
        rotated(key, i + 1u, angles, position),
        rotated(key, i + 2u, angles, position),
        rotated(key, i + 3u, angles, position),
    );
}
#else
struct KeyAngles {
    unused: u32,
}

fn key_angles(sequence: u32) -> KeyAngles {
    return KeyAngles(0u);
}

fn key4(key: u32, i: u32, angles: KeyAngles, position: u32) -> vec4<f32> {
    return kv4(key + i);
}
#endif
