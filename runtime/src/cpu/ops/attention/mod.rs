//! Attention over paged keys and values, by streaming softmax (Milakov and Gimelshein 2018; Dao et al. 2022): scores
//! are never stored for more than a piece of keys.
//!
//! Two kernels. [`decode`] serves one query token: an item does the query heads that share a kv head together, over a
//! piece of [`PIECE`] keys, and [`join`] joins the pieces, so that many workers can share one long sequence. [`prompt`]
//! serves tiles of queries, each over all of its pieces.
//!
//! A row's result depends on its query and the keys that it sees, and on nothing else: both kernels give the same bits,
//! with all instruction sets that fuse multiply-adds. They share one order of operations:
//!
//! 1. A score is eight chains of multiply-adds over the elements, element d in chain d mod 8, from zero. The chains are
//!    added as neighbours, then neighbouring pairs, then the two halves.
//! 2. Pieces lie at multiples of [`PIECE`] from position 0. Probabilities are relative to the row's greatest score
//!    within the piece. Their sum is sixteen chains, position p in chain p mod 16, which are halved until one is left.
//!    Weighted values are one chain of multiply-adds over the positions, from zero. Keys that the row does not see weigh
//!    exactly zero.
//! 3. Pieces are joined in order of position, sinks last.
//!
//! Scores are in units of log₂: queries are multiplied by `scale · log₂e` and probabilities are powers of two, which
//! saves a multiplication and an exact range reduction an element.

pub mod decode;
pub mod join;
pub mod pool;
pub mod prompt;
pub mod rows;
mod scores;
pub mod select;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use crate::{cpu::arch::Simd, graph::RopeLayout, step::KvType};

/// Keys of a piece: long enough that joining costs little, short enough to spread 1000 keys over cores and to keep a
/// piece of 64-element heads and its probabilities in the first-level cache. With 128 keys prompts take 2 to 5 % longer.
pub const PIECE: usize = 96;
/// Chains of a score.
const SCORE_CHAINS: usize = 8;
/// Chains of a piece's sum of probabilities; it divides [`PIECE`].
const SUM_CHAINS: usize = 16;
/// Lanes of the longest vectors, and so the most keys of a batch.
const MOST_LANES: usize = 16;

/// Query rows (tokens × heads of one group) of one prompt item.
pub const QUERY_ROWS: usize = 64;

/// Start of a row's maximum: below any real score, and finite, so that differences are no NaN.
const NO_SCORE: f32 = -1e30;

/// [`decode::attention_decode`]'s kernels.
pub type DecodeKernel = unsafe fn(&DecodeItem<'_>, &mut [f32], &mut [f32]);
/// [`join::attention_merge`]'s kernels.
pub type MergeKernel = fn(&AttentionParams<'_>, usize, &[f32], &mut [f32]);
/// [`join::attention_join`]'s kernels.
pub type JoinKernel = fn(&AttentionParams<'_>, &[f32], &mut [f32]);
/// [`pool::pool_block`]'s kernels.
pub type PoolKernel = unsafe fn(&pool::PoolItem<'_>, &mut [f32], &mut [f32]);
/// [`select::select_scores`]'s kernels.
pub type SelectKernel = unsafe fn(&select::SelectItem<'_>, &mut [f32]);
/// [`prompt::attention_prompt`]'s kernels.
pub type PromptKernel = unsafe fn(&PromptItem<'_>, &mut [f32]);

/// Places of one sequence's keys and values of one layer.
///
/// Inside of a page they are `[n_kv_heads][page_tokens]` rows of `head_dim` elements from `k_offset`, and as many rows of
/// `v_dim` elements from `v_offset`, in bytes from the page's start; [`KvType`] says how a row lies. Values that are parts of their keys
/// have the keys' offset and rows.
#[derive(Clone, Copy, Debug)]
pub struct KvPages<'a> {
    /// Start of page 0; aligned to an element, or to four bytes where elements are smaller.
    pub base: *const u8,
    /// The sequence's pages from [`KvPages::first_page`] on.
    pub pages: &'a [u32],
    /// Bytes from one page to the next.
    pub page_bytes: usize,
    /// Entries that a page holds. Where an entry stands for a block of tokens, positions are numbers of blocks.
    pub page_tokens: usize,
    /// Offset of this layer's keys in a page.
    pub k_offset: usize,
    /// Offset of this layer's values in a page.
    pub v_offset: usize,
    /// How keys and values are stored.
    pub kv: KvType,
    /// Index in the sequence of the page `pages[0]`: a sliding window drops older pages.
    pub first_page: usize,
    /// End of the positions that have keys: `0..len` without those of dropped pages.
    pub len: usize,
}

// SAFETY: the pointer is only read through, by kernels whose callers promise that nobody writes meanwhile.
unsafe impl Sync for KvPages<'_> {}
// SAFETY: as above.
unsafe impl Send for KvPages<'_> {}

/// Keys `key..key + n`, which are adjacent.
struct Run {
    key: usize,
    n: usize,
    k: *const u8,
    v: *const u8,
}

impl KvPages<'_> {
    /// The longest run of keys within one page that begins with the first of `keys`.
    ///
    /// # Panics
    /// If the position's page is not among `pages`.
    #[inline(always)]
    fn run(&self, params: &AttentionParams<'_>, kv_head: usize, keys: Range<usize>) -> Run {
        let (page, slot) = (keys.start / self.page_tokens, keys.start % self.page_tokens);
        let page = self.base.wrapping_add(self.pages[page - self.first_page] as usize * self.page_bytes);
        let row = kv_head / params.share * self.page_tokens + slot;
        Run {
            key: keys.start,
            n: (self.page_tokens - slot).min(keys.len()),
            k: page.wrapping_add(self.k_offset + row * self.kv.row_bytes(params.head_dim)),
            v: page.wrapping_add(self.v_offset + row * self.kv.row_bytes(params.v_stride())),
        }
    }
}

/// Rotates keys that are cached un-rotated, for RoPE variants whose angles change with the sequence's length.
#[derive(Clone, Copy, Debug)]
pub struct KeyRope<'a> {
    /// `[positions][half]`, from position 0.
    pub cos: &'a [f32],
    /// `[positions][half]`
    pub sin: &'a [f32],
    /// Half the number of rotated elements of a head.
    pub half: usize,
    /// The pairing of a head's elements.
    pub layout: RopeLayout,
}

impl KeyRope<'_> {
    #[inline(always)]
    fn turn<S: Simd>(&self, s: S, position: usize, row: &mut [f32]) {
        let at = position * self.half..(position + 1) * self.half;
        super::rope::rope_head(s, row, &self.cos[at.clone()], &self.sin[at], self.layout);
    }
}

/// Parameters of the attention of one layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionParams<'a> {
    /// Query heads, a multiple of `n_kv_heads`; head h uses kv head h / (n_heads / n_kv_heads).
    pub n_heads: usize,
    /// Key and value heads, each counted `share` times.
    pub n_kv_heads: usize,
    /// Consecutive heads of `n_kv_heads` that are the same cached head: large groups of query heads are cut into parts
    /// for several workers. 1 where they are not cut.
    pub share: usize,
    /// Elements of a query or key head.
    pub head_dim: usize,
    /// Elements of a value head.
    pub v_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)` (Gemma 2).
    pub softcap: Option<f32>,
    /// A query at position p sees only keys beyond p − window.
    pub window: Option<usize>,
    /// A query sees only keys of its own chunk of positions: k / chunk = q / chunk (Llama 4).
    pub chunk: Option<usize>,
    /// One logit for each query head that takes part in the softmax without a value (gpt-oss).
    pub sinks: Option<&'a [f32]>,
    /// A query sees no later keys.
    pub causal: bool,
    /// The rotation of keys that are cached un-rotated.
    pub k_rope: Option<KeyRope<'a>>,
    /// A value is the first `v_dim` elements of its key.
    pub v_in_k: bool,
}

impl AttentionParams<'_> {
    /// One query head on one key head, for kernels that only look keys and values up.
    pub const fn one_head(head_dim: usize, v_dim: usize) -> Self {
        Self {
            n_heads: 1,
            n_kv_heads: 1,
            share: 1,
            head_dim,
            v_dim,
            scale: 1.0,
            softcap: None,
            window: None,
            chunk: None,
            sinks: None,
            causal: true,
            k_rope: None,
            v_in_k: false,
        }
    }

    /// Query heads of a kv head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Whether blocks of keys that are stored so are turned, and queries must be.
    fn turned(&self, kv: KvType) -> bool {
        kv.turns_keys(self.v_in_k, self.k_rope.is_some())
    }

    /// Elements from one cached value to the next.
    pub fn v_stride(&self) -> usize {
        if self.v_in_k { self.head_dim } else { self.v_dim }
    }

    /// The positions that a query at `position` sees, of `len`.
    pub fn visible(&self, position: usize, len: usize) -> Range<usize> {
        let end = if self.causal { len.min(position + 1) } else { len };
        let window = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let (chunk_start, chunk_end) = match self.chunk {
            Some(chunk) => (position / chunk * chunk, position / chunk * chunk + chunk),
            None => (0, usize::MAX),
        };
        let end = end.min(chunk_end);
        window.max(chunk_start).min(end)..end
    }

    /// The pieces into which the keys of a decode step at `position` fall; piece i has the keys `i * PIECE..(i +
    /// 1) * PIECE`.
    pub fn pieces(&self, position: usize, len: usize) -> Range<usize> {
        let keys = self.visible(position, len);
        keys.start / PIECE..keys.end.div_ceil(PIECE)
    }

    /// Floats of the partial result of one decode item: `group` maxima, `group` sums, `[group][v_dim]` weighted values.
    pub fn partial_len(&self) -> usize {
        self.group() * (2 + self.v_dim)
    }

    /// Tiles, and so items for each kv head, of a prompt (or a part of one) of `n_tokens`.
    pub fn prompt_tiles(&self, n_tokens: usize) -> usize {
        (n_tokens * self.group()).div_ceil(QUERY_ROWS)
    }

    /// Floats that one worker needs as scratch for either kernel.
    pub fn scratch_len(&self) -> usize {
        decode::scratch_len(self).max(prompt::scratch_len(self))
    }

    /// The factor on the queries, and the cap by which scores are multiplied after their tanh.
    fn factors(&self) -> (f32, Option<f32>) {
        match self.softcap {
            Some(cap) => (self.scale / cap, Some(cap * std::f32::consts::LOG2_E)),
            None => (self.scale * std::f32::consts::LOG2_E, None),
        }
    }
}

/// One piece of one sequence's decode step for one kv head.
#[derive(Clone, Copy, Debug)]
pub struct DecodeItem<'a> {
    /// The layer's parameters.
    pub params: &'a AttentionParams<'a>,
    /// The sequence's cache, this token included.
    pub kv: &'a KvPages<'a>,
    /// The kv head.
    pub kv_head: usize,
    /// The token's queries: `[n_heads * head_dim]`.
    pub q: &'a [f32],
    /// The token's position.
    pub position: usize,
    /// The piece: one of [`AttentionParams::pieces`]. Where keys are chosen, piece i begins at number `i *
    /// PIECE` of them.
    pub piece: usize,
    /// The positions of the keys that the token attends to, in ascending order; none where it attends to all that it
    /// sees.
    pub keys: Option<&'a [f32]>,
}

/// One tile of one sequence's prompt for one kv head: query rows `tile * QUERY_ROWS..`, where row r is token
/// r / group and query head kv_head * group + r % group.
#[derive(Clone, Copy, Debug)]
pub struct PromptItem<'a> {
    /// The layer's parameters.
    pub params: &'a AttentionParams<'a>,
    /// The sequence's cache, these tokens included.
    pub kv: &'a KvPages<'a>,
    /// The kv head.
    pub kv_head: usize,
    /// The tile, below [`AttentionParams::prompt_tiles`].
    pub tile: usize,
    /// Queries of `n_tokens` tokens, each of `n_heads * head_dim` floats, `q_stride` floats apart.
    pub q: &'a [f32],
    /// Floats from a token's queries to the next one's.
    pub q_stride: usize,
    /// Start of the first token's result; `[n_heads * v_dim]` a token.
    pub out: *mut f32,
    /// Floats from a token's result to the next one's.
    pub out_stride: usize,
    /// Tokens in `q`, at consecutive positions.
    pub n_tokens: usize,
    /// Position of the first one.
    pub first_position: usize,
}

// SAFETY: items are handed to workers; the pointer's target is written by one of them under `attention_prompt`'s contract.
unsafe impl Sync for PromptItem<'_> {}
// SAFETY: as above.
unsafe impl Send for PromptItem<'_> {}
