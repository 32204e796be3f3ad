// Unpacks weights to f32: each element once by itself and once through its group of 32. Tests compare both with the
// host's scalar decode. No step of a model runs this.
//
//   weights   a row of blocks as in the file (lib/<format>.wgsl)     out   f32: elements by FORMAT_at, then by groups
//   FORMAT   the format     KIND   how its groups are read: float (of four elements), bytes or signed
//
// One invocation an element, 64 a workgroup as every adapter allows: nobody waits for it. Bytes: the row, a second time
// from the cache, and 8 an element written. Flops: the format's unpacking twice.
#import ${FORMAT}

struct Params {
    row_byte: u32,
    elements: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= params.elements {
        return;
    }
    out[i] = ${FORMAT}_at(params.row_byte, i);
#if KIND == float
    // Groups of four; the last elements of a row that four does not divide are not in one.
    let four = i & ~3u;
    if four + 4u <= params.elements {
        var w = ${FORMAT}_4(params.row_byte, four);
        out[params.elements + i] = w[i & 3u];
    } else {
        out[params.elements + i] = out[i];
    }
#else
    let group = ${FORMAT}_group(params.row_byte, i >> 5u);
    var quants = group.q;
    let word = quants[(i >> 2u) & 7u];
    var q = ${KIND}_to_f32(word);
    let scale = select(group.scale.zw, group.scale.xy, (i & 31u) < 16u);
    out[params.elements + i] = scale.x * q[i & 3u] + scale.y;
#endif
}
