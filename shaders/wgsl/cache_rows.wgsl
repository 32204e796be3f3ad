// Writes rows of values, f32 in the arena, into the pages of a cache (lib/kv.wgsl): keys, and beside them values where
// the cache has any. An entry may stand for several tokens (OF_BLOCKS); it is written with the last of them, and all
// other rows are left out.
//
// An invocation two elements, which are a word of halves, or with KV_Q8_0 a word of the row, for which it reads all of its
// block; x counts such pieces of a row, y rows, z keys and values. WG is 64, whole subgroups on every adapter:
// invocations share nothing, and neighbours write neighbouring words. Bytes: 4 an element read, 1 to 4 written. Flops:
// none.

#import arena
#import kv
#import kv_store AT=4

struct Params {
    // Keys and values.
    places: array<vec4<u32>, 2>,
    kv: KvLayout,
    // Tokens of an entry.
    every: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

#if KV_Q8_0
fn cached(i: u32) -> f32 {
    return arena[i];
}
#endif

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let dim = select(params.kv.head_dim, params.kv.v_dim, id.z == 1u);
#if KV_Q8_0
    let i = id.x;
    let row = row_size(dim);
#else
    let i = 2u * id.x;
    let row = dim;
#endif
    let position = batch[batch[3] + id.y];
    if i >= params.kv.n_kv_heads * row || (position + 1u) % params.every != 0u {
        return;
    }
    let entry = position / params.every;
    let start = page_start(params.kv, sequence_record(batch[batch[4] + id.y]), entry);
    var to = keys_of(params.kv, start, i / row);
    if id.z == 1u {
        to = values_of(params.kv, start, i / row);
    }
    to += entry % PAGE * row;
    let x = at(params.places[id.z], id.y);
#if KV_Q8_0
    store_word(to, i % row, dim, x + i / row * dim, 1.0);
#else
    store(to + i % dim, arena[x + i], arena[x + i + 1u]);
#endif
}
