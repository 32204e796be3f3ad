//! Cuts the work of a plan's linears into items, and sizes the workers' scratch.

use super::{
    attention,
    pairs::{Pairs, form_of},
};
use crate::{
    cpu::ops::{ActForm, LinearKernels, attention::pool},
    format::Tensor,
    graph::{ExpertStage, HeadLinearOp, LinearStage, Plan, RowProgram, StageKind},
};

/// A range of rows of one part of a linear stage, or of outputs of one head of a head linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowRange {
    pub part: usize,
    pub start: usize,
    pub len: usize,
}

/// Items of one linear stage.
#[derive(Debug, Default)]
pub(super) struct LinearSchedule {
    /// For few rows of activations: large ranges first, small ones last, so that workers finish together.
    pub mat_vec: Vec<RowRange>,
    /// For many rows: panels.
    pub mat_mat: Vec<RowRange>,
    /// Forms of activations that the parts want, for few rows and for many.
    pub mat_vec_forms: Vec<ActForm>,
    pub mat_mat_forms: Vec<ActForm>,
}

/// Items of one experts stage, for one expert.
#[derive(Debug, Default)]
pub(super) struct ExpertSchedule {
    /// For few rows of activations.
    pub mat_vec: Vec<RowRange>,
    /// For many rows: panels.
    pub mat_mat: Vec<RowRange>,
    /// Forms of activations that the parts want, for few rows and for many.
    pub mat_vec_forms: Vec<ActForm>,
    pub mat_mat_forms: Vec<ActForm>,
}

/// Items and sizes for a whole plan.
#[derive(Debug)]
pub(super) struct Schedule {
    /// By stage; empty for stages that are not linear.
    pub linear: Vec<LinearSchedule>,
    /// By stage; empty for stages without experts.
    pub experts: Vec<ExpertSchedule>,
    /// Bytes of the largest quantised row over all stages (all forms of a stage together).
    pub act_bytes_per_row: usize,
    /// Bytes of the largest quantised row for the mat-vec kernels.
    mat_vec_act_bytes: usize,
    /// Bytes at the start of a worker's scratch for the results of a row program.
    pub program_bytes: usize,
    /// Elements of partial attention results, over all key/value heads, for one piece of a sequence.
    pub partial_len: usize,
}

/// Items of a mat-vec have a multiple of so many rows, because kernels take several rows at once.
const ROW_STEP: usize = 8;
/// Items of fewer weight bytes cost more than they even out.
const MIN_ITEM_BYTES: usize = 8 << 10;

impl Schedule {
    pub fn new(plan: &Plan, kernels: &LinearKernels, threads: usize) -> Self {
        let mut linear = Vec::new();
        let (mut act_bytes_per_row, mut mat_vec_act_bytes) = (0, 0);
        let mut experts = Vec::new();
        for stage in &plan.stages {
            let (mut l, mut e) = (LinearSchedule::default(), ExpertSchedule::default());
            let bytes = |forms: &[ActForm], k: usize| forms.iter().map(|f| kernels.act_row_bytes(*f, k)).sum::<usize>();
            match &stage.kind {
                StageKind::Linear(stage) => {
                    l = LinearSchedule::new(plan, stage, kernels, threads);
                    let heads = stage.heads.map_or(1, |h| h.heads);
                    act_bytes_per_row = act_bytes_per_row.max(heads * bytes(&l.mat_mat_forms, stage.k));
                    mat_vec_act_bytes = mat_vec_act_bytes.max(bytes(&l.mat_vec_forms, stage.k));
                }
                StageKind::Experts(stage) => {
                    e = ExpertSchedule::new(plan, stage, kernels, threads);
                    let many = bytes(&e.mat_mat_forms, stage.k) * stage.inputs();
                    act_bytes_per_row = act_bytes_per_row.max(many);
                    let routes = (2 * stage.slots * 4).next_multiple_of(64);
                    let few = bytes(&e.mat_vec_forms, stage.k) * stage.inputs() + routes + Pairs::bytes(stage, 1);
                    mat_vec_act_bytes = mat_vec_act_bytes.max(few);
                }
                StageKind::Rows(_) | StageKind::Select(_) | StageKind::Pool(_) | StageKind::Attention(_) => {}
                StageKind::ShortConv(_) | StageKind::GatedDelta(_) => {}
            }
            linear.push(l);
            experts.push(e);
        }
        let programs = plan.stages.iter().filter_map(|s| s.kind.program());
        let program_bytes = programs.map(RowProgram::scratch_len).max().unwrap_or(0) * 4;
        let partial_len = |kind: &StageKind| match kind {
            StageKind::Attention(a) => {
                // The item's heads, which may be fewer than the op's: many queries on one key are cut into several
                // items.
                let params = attention::params(&a.op, None, None);
                params.partial_len() * params.n_kv_heads
            }
            _ => 0,
        };
        let partial_len = plan.stages.iter().map(|s| partial_len(&s.kind)).max().unwrap_or(0);
        Self { linear, experts, act_bytes_per_row, mat_vec_act_bytes, program_bytes, partial_len }
    }

    /// Bytes of scratch for one worker: rows of a program, then one of quantised rows, a panel, or attention's own
    /// scratch.
    pub fn scratch_bytes(&self, plan: &Plan, kernels: &LinearKernels, max_tokens: usize) -> usize {
        let mut rest = self.mat_vec_act_bytes * LinearKernels::MAT_VEC_TOKENS;
        for stage in &plan.stages {
            match &stage.kind {
                StageKind::Rows(_) | StageKind::Select(_) | StageKind::ShortConv(_) | StageKind::GatedDelta(_) => {}
                StageKind::Linear(LinearStage { heads: Some(h), k, .. }) => {
                    // One head's rows may lie before the panel.
                    let dtype = plan.graph.weight(h.weight).dtype();
                    let panel = kernels.panel_bytes(dtype, *k).max(kernels.transposed_panel_bytes(dtype, *k));
                    let row = kernels.act_row_bytes(ActForm::F32Chains, *k).max(self.mat_vec_act_bytes);
                    rest = rest.max(panel + row.next_multiple_of(64));
                }
                StageKind::Linear(l) => {
                    for part in &l.parts {
                        rest = rest.max(kernels.panel_bytes(plan.graph.weight(part.weight).dtype(), l.k));
                    }
                }
                StageKind::Experts(e) => {
                    for part in &e.parts {
                        let dtype = plan.graph.weight(part.op.experts[0]).dtype();
                        let panel = kernels.panel_bytes(dtype, e.k).max(kernels.transposed_panel_bytes(dtype, e.k));
                        let few = self.mat_vec_act_bytes * LinearKernels::MAT_VEC_TOKENS;
                        rest = rest.max(panel + few.max(Pairs::bytes(e, max_tokens)).next_multiple_of(64));
                    }
                }
                StageKind::Attention(a) => rest = rest.max(attention::scratch_len(&a.op) * 4),
                StageKind::Pool(p) => rest = rest.max(4 * pool::scratch_len(&p.op)),
            }
        }
        self.program_bytes + rest.next_multiple_of(64)
    }
}

/// Ranges of rows for workers to claim in turn, in multiples of `step`: each is one of `shares` parts of the bytes left.
/// This makes few ranges, long streams for the prefetchers, and small ranges at the end.
fn guided(weights: &[&Tensor], shares: usize, step: impl Fn(&Tensor) -> usize) -> Vec<RowRange> {
    let mut ranges = Vec::new();
    let mut left: usize = weights.iter().map(|w| w.bytes().len()).sum();
    for (part, w) in weights.iter().enumerate() {
        let (rows, row_bytes, step) = (w.rows(), w.row_bytes().max(1), step(w));
        let mut start = 0;
        while start < rows {
            let bytes = (left / shares).max(MIN_ITEM_BYTES);
            let len = (bytes / row_bytes).next_multiple_of(step).max(step).min(rows - start);
            ranges.push(RowRange { part, start, len });
            start += len;
            left -= len * row_bytes;
        }
    }
    ranges
}

impl LinearSchedule {
    fn new(plan: &Plan, stage: &LinearStage, kernels: &LinearKernels, threads: usize) -> Self {
        if let Some(heads) = &stage.heads {
            return Self::by_heads(plan, heads, kernels, threads);
        }
        let mut s = Self::default();
        let weights: Vec<_> = stage.parts.iter().map(|p| plan.graph.weight(p.weight)).collect();
        for w in &weights {
            for (forms, n) in [(&mut s.mat_vec_forms, 1), (&mut s.mat_mat_forms, LinearKernels::MAT_VEC_TOKENS + 1)] {
                let form = kernels.act_form(w.dtype(), n);
                if !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        // Whole tiles of panels; a matrix product unpacks a tile even for few rows.
        let tile = |w: &Tensor| kernels.tile_rows(w.dtype());
        s.mat_vec = guided(&weights, threads, |_| ROW_STEP);
        s.mat_mat = guided(&weights, if threads == 1 { 1 } else { 2 * threads }, tile);
        s
    }

    /// One item a head; where heads are few, several items a head.
    fn by_heads(plan: &Plan, h: &HeadLinearOp, kernels: &LinearKernels, threads: usize) -> Self {
        let dtype = plan.graph.weight(h.weight).dtype();
        let form = |n| if h.transposed { ActForm::F32Chains } else { kernels.act_form(dtype, n) };
        let rows = if h.transposed { kernels.transposed_panel_rows() } else { ROW_STEP };
        let parts = (threads * 4).div_ceil(h.heads).max(1);
        let len = h.output.div_ceil(parts).next_multiple_of(rows).max(rows);
        let most = if h.transposed { len } else { kernels.panel_rows(dtype, h.input) };
        let ranges = |len: usize| {
            (0..h.heads)
                .flat_map(|part| (0..h.output).step_by(len).map(move |start| (part, start)))
                .map(|(part, start)| RowRange { part, start, len: len.min(h.output - start) })
                .collect()
        };
        Self {
            mat_vec: ranges(len),
            mat_mat: ranges(len.min(most)),
            mat_vec_forms: vec![form(1)],
            mat_mat_forms: vec![form(LinearKernels::MAT_VEC_TOKENS + 1)],
        }
    }

    /// The form of a head linear's activations.
    pub fn head_form(&self, few: bool) -> ActForm {
        let forms = if few { &self.mat_vec_forms } else { &self.mat_mat_forms };
        forms.first().copied().unwrap_or(ActForm::F32)
    }
}

impl ExpertSchedule {
    fn new(plan: &Plan, stage: &ExpertStage, kernels: &LinearKernels, threads: usize) -> Self {
        let mut s = Self::default();
        let weights: Vec<&Tensor> = stage.parts.iter().map(|p| plan.graph.weight(p.op.experts[0])).collect();
        // Only the step's routes say which experts share a phase, so all ranges are of one size: several for each
        // thread, out of the weights that one row needs.
        let row: usize = weights.iter().map(|w| w.stored_bytes() * stage.slots).sum();
        let share = if threads == 1 { row } else { (row / (threads * 8)).max(MIN_ITEM_BYTES) };
        for (part, w) in weights.iter().enumerate() {
            let of = &stage.parts[part];
            for (forms, n) in [(&mut s.mat_vec_forms, 1), (&mut s.mat_mat_forms, usize::MAX)] {
                let form = form_of(kernels, of, w.dtype(), n);
                if !forms.contains(&form) {
                    forms.push(form);
                }
            }
            let rows = of.out;
            let row_bytes = (w.stored_bytes() / rows.max(1)).max(1);
            let (least, many) = match of.op.input_major {
                true => (kernels.transposed_panel_rows(), kernels.transposed_panel_rows()),
                false => (ROW_STEP, kernels.panel_rows(w.dtype(), stage.k).max(1)),
            };
            let few = (share / row_bytes).next_multiple_of(least).max(least);
            for (ranges, len) in [(&mut s.mat_vec, few), (&mut s.mat_mat, many)] {
                let starts = (0..rows).step_by(len);
                ranges.extend(starts.map(|start| RowRange { part, start, len: len.min(rows - start) }));
            }
        }
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::{arch::Isa, ops::linear_kernels},
        format::Tensor,
        graph::{Device, GraphBuilder},
    };

    #[test]
    fn every_row_is_in_one_range() {
        for (rows, threads) in [(1, 1), (1, 4), (7, 2), (100, 3), (4099, 2), (4099, 16)] {
            let mut b = GraphBuilder::new();
            let table = b.weight("e", Tensor::from_f32(vec![5, 16], &[1.0; 80]).unwrap());
            let w = b.weight("w", Tensor::from_f32(vec![rows, 16], &vec![1.0; rows * 16]).unwrap());
            let v = b.weight("v", Tensor::from_f32(vec![33, 16], &vec![1.0; 33 * 16]).unwrap());
            let x = b.embed("x", table, 1.0).unwrap();
            let y = b.linear("y", x, w, None).unwrap();
            b.linear("z", x, v, None).unwrap();
            let plan = Plan::new(b.finish(y), |_, _, _| Ok(Device::Cpu)).unwrap();
            let schedule = Schedule::new(&plan, linear_kernels(Isa::Generic), threads);
            for ranges in [&schedule.linear[0].mat_vec, &schedule.linear[0].mat_mat] {
                let mut next = [0, 0];
                for r in ranges {
                    assert_eq!(next[r.part], r.start);
                    next[r.part] += r.len;
                }
                assert_eq!(next, [rows, 33], "{rows} rows, {threads} threads");
            }
        }
    }
}
