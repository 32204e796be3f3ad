//! Pool stages: rows and gates into their pages, then a row for each block that this step completes.

use super::{StepContext, rows::ROWS_PER_ITEM};
use crate::{
    cpu::{
        ops::attention::pool::{PoolItem, scratch_len},
        pool::Worker,
    },
    graph::PoolStage,
};

impl StepContext<'_> {
    pub(super) fn pool(&self, worker: &Worker<'_>, stage: &PoolStage) {
        let op = &stage.op;
        let n = self.backend.batch.tokens.len();
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.cache_row(row, op.cache, stage.inputs[0], Some(stage.inputs[1]));
            }
        });
        worker.for_each(n, |row| {
            let position = self.backend.batch.positions[row] as usize;
            // SAFETY: this item alone writes its row.
            let out = unsafe { self.row_mut(stage.output, row, op.width) };
            if !(position + 1).is_multiple_of(op.block) {
                return out.fill(0.0);
            }
            let kv = self.backend.kv.pages(&self.backend.book, op.cache, self.kvs[self.sequence_of(row)]);
            let bias = self.vector(Some(op.bias)).unwrap_or_default();
            let item = PoolItem { op, kv: &kv, bias, block: position / op.block };
            // SAFETY: scratch belongs to this worker. All rows were written in the phase before or in earlier steps.
            unsafe {
                let scratch = self.backend.scratch[worker.index()].slice_mut(0, scratch_len(op));
                (self.backend.ops.pool_block)(&item, scratch, out);
            }
        });
    }
}
