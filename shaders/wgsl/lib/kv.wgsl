// Pages of cached keys and values of one layer.
//
// A page holds 64 positions: rows of keys [n_kv_heads][64], then rows of values [n_kv_heads][64]. Which pages a sequence
// has is in `batch`. A row of n elements:
//
//   floats    n words
//   KV_F16    n / 2 words, two halves each
//   KV_Q8_0   n / 4 words of four signed bytes each, then a word for each 64 elements with the scales, halves, of their
//             two blocks of 32; element i is byte i times the scale of block i / 32
//
// Places are counted in elements, with KV_Q8_0 in words.
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

// From a row of `dim` elements to the next.
fn row_size(dim: u32) -> u32 {
#if KV_Q8_0
    return dim / 4u + (dim + 32u) / 64u;
#else
    return dim;
#endif
}

fn sequence_record(sequence: u32) -> u32 {
    return batch[6] + sequence * batch[7];
}

// Start of the page that holds `position`, which must not have been dropped.
fn page_start(kv: KvLayout, record: u32, position: u32) -> u32 {
    let at = record + 4u + 2u * kv.group;
    let page = batch[batch[at] + position / PAGE - batch[at + 1u]];
#if V_IN_K
    return page * PAGE * kv.n_kv_heads * row_size(kv.head_dim);
#else
    return page * PAGE * kv.n_kv_heads * (row_size(kv.head_dim) + row_size(kv.v_dim));
#endif
}

// First key and value of a head in the page that begins at `start`.
fn keys_of(kv: KvLayout, start: u32, head: u32) -> u32 {
    return start + head * PAGE * row_size(kv.head_dim);
}

fn values_of(kv: KvLayout, start: u32, head: u32) -> u32 {
#if V_IN_K
    return keys_of(kv, start, head);
#else
    return start + PAGE * (kv.n_kv_heads * row_size(kv.head_dim) + head * row_size(kv.v_dim));
#endif
}

// Elements of the row that a value is in.
fn value_row(kv: KvLayout) -> u32 {
#if V_IN_K
    return kv.head_dim;
#else
    return kv.v_dim;
#endif
}
