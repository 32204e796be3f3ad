//! A backend that runs part of a plan: another device runs the rest, and values cross between them.

use std::ops::Range;

use super::{CpuBackend, StepContext};
use crate::{
    backend::Observed,
    graph::{Rows, ValueId},
    step::SequenceKv,
};
#[cfg(feature = "gpu")]
use crate::{
    cpu::{CpuError, choose::Choices},
    sample::Chosen,
    step::{Batch, PageBook, SequenceStep},
};

impl CpuBackend {
    /// The book of pages and the rows of the step under way: the device that runs a part of the step must have them.
    #[cfg(feature = "gpu")]
    pub(crate) fn step_state(&mut self) -> (&mut PageBook, &mut Batch) {
        (&mut self.book, &mut self.batch)
    }

    /// Admits a step: pages for its tokens, room for its values, tables for its positions. `tokens` has those that steps
    /// under way have chosen. Where it fails, it has taken the step back.
    #[cfg(feature = "gpu")]
    pub(crate) fn begin_parts(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        tokens: &[Option<u32>],
    ) -> Result<(), CpuError> {
        self.admit(steps, tokens)
    }

    /// Makes choices from output rows of `width` elements.
    #[cfg(feature = "gpu")]
    pub(crate) fn choose(&self, choices: Choices<'_>, rows: &[f32], width: usize) -> Vec<Chosen> {
        choices.make_all(&self.pool, &self.samplers, rows, width)
    }

    /// Runs the stages `range` of the plan over the rows admitted last.
    pub(crate) fn run_part(&mut self, kvs: &[&SequenceKv], range: Range<usize>) {
        if !self.batch.tokens.is_empty() {
            let context = StepContext { backend: self, kvs };
            self.pool.run(&|worker| range.clone().for_each(|i| context.stage(worker, i)));
        }
    }

    /// All rows of a value of the step under way, each padded to the slot's stride.
    pub(crate) fn value_mut(&mut self, value: ValueId) -> &mut [f32] {
        let slot = self.plan.slot(value);
        let buffer = match slot.rows {
            Rows::Token => &self.token_values,
            Rows::Output => &self.output_values,
        };
        let rows = self.batch.count(slot.rows);
        // SAFETY: no run is under way, and `&mut self` excludes others.
        unsafe { buffer.slice_mut(slot.offset * rows, slot.stride * rows) }
    }

    /// Shows `look` the values of stage `i` and writes its changes back.
    pub(crate) fn observe(&mut self, i: usize, look: &mut dyn FnMut(&mut Observed)) {
        for value in Observed::of_stage(&self.plan, i) {
            let slot = self.plan.slot(value);
            let rows = self.batch.count(slot.rows);
            let padded = self.value_mut(value).chunks_exact(slot.stride);
            let data = padded.flat_map(|row| &row[..slot.width]).copied().collect();
            let mut seen = Observed { stage: i, value, rows, width: slot.width, gated: None, addend: None, data };
            look(&mut seen);
            let padded = self.value_mut(value).chunks_exact_mut(slot.stride);
            for (row, new) in padded.zip(seen.data.chunks_exact(slot.width)) {
                row[..slot.width].copy_from_slice(new);
            }
        }
    }
}
