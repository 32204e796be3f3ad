//! Experts stages: linears of each row by the experts that its route names. No kernel reads the other experts.
//!
//! Every worker sorts the pairs of row and expert by expert for itself: there are few of them next to the experts'
//! weights. With few rows an item is a range of one chosen expert's rows of weights; the item reads them once and
//! multiplies them with each of the expert's rows of activations. With many rows an item is a panel of one expert, and
//! the matrix product takes all rows that chose it at once.

use super::{
    StepContext,
    linear::PREFETCH_BYTES,
    pairs::{Pair, Pairs, form_of},
    rows::ROWS_PER_ITEM,
    schedule::{ExpertSchedule, RowRange},
};
use crate::{
    cpu::{
        arch::prefetch,
        buffer::Buffer,
        ops::{ActForm, Gather, LinearKernels, WeightRows},
        pool::Worker,
    },
    graph::{ExpertPart, ExpertStage, Rows, Src},
};

impl StepContext<'_> {
    pub(super) fn experts(&self, worker: &Worker<'_>, stage: &ExpertStage, schedule: &ExpertSchedule) {
        let n = self.count(stage.prologue.rows);
        match n {
            // An empty phase, because the other workers have one here.
            0 => worker.for_each(0, |_| {}),
            1..=LinearKernels::MAT_VEC_TOKENS => self.few(worker, stage, schedule, n),
            _ => self.many(worker, stage, schedule, n),
        }
    }

    /// Few rows: every worker makes inputs and routes for itself.
    fn few(&self, worker: &Worker<'_>, stage: &ExpertStage, schedule: &ExpertSchedule, n: usize) {
        let scratch = &self.backend.scratch[worker.index()];
        let forms = &schedule.mat_vec_forms;
        let acts = ExpertActs { buffer: scratch, start: self.backend.schedule.program_bytes, rows: n * stage.inputs() };
        let routes_at = acts.start + forms.iter().map(|f| self.act_bytes(*f, stage) * acts.rows).sum::<usize>();
        let pairs_at = routes_at + (n * 2 * stage.slots * 4).next_multiple_of(64);
        // SAFETY: this worker's scratch.
        let mut pairs = unsafe { Pairs::new(scratch, pairs_at, stage, n) };
        let panel_at = pairs_at + Pairs::bytes(stage, n);
        let mut prepared = false;
        worker.for_each(stage.n_experts.min(n * stage.slots) * schedule.mat_vec.len(), |item| {
            if !prepared {
                prepared = true;
                for row in 0..n {
                    self.run_row(worker, &stage.prologue, row, item == 0);
                    self.quantize_inputs(worker, stage, forms, acts, row);
                    let route = self.source(&stage.prologue, stage.route, scratch, row, 2 * stage.slots);
                    // SAFETY: this worker's scratch, which nothing else uses there.
                    let own = unsafe { scratch.slice_mut::<f32>(routes_at / 4 + row * route.len(), route.len()) };
                    own.copy_from_slice(route);
                }
                // SAFETY: written just now.
                let routes = unsafe { scratch.slice::<f32>(routes_at / 4, n * 2 * stage.slots) };
                pairs.sort(stage, |row| &routes[row * 2 * stage.slots..][..2 * stage.slots]);
            }
            let Some(&expert) = pairs.active().get(item / schedule.mat_vec.len()) else { return };
            let range = schedule.mat_vec[item % schedule.mat_vec.len()];
            let part = &stage.parts[range.part];
            let w = self.expert_rows(part, expert as usize, range);
            if !part.op.input_major {
                prefetch(&w.bytes[..w.bytes.len().min(PREFETCH_BYTES)]);
            }
            // SAFETY: this worker's scratch, written above.
            let routes = unsafe { scratch.slice::<f32>(routes_at / 4, n * 2 * stage.slots) };
            // SAFETY: as above.
            let all = unsafe { self.expert_acts(stage, forms, acts, part, 1) };
            let own = pairs.of(expert as usize);
            if part.op.input_major {
                // SAFETY: this worker's scratch, behind the pairs.
                let panel = unsafe { scratch.slice_mut::<u8>(panel_at, scratch.len() - panel_at) };
                self.multiply_expert(stage, part, w, range, own, (all, acts.rows), panel);
            } else {
                for pair in own {
                    let bytes = self.act_bytes(self.backend.linear.act_form(w.dtype, 1), stage);
                    let act = &all[pair.act(stage) * bytes..][..bytes];
                    let (buffer, start) = self.expert_out(part, range, *pair);
                    let out = buffer.element::<f32>(start, range.len);
                    // SAFETY: the range of the pair's output that this item alone writes.
                    unsafe { self.backend.linear.mat_vec(w, act, 1, out, range.len) };
                }
            }
            for pair in own {
                let weight = routes[pair.row as usize * 2 * stage.slots + stage.slots + pair.slot as usize];
                self.finish_expert(part, expert as usize, range, *pair, weight);
            }
        });
    }

    /// Many rows: one phase makes and quantises all inputs, the next multiplies panel by panel.
    fn many(&self, worker: &Worker<'_>, stage: &ExpertStage, schedule: &ExpertSchedule, n: usize) {
        let forms = &schedule.mat_mat_forms;
        let acts = ExpertActs { buffer: &self.backend.acts, start: 0, rows: n * stage.inputs() };
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.run_row(worker, &stage.prologue, row, true);
                self.quantize_inputs(worker, stage, forms, acts, row);
            }
        });
        let scratch = &self.backend.scratch[worker.index()];
        let start = self.backend.schedule.program_bytes;
        // SAFETY: this worker's scratch.
        let mut pairs = unsafe { Pairs::new(scratch, start, stage, n) };
        let panel_at = start + Pairs::bytes(stage, n);
        let mut sorted = false;
        worker.for_each(stage.n_experts * schedule.mat_mat.len(), |item| {
            let route_of = |row: usize| self.stored_route(stage, row);
            if !sorted {
                sorted = true;
                pairs.sort(stage, route_of);
            }
            let expert = item / schedule.mat_mat.len();
            let own = pairs.of(expert);
            if own.is_empty() {
                return;
            }
            let range = schedule.mat_mat[item % schedule.mat_mat.len()];
            let part = &stage.parts[range.part];
            let w = self.expert_rows(part, expert, range);
            // SAFETY: written in the phase before.
            let all = unsafe { self.expert_acts(stage, forms, acts, part, n) };
            // SAFETY: this worker's scratch, behind the pairs.
            let panel = unsafe { scratch.slice_mut::<u8>(panel_at, scratch.len() - panel_at) };
            self.multiply_expert(stage, part, w, range, own, (all, acts.rows), panel);
            for pair in own {
                let weight = route_of(pair.row as usize)[stage.slots + pair.slot as usize];
                self.finish_expert(part, expert, range, *pair, weight);
            }
        });
    }

    /// Multiplies a range of one expert's outputs with the inputs of its pairs `own`, out of the `n` rows of `acts`.
    #[allow(clippy::too_many_arguments)]
    fn multiply_expert(
        &self,
        stage: &ExpertStage,
        part: &ExpertPart,
        w: WeightRows<'_>,
        range: RowRange,
        own: &[Pair],
        (acts, n): (&[u8], usize),
        panel: &mut [u8],
    ) {
        let kernels = self.backend.linear;
        let (buffer, first, stride) = self.place(part.output, 0);
        let last = own.iter().map(|p| p.row as usize).max().unwrap_or(0) * stride + stage.slots * part.out;
        let out = buffer.element::<f32>(first, last);
        let mut gather = [Gather::default(); GATHERED];
        for chunk in own.chunks(GATHERED) {
            for (g, pair) in gather.iter_mut().zip(chunk) {
                let to = pair.row as usize * stride + pair.slot as usize * part.out + range.start;
                *g = Gather { act: pair.act(stage) as u32, out: to as u32 };
            }
            let gather = &gather[..chunk.len()];
            // SAFETY: every `out` is followed by `range.len` elements below `last`, which this item alone writes.
            unsafe {
                if part.op.input_major {
                    let columns = range.start..range.start + range.len;
                    kernels.mat_mat_transposed(w, columns, acts, n, Some(gather), out, 1, panel);
                } else {
                    kernels.mat_mat_gathered(w, acts, n, gather, out, 1, panel);
                }
            }
        }
    }

    /// Bytes of one expert's input in that form.
    fn act_bytes(&self, form: ActForm, stage: &ExpertStage) -> usize {
        self.backend.linear.act_row_bytes(form, stage.k)
    }

    /// Writes the inputs of row `row`, in every form of `forms`.
    fn quantize_inputs(
        &self,
        worker: &Worker<'_>,
        stage: &ExpertStage,
        forms: &[ActForm],
        to: ExpertActs<'_>,
        row: usize,
    ) {
        let scratch = &self.backend.scratch[worker.index()];
        let inputs = stage.inputs();
        let x = self.source(&stage.prologue, stage.input, scratch, row, stage.k * inputs);
        let mut start = to.start;
        for form in forms {
            let bytes = self.act_bytes(*form, stage);
            for (i, x) in x.chunks_exact(stage.k).enumerate() {
                // SAFETY: either this worker's own scratch, behind the rows that `x` lies in, or rows of the shared
                // buffer that only this item writes.
                let out = unsafe { to.buffer.slice_mut::<u8>(start + (row * inputs + i) * bytes, bytes) };
                self.backend.linear.quantize_row(*form, x, out);
            }
            start += bytes * to.rows;
        }
    }

    /// All inputs in the form that `part` wants for `n` rows.
    ///
    /// # Safety
    /// They were written, and nobody writes them in this phase.
    unsafe fn expert_acts<'a>(
        &self,
        stage: &ExpertStage,
        forms: &[ActForm],
        from: ExpertActs<'a>,
        part: &ExpertPart,
        n: usize,
    ) -> &'a [u8] {
        let dtype = self.backend.plan.graph.weight(part.op.experts[0]).dtype();
        let wanted = form_of(self.backend.linear, part, dtype, n);
        let before = forms.iter().take_while(|f| **f != wanted).map(|f| self.act_bytes(*f, stage) * from.rows);
        let start = from.start + before.sum::<usize>();
        // SAFETY: the caller's promise.
        unsafe { from.buffer.slice(start, self.act_bytes(wanted, stage) * from.rows) }
    }

    /// A range of an expert's rows; all rows where the range counts columns.
    fn expert_rows(&self, part: &ExpertPart, expert: usize, range: RowRange) -> WeightRows<'_> {
        let tensor = self.backend.plan.graph.weight(part.op.experts[expert]);
        if part.op.input_major {
            return WeightRows::of(tensor, 0..tensor.rows());
        }
        WeightRows::of(tensor, range.start..range.start + range.len)
    }

    /// The route of a row, from the arena. Call it after the phase that stored it.
    fn stored_route(&self, stage: &ExpertStage, row: usize) -> &[f32] {
        let value = match stage.route {
            Src::Value(v) => Some(v),
            // The planner stores every route.
            Src::Temp(t) => stage.prologue.instrs[usize::from(t)].store,
        };
        let Some(value) = value else { return &[] };
        let row = match (self.backend.plan.slot(value).rows, stage.prologue.rows) {
            (Rows::Token, Rows::Output) => self.backend.batch.outputs[row] as usize,
            _ => row,
        };
        // SAFETY: stored in a phase before, and written by none since.
        unsafe { self.row(value, row, 2 * stage.slots) }
    }

    /// The buffer and element where a range of a pair's output begins.
    fn expert_out(&self, part: &ExpertPart, range: RowRange, pair: Pair) -> (&Buffer, usize) {
        let (buffer, first, _) = self.place(part.output, pair.row as usize);
        (buffer, first + pair.slot as usize * part.out + range.start)
    }

    /// Applies the route's weight, where the op wants it, and the bias.
    fn finish_expert(&self, part: &ExpertPart, expert: usize, range: RowRange, pair: Pair, weight: f32) {
        if part.op.bias.is_none() && !part.op.scaled {
            return;
        }
        let (buffer, start) = self.expert_out(part, range, pair);
        // SAFETY: columns that only this item writes.
        let out = unsafe { buffer.slice_mut::<f32>(start, range.len) };
        if part.op.scaled {
            (self.backend.ops.scale)(out, weight);
        }
        if let Some(bias) = self.vector(part.op.bias) {
            (self.backend.ops.add_assign)(out, &bias[expert * part.out + range.start..][..range.len]);
        }
    }
}

/// Pairs that one call of the matrix product takes: as many as fit a worker's stack.
const GATHERED: usize = 512;

/// Place of quantised inputs: for each form of a stage `rows` of them, from byte `start`.
#[derive(Clone, Copy)]
struct ExpertActs<'a> {
    buffer: &'a Buffer,
    start: usize,
    rows: usize,
}
