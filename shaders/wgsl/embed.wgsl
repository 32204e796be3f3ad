// Embedding rows:  out[i] = scale · table[token][i]
//
//   FORMAT: the table's element format   OUTPUTS: rows are outputs (lib/batch.wgsl)
//
// The table has rows of blocks as in the file (lib/<format>.wgsl), out is f32 in the arena. A step before may have
// chosen the tokens on the device (lib/tokens.wgsl). A table over the binding limit
// comes in windows of rows row_lo .. row_hi, a dispatch each: rows of other tokens are left alone; first_byte is where
// row_lo begins.
//
// One invocation an element; x counts blocks of a row, y rows. WG is 64, whole subgroups on every adapter: invocations
// share nothing but words of the table, which come from the cache. Bytes: a row of the table in its format and 4 an
// element written; too little a step to tile. Flops: one an element beside the unpacking.

#import batch
#import tokens
#import ${FORMAT}

struct Params {
    result: Place,
    width: u32,
    row_bytes: u32,
    row_lo: u32,
    row_hi: u32,
    first_byte: u32,
    scale: f32,
    // Ids from here on look up row 0.
    ids: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<u32>;
@group(0) @binding(5) var<storage, read> tokens: array<u32>;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    var row = id.y;
#if OUTPUTS
    row = batch[batch[5] + id.y];
#endif
    let asked = token_of(row);
    let token = select(0u, asked, asked < params.ids);
    if token < params.row_lo || token >= params.row_hi {
        return;
    }
    let x = ${FORMAT}_at(params.first_byte + (token - params.row_lo) * params.row_bytes, id.x);
    arena[at(params.result, id.y) + id.x] = params.scale * x;
}
