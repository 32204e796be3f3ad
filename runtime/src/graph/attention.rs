//! Attention and what belongs to it: caches of keys and values, the choice of keys, a linear for each head.

use super::op::{CacheId, RopeId, WeightId};

/// Geometry of the keys and values that a layer caches, and how long it needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheSpec {
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub v_dim: usize,
    /// Sliding window: no later token reads keys at or below `position - window`.
    pub window: Option<usize>,
    /// A value is the first `v_dim` elements of its key, so only keys are stored (latent attention).
    pub v_in_k: bool,
    /// Tokens that an entry stands for: 1, or the tokens of a block. A block's entry is stored with its last token.
    pub every: usize,
}

impl CacheSpec {
    /// A cache of the keys and values of every token, without a window.
    pub const fn new(n_kv_heads: usize, head_dim: usize, v_dim: usize) -> Self {
        Self { n_kv_heads, head_dim, v_dim, window: None, v_in_k: false, every: 1 }
    }

    /// Entries that a token at `position` sees, its own included.
    pub const fn seen(&self, position: usize) -> usize {
        (position + 1) / self.every
    }

    /// Elements of a token that are stored, over all heads.
    pub const fn elements(&self) -> usize {
        self.n_kv_heads * (self.head_dim + self.stored_v_dim())
    }

    /// Elements of a value that are stored beside its key.
    pub const fn stored_v_dim(&self) -> usize {
        if self.v_in_k { 0 } else { self.v_dim }
    }
}

/// Causal attention of `q` over the cached keys and values, after appending this step's `k` and `v`.
#[derive(Clone, Debug)]
pub struct AttentionOp {
    /// The cache that `k` and `v` are appended to and read from.
    pub cache: CacheId,
    /// Query heads; each group of `n_heads / n_kv_heads` shares a key/value head.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value.
    pub v_dim: usize,
    /// Factor on `q · k`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` before the mask.
    pub softcap: Option<f32>,
    /// Sliding window: key `k` is visible to query `q` iff `k > q - window`.
    pub window: Option<usize>,
    /// Chunked attention: key `k` is visible to query `q` iff `k / chunk == q / chunk`.
    pub chunk: Option<usize>,
    /// `[n_heads]` logits that join the softmax's denominator.
    pub sinks: Option<WeightId>,
    /// Set where cached keys are un-rotated and kernels rotate them as they read them.
    pub rotate_on_read: Option<RopeId>,
    /// Values are the first `v_dim` elements of their keys: there is no input v, and the cache has none.
    pub v_in_k: bool,
    /// A second cache, of blocks of tokens. The op attends to its keys beside those within the window; another input,
    /// after q and k, brings them. Only where values are parts of keys. The window bounds the tokens' own keys; all
    /// complete blocks are visible.
    pub blocks: Option<CacheId>,
    /// Keys at most that a token attends to, where the last input names them: their positions in ascending order, then
    /// -1 for the rest. See [`SelectOp`]. Where there are blocks, the positions are those of blocks.
    pub selected: Option<usize>,
    /// Whether the cache belongs to an earlier layer, which has written it: there is no k and no v.
    pub shared: bool,
}

/// The choice of keys to attend to, by small heads with a cache of their own: for each token the `k` best of those that it
/// sees, by `Σ_h w_h · max(q_h · key, 0)`, after appending this step's keys. Keys may be those of blocks of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectOp {
    /// The cache of index keys: one head, no values.
    pub cache: CacheId,
    /// Index heads.
    pub n_heads: usize,
    /// Elements of an index query or key.
    pub head_dim: usize,
    /// Keys chosen.
    pub k: usize,
}

/// The pooling of every `block` tokens of a sequence (DeepSeek V4's compressors): the mean of their rows, channel by
/// channel weighted by the softmax of their gates over those tokens,
/// `out[c] = Σ_t softmax_t(gate[t][c] + bias[t][c]) · x[t][c]`.
///
/// With `overlap` rows have twice as many channels. A block is then the mean over its own tokens' second halves and the
/// first halves of the tokens of the block before, if there is one.
///
/// Inputs: x and gates, `[channels]` a token, which are cached for as long as a block may need them. The output has a
/// row of `width` elements a token: the block's row at the block's last token, zeroes at all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOp {
    /// The rows of x as keys, the gates as values.
    pub cache: CacheId,
    /// Tokens of a block.
    pub block: usize,
    /// Elements of a block's row.
    pub width: usize,
    /// Whether blocks overlap.
    pub overlap: bool,
    /// `[block, channels]`.
    pub bias: WeightId,
}

impl PoolOp {
    /// Elements of a row of x, and of one of gates.
    pub const fn channels(&self) -> usize {
        if self.overlap { 2 * self.width } else { self.width }
    }

    /// Tokens that a block's row depends on.
    pub const fn reach(&self) -> usize {
        if self.overlap { 2 * self.block } else { self.block }
    }

    /// The cache that the op needs.
    pub const fn cache_spec(&self) -> CacheSpec {
        CacheSpec { window: Some(self.reach()), ..CacheSpec::new(1, self.channels(), self.channels()) }
    }
}

/// A block-diagonal linear: head h of the input times a matrix of its own.
///
/// The matrices are rows `h * period + first ..` of one tensor (a 3-D one counts all its rows), `heads * period` rows in
/// all. A matrix is `[out, in]`, or `[in, out]` where it is `transposed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLinearOp {
    /// The tensor.
    pub weight: WeightId,
    /// Matrices, and heads of the input and of the output.
    pub heads: usize,
    /// Rows of the tensor from one matrix to the next.
    pub period: usize,
    /// First row of a matrix within its period.
    pub first: usize,
    /// Elements of a head of the input.
    pub input: usize,
    /// Elements of a head of the output.
    pub output: usize,
    /// The file has `[in, out]`.
    pub transposed: bool,
}

impl HeadLinearOp {
    /// Rows of a matrix as the file has them.
    pub fn rows(&self) -> usize {
        if self.transposed { self.input } else { self.output }
    }

    /// Elements of such a row.
    pub fn row_len(&self) -> usize {
        if self.transposed { self.output } else { self.input }
    }

    /// First row of head `head`'s matrix in the tensor.
    pub fn first_row(&self, head: usize) -> usize {
        head * self.period + self.first
    }
}
