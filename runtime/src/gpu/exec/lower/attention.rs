//! Attention.

use super::{Lowering, StepDraft, calls::When};
use crate::{
    gpu::{
        GpuError,
        exec::memory::Source,
        ops::attention::{self, AttentionPlaces},
    },
    graph::{AttentionStep, Rows},
};

impl Lowering<'_> {
    pub(super) fn attention(&mut self, name: &str, step: &AttentionStep) -> Result<StepDraft, GpuError> {
        let (group, _) = self.book.place(step.op.cache);
        let places = AttentionPlaces {
            inputs: step.inputs.map(|v| self.value(v)),
            output: self.value(step.output),
            cache_group: group as u32,
            kv: self.book.kv_type(),
            vector: &|id| self.vector_at[id.0 as usize],
        };
        let made = attention::dispatches(self.gpu.caps(), &self.plan.graph, name, step, &places)?;
        let cache = [Source::Rope, Source::Kv(step.op.cache.0 as usize)];
        let parts = [cache[0], cache[1], Source::Partials];
        let before = vec![self.draft(made.heads, &cache)];
        let split = vec![self.draft(made.split, &parts), self.draft(made.merge, &parts)];
        let variants = vec![
            (When::Prompt, vec![self.draft(made.prompt, &cache)]),
            (When::Split(group), split),
            (When::Always, vec![self.draft(made.single, &cache)]),
        ];
        Ok(StepDraft { rows: Rows::Token, flops_per_row: 0, gated: None, before, variants })
    }
}
