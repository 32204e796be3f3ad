// Ops that need the statistics of a row, or of a stream of it, before its elements:
//
//   SPARSIFY: out = max(x - (mean(x) + factor · std(x)), 0)   else x scaled to the magnitude of another row:
//   out = x · rms(b) / sqrt(max(mean(x²), factor))
//   OUTPUTS: rows are outputs (lib/batch.wgsl)
//
// One workgroup of WG invocations a stream of `width` elements (y counts them), x counts rows. Rows are read again from
// the cache rather than kept. Bytes: 8 an element; flops: about 6 an element.

#import arena
#import reduce

struct Params {
    a: Place,
    b: Place,
    result: Place,
    // Elements of a stream.
    width: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

fn run(wg: vec3<u32>, who: Who) {
    let n = f32(params.width);
    let a = source(params.a, wg.x) + wg.y * params.width;
    let result = target_row(params.result, wg.x) + wg.y * params.width;
#if SPARSIFY
    var part = 0.0;
    for (var i = who.lane; i < params.width; i += WG) {
        part += arena[a + i];
    }
    let mean = workgroup_sum(part, who) / n;
    part = 0.0;
    for (var i = who.lane; i < params.width; i += WG) {
        part += (arena[a + i] - mean) * (arena[a + i] - mean);
    }
    let cut = mean + params.factor * sqrt(workgroup_sum(part, who) / n);
    for (var i = who.lane; i < params.width; i += WG) {
        arena[result + i] = max(arena[a + i] - cut, 0.0);
    }
#else
    let b = source(params.b, wg.x);
    var part = 0.0;
    for (var i = who.lane; i < params.width; i += WG) {
        part += arena[a + i] * arena[a + i];
    }
    let own = workgroup_sum(part, who) / n;
    part = 0.0;
    for (var i = who.lane; i < params.width; i += WG) {
        part += arena[b + i] * arena[b + i];
    }
    let scale = sqrt(workgroup_sum(part, who) / n) / sqrt(max(own, params.factor));
    for (var i = who.lane; i < params.width; i += WG) {
        arena[result + i] = arena[a + i] * scale;
    }
#endif
}
