// What the kernels that choose tokens share.
//
// chunks, binding 4: [choice][chunk] of four words: the largest logit of CHUNK consecutive ones as `order` has it, its
// index, the sum of exp(logit - largest) as a float's bits, unused. A logit that
// is no number counts as the largest, and where that is infinite or no number nothing is chosen.

#import batch
#import choice
#import reduce

struct Params {
    logits: Place,
    vocab: u32,
    // Chunks of a row.
    chunks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;

const CHUNK = ${CHUNK}u;
const NONE = 0xffffffffu;
// The keys of -inf and of inf; what is no number has the largest of all.
const NO_LOGIT = 0x007fffffu;
const INFINITE = 0xff800000u;

// Maps a logit to an integer in the same order. Works on bits alone: compilers may assume that there is no NaN.
fn order(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    let key = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
    return select(select(key, 0x80000000u, size == 0u), 0xffffffffu, size > 0x7f800000u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

// The larger of two (key, index), of equals the one with the lower index.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}

var<workgroup> bests: array<vec2<u32>, WG>;

// The best of the workgroup, for all of it; in two steps as the sums in lib/reduce.wgsl.
fn best_of_all(own: vec2<u32>, who: Who) -> vec2<u32> {
    bests[who.lane] = own;
    workgroupBarrier();
    var best = own;
    if who.lane < LAST {
        for (var i = who.lane; i < WG; i += LAST) {
            best = better(best, bests[i]);
        }
    }
    workgroupBarrier();
    if who.lane < LAST {
        bests[who.lane] = best;
    }
    workgroupBarrier();
    for (var i = 0u; i < LAST; i++) {
        best = better(best, bests[i]);
    }
    workgroupBarrier();
    return best;
}
