//! Attention.

use super::{
    Lowering, StageDraft,
    calls::{Flops, When},
};
use crate::{
    gpu::{
        GpuError,
        exec::{arena::Source, kinds},
        ops::attention::{self, AttentionPlaces, BlockPlaces},
    },
    graph::{AttentionStage, Rows},
};

impl Lowering<'_> {
    pub(super) fn attention(&mut self, name: &str, stage: &AttentionStage) -> Result<StageDraft, GpuError> {
        let op = &stage.op;
        let kind = kinds::number(&self.kinds, self.book, op);
        let blocks = op.blocks.zip(stage.blocks).map(|(cache, keys)| BlockPlaces {
            keys: self.value(keys),
            group: self.book.place(cache).0 as u32,
            every: self.plan.graph.caches()[cache.0 as usize].every,
        });
        let places = AttentionPlaces {
            inputs: stage.inputs.map(|v| self.value(v)),
            output: self.value(stage.output),
            cache_group: self.book.place(op.cache).0 as u32,
            kind: kind as u32,
            blocks,
            chosen: stage.selected.map(|v| self.value(v)),
            kv: self.book.kv_type(),
            vector: &|id| self.vector_at[id.0 as usize],
        };
        let made = attention::dispatches(self.gpu.caps(), &self.plan.graph, name, stage, &places)?;
        let own = Source::Kv(op.cache.0 as usize);
        // Only kernels that attend to blocks bind the blocks' pages.
        let of_blocks = op.blocks.map_or(own, |cache| Source::Kv(cache.0 as usize));
        let sources = [Source::Rope, own, Source::Partials, of_blocks];
        let mut before = vec![self.draft(made.heads, &sources)];
        before.extend(made.blocks.map(|write| self.draft(write, &[of_blocks])));
        let mut variants = Vec::new();
        if let Some(prompt) = made.prompt {
            variants.push((When::Prompt(kind), vec![self.draft(prompt, &sources)]));
        }
        let rows = self.draft(made.rows, &sources);
        variants.push((When::Split(kind), vec![rows.clone(), self.draft(made.merge, &sources)]));
        variants.push((When::Always, vec![rows]));
        // With blocks every token counts as a key. That is too many, and makes submits shorter than they need be.
        let keys =
            if op.blocks.is_some() { None } else { [op.selected, op.window, op.chunk].into_iter().flatten().min() };
        let flops = Flops { per_row: 0, per_key: 2 * (op.n_heads * (op.head_dim + op.v_dim)) as u64, keys };
        Ok(StageDraft { variants, ..StageDraft::of(Rows::Token, flops, before) })
    }
}
