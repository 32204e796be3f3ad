//! The choice of keys, and the pooling of blocks.

use super::{Lowering, StageDraft, calls::Flops};
use crate::{
    gpu::{
        GpuError,
        exec::arena::Source,
        ops::select::{self, CachedRows},
    },
    graph::{CacheId, PoolStage, Rows, SelectStage},
};

impl Lowering<'_> {
    pub(super) fn select(&mut self, name: &str, stage: &SelectStage) -> Result<StageDraft, GpuError> {
        let cache = self.cached_rows(stage.op.cache);
        let inputs = stage.inputs.map(|v| self.value(v));
        let made = select::choice(self.gpu.caps(), name, &stage.op, &cache, inputs, self.value(stage.output))?;
        let kv = Source::Kv(stage.op.cache.0 as usize);
        let before = vec![
            self.draft(made.write, &[kv]),
            self.draft(made.scores, &[Source::Scores, kv]),
            self.draft(made.keys, &[Source::Scores]),
        ];
        let per_key = (2 * stage.op.n_heads * stage.op.head_dim / cache.spec.every) as u64;
        let flops = Flops { per_key, ..Flops::default() };
        Ok(StageDraft::of(Rows::Token, flops, before))
    }

    pub(super) fn pool(&mut self, name: &str, stage: &PoolStage) -> Result<StageDraft, GpuError> {
        let cache = self.cached_rows(stage.op.cache);
        let places = (stage.inputs.map(|v| self.value(v)), self.value(stage.output));
        let bias = self.vector_at[stage.op.bias.0 as usize];
        let made = select::pool(self.gpu.caps(), name, &stage.op, &cache, bias, places)?;
        let kv = Source::Kv(stage.op.cache.0 as usize);
        let before = made.into_iter().map(|dispatch| self.draft(dispatch, &[kv])).collect();
        Ok(StageDraft::of(Rows::Token, Flops::default(), before))
    }

    fn cached_rows(&self, cache: CacheId) -> CachedRows {
        let spec = self.plan.graph.caches()[cache.0 as usize];
        CachedRows { spec, group: self.book.place(cache).0 as u32, kv: self.book.kv_type() }
    }
}
