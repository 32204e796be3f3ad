//! Linear steps: a row program, quantised activations, and the weights' rows cut into items.

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
    pub(super) fn linear(&self, worker: &Worker<'_>, step: &LinearStage, schedule: &LinearSchedule) {
        let n = self.count(step.prologue.rows);
        if let Some(heads) = &step.heads {
            return self.head_linear(worker, step, heads, schedule, n);
        }
        if n <= LinearKernels::MAT_VEC_TOKENS {
            self.mat_vec(worker, step, schedule, n);
        } else {
            self.mat_mat(worker, step, schedule, n);
        }
    }

    /// Few rows: every worker makes the input for itself, then they share the weights' rows.
    fn mat_vec(&self, worker: &Worker<'_>, step: &LinearStage, schedule: &LinearSchedule, n: usize) {
        if n == 0 {
            // Outputs were asked of no token. A phase all the same, so that workers stay in step.
            return worker.for_each(0, |_| {});
        }
        let start = self.backend.schedule.program_bytes;
        let own = ActRows { buffer: &self.backend.scratch[worker.index()], start, n };
        let forms = &schedule.mat_vec_forms;
        let mut prepared = false;
        worker.for_each(schedule.mat_vec.len(), |item| {
            let range = schedule.mat_vec[item];
            // The kernels run ahead of their reads from there on. Before a worker's first item of a step, these come while
            // the input is made.
            let w = self.weight_rows(step, range).bytes;
            prefetch(&w[..w.len().min(PREFETCH_BYTES)]);
            if !prepared {
                prepared = true;
                for row in 0..n {
                    self.run_row(worker, &step.prologue, row, item == 0);
                    self.quantize(worker, step, forms, own, row);
                }
            }
            // SAFETY: this worker's scratch, written above.
            let acts = unsafe { self.acts(step, forms, own, range) };
            self.multiply(step, range, acts, n, None);
        });
    }

    /// Many rows: one phase makes and quantises them all, the next multiplies panel by panel.
    fn mat_mat(&self, worker: &Worker<'_>, step: &LinearStage, schedule: &LinearSchedule, n: usize) {
        let shared = ActRows { buffer: &self.backend.acts, start: 0, n };
        let forms = &schedule.mat_mat_forms;
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.run_row(worker, &step.prologue, row, true);
                self.quantize(worker, step, forms, shared, row);
            }
        });
        let scratch = &self.backend.scratch[worker.index()];
        worker.for_each(schedule.mat_mat.len(), |item| {
            let range = schedule.mat_mat[item];
            // SAFETY: written in the phase before.
            let acts = unsafe { self.acts(step, forms, shared, range) };
            let start = self.backend.schedule.program_bytes;
            // SAFETY: scratch belongs to this worker.
            let panel = unsafe { scratch.slice_mut::<u8>(start, scratch.len() - start) };
            self.multiply(step, range, acts, n, Some(panel));
        });
    }

    /// Writes row `row` of the step's input, in every form of `forms`, into `to.buffer`.
    fn quantize(&self, worker: &Worker<'_>, step: &LinearStage, forms: &[ActForm], to: ActRows<'_>, row: usize) {
        let kernels = self.backend.linear;
        let scratch = &self.backend.scratch[worker.index()];
        let x = self.source(&step.prologue, step.input, scratch, row, step.k);
        let mut start = to.start;
        for form in forms {
            let bytes = kernels.act_row_bytes(*form, step.k);
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
    unsafe fn acts<'a>(&self, step: &LinearStage, forms: &[ActForm], from: ActRows<'a>, range: RowRange) -> &'a [u8] {
        let kernels = self.backend.linear;
        let dtype = self.backend.plan.graph.weight(step.parts[range.part].weight).dtype();
        let wanted = kernels.act_form(dtype, from.n);
        let mut start = from.start;
        for form in forms.iter().take_while(|f| **f != wanted) {
            start += kernels.act_row_bytes(*form, step.k) * from.n;
        }
        // SAFETY: the caller's promise.
        unsafe { from.buffer.slice(start, kernels.act_row_bytes(wanted, step.k) * from.n) }
    }

    /// A range of a weight's rows.
    fn weight_rows(&self, step: &LinearStage, range: RowRange) -> WeightRows<'_> {
        let tensor = self.backend.plan.graph.weight(step.parts[range.part].weight);
        WeightRows::of(tensor, range.start..range.start + range.len)
    }

    /// Multiplies a range of a weight's rows with all `n` rows of `acts`, through `panel` where there are many.
    fn multiply(&self, step: &LinearStage, range: RowRange, acts: &[u8], n: usize, panel: Option<&mut [u8]>) {
        let kernels = self.backend.linear;
        let part = &step.parts[range.part];
        let w = self.weight_rows(step, range);
        let (buffer, first, stride) = self.place(part.output, 0);
        // The last row ends at its width, not at its stride.
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

/// What a worker asks for ahead of an item: about what memory delivers during a norm, and as much as kernels run ahead.
pub(super) const PREFETCH_BYTES: usize = 4096;

/// Where quantised rows lie: for each form of a step, `n` rows one after the other, from byte `start`.
#[derive(Clone, Copy)]
struct ActRows<'a> {
    buffer: &'a Buffer,
    start: usize,
    n: usize,
}
