// Norms with what transformers do around them:  v = a_factor · pre(a) + b_factor · b;  sum = v;  out = post(v)
//
//   PRE: `a` is normalised first   ADD: `b` is added   STORE: v is kept in `sum`   POST: the result is normalised
//   LAYER: one of the norms may be a layer norm; else all are RMS norms   OUTPUTS: rows are outputs (lib/batch.wgsl)
//   VEC: four elements at a time (lib/arena.wgsl)
//
//   norm(x)[i] = (x[i] - mean) / sqrt(mean((x - mean)²) + eps) · (weight[i] + offset) + bias[i], mean = 0 for RMS
//
// One workgroup of WG invocations a row, or a group of `width` elements of a row (y counts them). Elements stay with the
// invocation that first read them, so that only the sums cross invocations, and rows are read again from the cache
// rather than kept in registers: 4 bytes read for each element of a and b and 4 written for each of sum and out, 4 flops
// an element and norm. A single row is bound by latency: the host makes WG as large as there are E's in the row.

#import arena
#import reduce

struct Params {
    a: Place,
    b: Place,
    sum: Place,
    result: Place,
    // E's of a group.
    width: u32,
    a_factor: f32,
    b_factor: f32,
    unused: u32,
    pre: Norm,
    post: Norm,
}

struct Norm {
    // First E of each in `vectors`, or NONE.
    weight: u32,
    bias: u32,
    // 1: layer norm; 2: no norm, only weight and bias.
    layer: u32,
    unused: u32,
    offset: f32,
    eps: f32,
    // 1 / elements of a group.
    share: f32,
    unused2: u32,
}

// Mean and factor of an element.
struct Statistics {
    mean: f32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

fn normalised(x: E, i: u32, norm: Norm, by: Statistics) -> E {
    var y = (x - by.mean) * by.factor;
    if norm.weight != NONE {
        y *= vectors[norm.weight + i] + norm.offset;
    }
    if norm.bias != NONE {
        y += vectors[norm.bias + i];
    }
    return y;
}

// The value before the second norm.
fn before(a: u32, b: u32, i: u32, by: Statistics) -> E {
    var v = arena[a + i];
#if PRE
    v = normalised(v, i, params.pre, by);
#endif
    v *= params.a_factor;
#if ADD
    v += params.b_factor * arena[b + i];
#endif
    return v;
}

fn run(group: vec3<u32>, who: Who) {
    let n = params.width;
    let skip = group.y * n;
    let a = source(params.a, group.x) + skip;
    var b = 0u;
    var kept = a;
    var pre = Statistics(0.0, 1.0);
#if ADD
    b = source(params.b, group.x) + skip;
#endif

#if PRE
#if LAYER
    if params.pre.layer == 1u {
        var sum = 0.0;
        for (var i = who.lane; i < n; i += WG) {
            sum += sum_of(arena[a + i]);
        }
        pre.mean = workgroup_sum(sum, who) * params.pre.share;
    }
#endif
    var squares = 0.0;
    for (var i = who.lane; i < n; i += WG) {
        let x = arena[a + i] - pre.mean;
        squares += sum_of(x * x);
    }
    pre.factor = inverseSqrt(workgroup_sum(squares, who) * params.pre.share + params.pre.eps);
    if params.pre.layer == 2u {
        pre.factor = 1.0;
    }
#endif

#if STORE
    kept = target_row(params.sum, group.x) + skip;
    for (var i = who.lane; i < n; i += WG) {
        arena[kept + i] = before(a, b, i, pre);
    }
#endif

#if POST
    var post = Statistics(0.0, 1.0);
#if LAYER
    if params.post.layer == 1u {
        var sum = 0.0;
        for (var i = who.lane; i < n; i += WG) {
            sum += sum_of(value(kept, a, b, i, pre));
        }
        post.mean = workgroup_sum(sum, who) * params.post.share;
    }
#endif
    var squares_after = 0.0;
    for (var i = who.lane; i < n; i += WG) {
        let x = value(kept, a, b, i, pre) - post.mean;
        squares_after += sum_of(x * x);
    }
    post.factor = inverseSqrt(workgroup_sum(squares_after, who) * params.post.share + params.post.eps);
    if params.post.layer == 2u {
        post.factor = 1.0;
    }
    let result = target_row(params.result, group.x) + skip;
    for (var i = who.lane; i < n; i += WG) {
        arena[result + i] = normalised(value(kept, a, b, i, pre), i, params.post, post);
    }
#endif
}

// The input of the second norm: this invocation wrote it, or computes it again.
fn value(kept: u32, a: u32, b: u32, i: u32, pre: Statistics) -> E {
#if STORE
    return arena[kept + i];
#else
    return before(a, b, i, pre);
#endif
}
