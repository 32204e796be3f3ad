// Pages of cached keys and values of one layer.
//
// A page holds 64 positions: keys [n_kv_heads][64][head_dim], then values [n_kv_heads][64][v_dim]; two f16 a word
// (KV_F16) or one f32. Which pages a sequence has is in `batch`.
//
//   V_IN_K   a value is the first v_dim elements of its key, and a page holds keys alone
//   OF_BLOCKS   an entry stands for a block of tokens, a position is a block's number, and a page holds 16 of them

#import batch

#if OF_BLOCKS
const PAGE = 16u;
#else
const PAGE = 64u;
#endif

struct KvLayout {
    // Which group of caches: picks the list of pages.
    group: u32,
    n_kv_heads: u32,
    head_dim: u32,
    v_dim: u32,
}

// Words of `elements`.
fn words(elements: u32) -> u32 {
#if KV_F16
    return elements / 2u;
#else
    return elements;
#endif
}

fn sequence_record(sequence: u32) -> u32 {
    return batch[6] + sequence * batch[7];
}

// First element of the page that holds `position`, which must not have been dropped.
fn page_start(kv: KvLayout, record: u32, position: u32) -> u32 {
    let at = record + 4u + 2u * kv.group;
    let page = batch[batch[at] + position / PAGE - batch[at + 1u]];
#if V_IN_K
    return page * PAGE * kv.n_kv_heads * kv.head_dim;
#else
    return page * PAGE * kv.n_kv_heads * (kv.head_dim + kv.v_dim);
#endif
}

// First key and value of a head in the page that begins at `start`.
fn keys_of(kv: KvLayout, start: u32, head: u32) -> u32 {
    return start + head * PAGE * kv.head_dim;
}

fn values_of(kv: KvLayout, start: u32, head: u32) -> u32 {
#if V_IN_K
    return keys_of(kv, start, head);
#else
    return start + PAGE * (kv.n_kv_heads * kv.head_dim + head * kv.v_dim);
#endif
}

// Elements from one value to the next.
fn value_stride(kv: KvLayout) -> u32 {
#if V_IN_K
    return kv.head_dim;
#else
    return kv.v_dim;
#endif
}
