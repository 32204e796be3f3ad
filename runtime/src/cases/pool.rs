//! Cases of blocks of tokens that are pooled into one row.

use super::{
    paged::{Paged, PagedShape, stored_rows},
    random,
};
use crate::{
    cpu::ops::{
        OpKernels,
        attention::pool::{PoolItem, scratch_len},
    },
    graph::{CacheId, PoolOp, WeightId},
    step::KvType,
};

/// A pooling.
#[derive(Clone, Copy, Debug)]
pub struct PoolCase {
    /// The op; its bias is weight 0.
    pub op: PoolOp,
    /// How rows are cached.
    pub kv: KvType,
    /// Whether benches time it.
    pub speed: bool,
}

/// All poolings.
pub fn pools() -> Vec<PoolCase> {
    let case = |block, width, overlap, kv, speed| {
        let op = PoolOp { cache: CacheId(0), block, width, overlap, bias: WeightId(0) };
        PoolCase { op, kv, speed }
    };
    vec![
        case(4, 32, true, KvType::F32, false),
        case(4, 32, true, KvType::F16, false),
        case(8, 16, false, KvType::F32, false),
        case(5, 7, true, KvType::F32, false),
        case(5, 68, true, KvType::F32, false),
        case(1, 9, false, KvType::F32, false),
        case(1, 12, false, KvType::F16, false),
        case(4, 48, true, KvType::Q8_0, false),
        case(21, 40, true, KvType::F32, false),
        // DeepSeek V4's two.
        case(4, 512, true, KvType::F16, true),
        case(128, 512, false, KvType::F16, true),
    ]
}

/// Rows of a sequence: x and gates, by token.
#[derive(Clone, Debug)]
pub struct PoolRows {
    /// `[tokens][channels]`.
    pub x: Vec<f32>,
    /// `[tokens][channels]`.
    pub gates: Vec<f32>,
}

impl PoolCase {
    /// Blocks, their rows and how they are stored.
    pub fn name(&self) -> String {
        let PoolOp { block, width, overlap, .. } = self.op;
        format!("{block} tokens of {width}{} {:?}", if overlap { ", overlapping" } else { "" }, self.kv)
    }

    /// `[block][channels]`.
    pub fn bias(&self) -> Vec<f32> {
        random(5, self.op.block * self.op.channels())
    }

    /// Rows of `tokens` tokens, as they are once cached.
    pub fn rows(&self, tokens: usize) -> PoolRows {
        let rows = |seed| stored_rows(self.kv, seed, tokens, self.op.channels(), 1.0);
        PoolRows { x: rows(1), gates: rows(2) }
    }

    /// The rows in pages.
    pub fn cache(&self, rows: &PoolRows) -> Paged {
        let channels = self.op.channels();
        let shape = PagedShape { kv: self.kv, page_entries: 16, heads: 1, k_dim: channels, v_dim: channels };
        Paged::new(
            shape,
            rows.x.len() / channels,
            0,
            |_, t| &rows.x[t * channels..][..channels],
            |_, t| &rows.gates[t * channels..][..channels],
        )
    }

    /// Elements of scratch for [`PoolCase::run`].
    pub fn scratch_len(&self) -> usize {
        scratch_len(&self.op)
    }

    /// The row of a block.
    pub fn run(
        &self,
        ops: &OpKernels,
        cache: &Paged,
        bias: &[f32],
        block: usize,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let kv = cache.view(usize::MAX);
        let item = PoolItem { op: &self.op, kv: &kv, bias, block };
        // SAFETY: the cache has all of its pages, and nobody writes them.
        unsafe { (ops.pool_block)(&item, scratch, out) };
    }

    /// The row of a block in f64; `channel` gives x and gate of a token and channel.
    pub fn reference(&self, block: usize, channel: impl Fn(usize, usize) -> [f32; 2]) -> Vec<f64> {
        let PoolOp { block: n, width, overlap, .. } = self.op;
        let (channels, bias) = (self.op.channels(), self.bias());
        let first = if overlap { block.saturating_sub(1) } else { block };
        let one = |c: usize| {
            let term = |t: usize| {
                let c = if overlap && t >= block * n { width + c } else { c };
                let [x, gate] = channel(t, c).map(f64::from);
                ((gate + f64::from(bias[t % n * channels + c])).exp(), x)
            };
            let terms: Vec<(f64, f64)> = (first * n..(block + 1) * n).map(term).collect();
            terms.iter().map(|(p, x)| p * x).sum::<f64>() / terms.iter().map(|t| t.0).sum::<f64>()
        };
        (0..width).map(one).collect()
    }
}
