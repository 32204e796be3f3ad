//! Linear stages: a row program, quantised activations, and the weights' rows cut into items.

use super::{
    StepContext,
    rows::ROWS_PER_ITEM,
    schedule::{LinearSchedule, RowRange},
};
use crate::{
    cpu::{
        arch::prefetch,
        buffer::Buffer,
        ops::{ActForm, LinearKernels, WeightRows},
        pool::Worker,
    },
    graph::LinearStage,
};

impl StepContext<'_> {
    pub(super) fn linear(&self, worker: &Worker<'_>, stage: &LinearStage, schedule: &LinearSchedule) {
        let n = self.count(stage.prologue.rows);
        if let Some(heads) = &stage.heads {
            return self.head_linear(worker, stage, heads, schedule, n);
        }
        if n <= LinearKernels::MAT_VEC_TOKENS {
            self.mat_vec(worker, stage, schedule, n);
        } else {
            self.mat_mat(worker, stage, schedule, n);
        }
    }

    /// Few rows: every worker makes the input for itself, then the workers share the weights' rows.
    fn mat_vec(&self, worker: &Worker<'_>, stage: &LinearStage, schedule: &LinearSchedule, n: usize) {
        if n == 0 {
            // No token has an output. An empty phase, because the other workers have one here.
            return worker.for_each(0, |_| {});
        }
        let start = self.backend.schedule.program_bytes;
        let own = ActRows { buffer: &self.backend.scratch[worker.index()], start, n };
        let forms = &schedule.mat_vec_forms;
        let mut prepared = false;
        worker.for_each(schedule.mat_vec.len(), |item| {
            let range = schedule.mat_vec[item];
            // Kernels prefetch the bytes behind these themselves. The first bytes of a worker's first item come while
            // the worker makes the input.
            let w = self.weight_rows(stage, range).bytes;
            prefetch(&w[..w.len().min(PREFETCH_BYTES)]);
            if !prepared {
                prepared = true;
                for row in 0..n {
                    self.run_row(worker, &stage.prologue, row, item == 0);
                    self.quantize(worker, stage, forms, own, row);
                }
            }
            // SAFETY: this worker's scratch, written above.
            let acts = unsafe { self.acts(stage, forms, own, range) };
            self.multiply(stage, range, acts, n, None);
        });
    }

    /// Many rows: one phase makes and quantises all inputs, the next multiplies panel by panel.
    fn mat_mat(&self, worker: &Worker<'_>, stage: &LinearStage, schedule: &LinearSchedule, n: usize) {
        let shared = ActRows { buffer: &self.backend.acts, start: 0, n };
        let forms = &schedule.mat_mat_forms;
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.run_row(worker, &stage.prologue, row, true);
                self.quantize(worker, stage, forms, shared, row);
            }
        });
        let scratch = &self.backend.scratch[worker.index()];
        worker.for_each(schedule.mat_mat.len(), |item| {
            let range = schedule.mat_mat[item];
            // SAFETY: written in the phase before.
            let acts = unsafe { self.acts(stage, forms, shared, range) };
            let start = self.backend.schedule.program_bytes;
            // SAFETY: scratch belongs to this worker.
            let panel = unsafe { scratch.slice_mut::<u8>(start, scratch.len() - start) };
            self.multiply(stage, range, acts, n, Some(panel));
        });
    }

    /// Writes row `row` of the stage's input, in every form of `forms`, into `to.buffer`.
    fn quantize(&self, worker: &Worker<'_>, stage: &LinearStage, forms: &[ActForm], to: ActRows<'_>, row: usize) {
        let kernels = self.backend.linear;
        let scratch = &self.backend.scratch[worker.index()];
        let x = self.source(&stage.prologue, stage.input, scratch, row, stage.k);
        let mut start = to.start;
        for form in forms {
            let bytes = kernels.act_row_bytes(*form, stage.k);
            // SAFETY: either this worker's own scratch, behind the rows that `x` lies in, or a row of the shared
            // buffer that only this item writes.
            let out = unsafe { to.buffer.slice_mut::<u8>(start + row * bytes, bytes) };
            kernels.quantize_row(*form, x, out);
            start += bytes * to.n;
        }
    }

    /// The `to.n` rows in the form that the weight `range.part` wants.
    ///
    /// # Safety
    /// They were written, and nobody writes them in this phase.
    unsafe fn acts<'a>(&self, stage: &LinearStage, forms: &[ActForm], from: ActRows<'a>, range: RowRange) -> &'a [u8] {
        let kernels = self.backend.linear;
        let dtype = self.backend.plan.graph.weight(stage.parts[range.part].weight).dtype();
        let wanted = kernels.act_form(dtype, from.n);
        let mut start = from.start;
        for form in forms.iter().take_while(|f| **f != wanted) {
            start += kernels.act_row_bytes(*form, stage.k) * from.n;
        }
        // SAFETY: the caller's promise.
        unsafe { from.buffer.slice(start, kernels.act_row_bytes(wanted, stage.k) * from.n) }
    }

    /// A range of a weight's rows.
    fn weight_rows(&self, stage: &LinearStage, range: RowRange) -> WeightRows<'_> {
        let tensor = self.backend.plan.graph.weight(stage.parts[range.part].weight);
        WeightRows::of(tensor, range.start..range.start + range.len)
    }

    /// Multiplies a range of a weight's rows with all `n` rows of `acts`, through `panel` where there are many.
    fn multiply(&self, stage: &LinearStage, range: RowRange, acts: &[u8], n: usize, panel: Option<&mut [u8]>) {
        let kernels = self.backend.linear;
        let part = &stage.parts[range.part];
        let w = self.weight_rows(stage, range);
        let (buffer, first, stride) = self.place(part.output, 0);
        // The last row ends at its width, before its stride does.
        let out = buffer.element::<f32>(first + range.start, (n - 1) * stride + range.len);
        // SAFETY: `out` has `n` rows, `stride` apart, of which this item alone writes columns `range`; `acts` has
        // `n` rows in the form that the kernel asked for.
        unsafe {
            match panel {
                None => kernels.mat_vec(w, acts, n, out, stride),
                Some(panel) => kernels.mat_mat(w, acts, n, out, stride, panel),
            }
        }
        if let Some(bias) = self.vector(part.bias) {
            for row in 0..n {
                // SAFETY: columns that only this item writes.
                let out = unsafe { buffer.slice_mut::<f32>(first + row * stride + range.start, range.len) };
                (self.backend.ops.add_assign)(out, &bias[range.start..][..range.len]);
            }
        }
    }
}

/// Bytes a worker prefetches before an item: what memory delivers during one norm, and as far as kernels prefetch
/// ahead.
pub(super) const PREFETCH_BYTES: usize = 4096;

/// Place of quantised rows: for each form of a stage, `n` rows one after the other, from byte `start`.
#[derive(Clone, Copy)]
struct ActRows<'a> {
    buffer: &'a Buffer,
    start: usize,
    n: usize,
}
