//! Head linears: a linear for each head of a row, with a matrix of its own.

use super::{
    StepContext,
    rows::ROWS_PER_ITEM,
    schedule::{LinearSchedule, RowRange},
};
use crate::{
    cpu::{
        buffer::Buffer,
        ops::{ActForm, WeightRows},
        pool::Worker,
    },
    graph::{HeadLinearOp, LinearStage},
};

impl StepContext<'_> {
    /// With one row every worker makes the input for itself and quantises the heads of its items. With several, one
    /// phase makes and quantises all, head by head, and the next multiplies.
    pub(super) fn head_linear(
        &self,
        worker: &Worker<'_>,
        stage: &LinearStage,
        heads: &HeadLinearOp,
        schedule: &LinearSchedule,
        n: usize,
    ) {
        let few = n <= 1;
        let scratch = &self.backend.scratch[worker.index()];
        let (kernels, start) = (self.backend.linear, self.backend.schedule.program_bytes);
        let form = schedule.head_form(few);
        let row_bytes = kernels.act_row_bytes(form, stage.k);
        let ranges = if few { &schedule.mat_vec } else { &schedule.mat_mat };
        if few {
            let mut prepared = None;
            return worker.for_each(if n == 0 { 0 } else { ranges.len() }, |item| {
                let range = ranges[item];
                if prepared.is_none() {
                    self.run_row(worker, &stage.prologue, 0, item == 0);
                }
                if prepared != Some(range.part) {
                    self.quantize_head(stage, form, (scratch, start), scratch, 0, range.part);
                    prepared = Some(range.part);
                }
                // SAFETY: this worker's scratch, written above.
                let acts = unsafe { scratch.slice::<u8>(start, row_bytes) };
                let panel_start = start + row_bytes.next_multiple_of(64);
                // SAFETY: scratch belongs to this worker, and activations lie before the panel.
                let panel = unsafe { scratch.slice_mut::<u8>(panel_start, scratch.len() - panel_start) };
                self.multiply_head(stage, heads, range, acts, n, few, panel);
            });
        }
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.run_row(worker, &stage.prologue, row, true);
                for head in 0..heads.heads {
                    let at = (head * n + row) * row_bytes;
                    self.quantize_head(stage, form, (&self.backend.acts, at), scratch, row, head);
                }
            }
        });
        worker.for_each(ranges.len(), |item| {
            let range = ranges[item];
            // SAFETY: written in the phase before.
            let acts = unsafe { self.backend.acts.slice::<u8>(range.part * n * row_bytes, n * row_bytes) };
            // SAFETY: scratch belongs to this worker.
            let panel = unsafe { scratch.slice_mut::<u8>(start, scratch.len() - start) };
            self.multiply_head(stage, heads, range, acts, n, few, panel);
        });
    }

    /// Writes head `head` of row `row` of the stage's input, in `form`, at byte `to.1` of `to.0`.
    fn quantize_head(
        &self,
        stage: &LinearStage,
        form: ActForm,
        to: (&Buffer, usize),
        scratch: &Buffer,
        row: usize,
        head: usize,
    ) {
        let width = stage.heads.map_or(1, |h| h.heads) * stage.k;
        let x = &self.source(&stage.prologue, stage.input, scratch, row, width)[head * stage.k..][..stage.k];
        let bytes = self.backend.linear.act_row_bytes(form, stage.k);
        // SAFETY: either this worker's own scratch, behind the rows that `x` lies in, or a place of the shared buffer
        // that only this item writes.
        let out = unsafe { to.0.slice_mut::<u8>(to.1, bytes) };
        self.backend.linear.quantize_row(form, x, out);
    }

    /// Multiplies a range of one head's outputs with all `n` rows of `acts`.
    #[allow(clippy::too_many_arguments)]
    fn multiply_head(
        &self,
        stage: &LinearStage,
        heads: &HeadLinearOp,
        range: RowRange,
        acts: &[u8],
        n: usize,
        few: bool,
        panel: &mut [u8],
    ) {
        let kernels = self.backend.linear;
        let tensor = self.backend.plan.graph.weight(heads.weight);
        let (buffer, first, stride) = self.place(stage.parts[0].output, 0);
        let to = first + range.part * heads.output + range.start;
        // The last row ends at its width, before its stride does.
        let out = buffer.element::<f32>(to, (n - 1) * stride + range.len);
        let matrix = heads.first_row(range.part);
        // SAFETY: `out` has `n` rows, `stride` apart, of which this item alone writes the range; `acts` has `n` rows in
        // the form that the kernel asked for.
        unsafe {
            if heads.transposed {
                let w = WeightRows::of(tensor, matrix..matrix + heads.input);
                let columns = range.start..range.start + range.len;
                kernels.mat_mat_transposed(w, columns, acts, n, None, out, stride, panel);
                return;
            }
            let first = matrix + range.start;
            let w = WeightRows::of(tensor, first..first + range.len);
            if few {
                kernels.mat_vec(w, acts, n, out, stride);
            } else {
                kernels.mat_mat(w, acts, n, out, stride, panel);
            }
        }
    }
}
