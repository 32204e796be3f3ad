//! Select stages: index keys into their pages, then each row chooses the keys that it will attend to.

use super::{StepContext, rows::ROWS_PER_ITEM};
use crate::{
    cpu::{
        ops::attention::{
            AttentionParams,
            select::{SelectItem, choose},
        },
        pool::Worker,
    },
    graph::SelectStage,
};

/// Bytes of a worker's buffer for sequences of up to `longest` tokens: scores and their order.
pub(super) fn scratch_bytes(longest: usize) -> usize {
    longest.next_multiple_of(16) * 8
}

impl StepContext<'_> {
    pub(super) fn select(&self, worker: &Worker<'_>, stage: &SelectStage) {
        let op = &stage.op;
        let n = self.backend.batch.tokens.len();
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.cache_row(row, op.cache, stage.inputs[1], None);
            }
        });
        let params = AttentionParams { n_heads: op.n_heads, ..AttentionParams::one_head(op.head_dim, 0) };
        let spec = &self.backend.plan.graph.caches()[op.cache.0 as usize];
        worker.for_each(n, |row| {
            let seen = spec.seen(self.backend.batch.positions[row] as usize);
            let buffer = &self.backend.select_scratch[worker.index()];
            let padded = seen.next_multiple_of(16);
            // SAFETY: inputs were written in an earlier stage, and this item alone writes its row of the output. The
            // buffer belongs to this worker and is long enough for the longest sequence.
            unsafe {
                let out = self.row_mut(stage.output, row, op.k);
                let (scores, order) = (buffer.slice_mut::<f32>(0, seen), buffer.slice_mut::<u32>(padded, seen));
                if seen <= op.k {
                    // All keys are chosen, so their scores do not matter.
                    scores.fill(0.0);
                } else {
                    let pages = self.backend.kv.pages(&self.backend.book, op.cache, self.kvs[self.sequence_of(row)]);
                    let q = self.row(stage.inputs[0], row, op.n_heads * op.head_dim);
                    let weights = self.row(stage.inputs[2], row, op.n_heads);
                    let item = SelectItem { params: &params, kv: &pages, q, weights };
                    (self.backend.ops.select_scores)(&item, scores);
                }
                choose(scores, order, out);
            }
        });
    }
}
