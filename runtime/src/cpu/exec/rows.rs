//! Row programs: norms, adds, gated activations and look-ups, one row at a time.

use super::StepContext;
use crate::{
    cpu::{
        buffer::Buffer,
        ops::{
            columns::{columns, join},
            route::{self, RouteVectors},
            streams,
        },
        pool::Worker,
    },
    graph::{NormKind, NormOp, RowInstr, RowOp, RowProgram, Rows, Src, StreamOp},
};

/// Rows of one item where a program runs over many rows.
pub(super) const ROWS_PER_ITEM: usize = 8;

impl StepContext<'_> {
    /// Runs a program that no linear follows; its results are stored.
    pub(super) fn rows(&self, worker: &Worker<'_>, program: &RowProgram) {
        let n = self.count(program.rows);
        worker.for_each(n.div_ceil(ROWS_PER_ITEM), |item| {
            for row in item * ROWS_PER_ITEM..n.min((item + 1) * ROWS_PER_ITEM) {
                self.run_row(worker, program, row, true);
            }
        });
    }

    /// Runs `program` for one row, results in the worker's scratch; with `store` it also writes those that other stages
    /// read. Call it inside an item.
    pub(super) fn run_row(&self, worker: &Worker<'_>, program: &RowProgram, row: usize, store: bool) {
        let scratch = &self.backend.scratch[worker.index()];
        let token_row = match program.rows {
            Rows::Token => row,
            Rows::Output => self.backend.batch.outputs[row] as usize,
        };
        let mut at = 0;
        for instr in &program.instrs {
            // SAFETY: scratch belongs to this worker; an instruction's result lies behind those of earlier ones.
            let out = unsafe { scratch.slice_mut::<f32>(at, instr.width) };
            let padded = instr.width.next_multiple_of(16);
            // SAFETY: as above, behind the result.
            let work = unsafe { scratch.slice_mut::<f32>(at + padded, instr.scratch_len() - padded) };
            at += instr.scratch_len();
            self.run_instr(program, &instr.op, scratch, (row, token_row), out, work);
            if let (true, Some(value)) = (store, instr.store) {
                // SAFETY: one worker stores a row, and nobody reads the value before the phase ends.
                unsafe { self.row_mut(value, row, instr.width) }.copy_from_slice(out);
            }
        }
    }

    /// The row that `src` names. Call it inside an item, after the program ran for that row.
    pub(super) fn source<'s>(
        &'s self,
        program: &RowProgram,
        src: Src,
        scratch: &'s Buffer,
        row: usize,
        width: usize,
    ) -> &'s [f32] {
        match src {
            Src::Temp(t) => {
                let before = &program.instrs[..t as usize];
                let at = before.iter().map(RowInstr::scratch_len).sum();
                // SAFETY: the result of an earlier instruction, which this worker no longer writes.
                unsafe { scratch.slice(at, width) }
            }
            Src::Value(value) => {
                let slot = self.backend.plan.slot(value);
                let row = match (slot.rows, program.rows) {
                    (Rows::Token, Rows::Output) => self.backend.batch.outputs[row] as usize,
                    _ => row,
                };
                // SAFETY: the planner keeps a stage's inputs apart from its outputs.
                unsafe { self.row(value, row, width) }
            }
        }
    }

    fn run_instr(
        &self,
        program: &RowProgram,
        op: &RowOp,
        scratch: &Buffer,
        (row, token_row): (usize, usize),
        out: &mut [f32],
        work: &mut [f32],
    ) {
        let kernels = self.backend.ops;
        let width = out.len();
        let src = |s: Src| self.source(program, s, scratch, row, width);
        match op {
            RowOp::Embed { table, scale, or_first } => {
                let tensor = self.backend.plan.graph.weight(*table);
                // Ids and shapes were checked; see `admit` and the op's shape rule.
                debug_assert_eq!(tensor.row_len(), width);
                let id = self.backend.batch.tokens[token_row] as usize;
                tensor.decode_row(if *or_first && id >= tensor.rows() { 0 } else { id }, out);
                if *scale != 1.0 {
                    (kernels.scale)(out, *scale);
                }
            }
            RowOp::Norm { src: s, norm } => self.norm(norm, src(*s), out),
            RowOp::Add { a, b } => {
                out.copy_from_slice(src(*a));
                (kernels.add_assign)(out, src(*b));
            }
            RowOp::GatedAct { act, gate, up } => (kernels.gated_act)(*act, src(*gate), src(*up), out),
            RowOp::Act { act, src: s } => (kernels.act)(*act, src(*s), out),
            RowOp::Mul { a, b, group } => {
                out.copy_from_slice(src(*a));
                let b = self.source(program, *b, scratch, row, width / group);
                match group {
                    1 => (kernels.mul_assign)(out, b),
                    _ => out.chunks_exact_mut(*group).zip(b).for_each(|(out, b)| (kernels.scale)(out, *b)),
                }
            }
            RowOp::Streams { a, b, op, widths } => {
                let [a, b] = [(a, 0), (b, 1)].map(|(s, i)| self.source(program, *s, scratch, row, widths[i]));
                match *op {
                    StreamOp::Mix { inputs, offset } => streams::mix(kernels, a, b, inputs, offset, out),
                    StreamOp::MatchRms { floor } => streams::match_rms(kernels, a, b, floor, out),
                    StreamOp::Add => streams::add_repeated(kernels, a, b, out),
                }
            }
            RowOp::Hyper { src: s, op } => {
                let vector = |id| self.vector(Some(id)).unwrap_or_default();
                streams::hyper(op, src(*s), vector(op.scale), vector(op.base), out);
            }
            RowOp::Sparsify { src: s, deviations } => streams::sparsify(src(*s), *deviations, out),
            RowOp::Columns { src: s, period, offset, len } => {
                let x = self.source(program, *s, scratch, row, width / len * period);
                columns(x, [*period, *offset, *len], out);
            }
            RowOp::Join { a, b, lens } => {
                let groups = width / (lens[0] + lens[1]);
                let [a, b] =
                    [(a, lens[0]), (b, lens[1])].map(|(s, len)| self.source(program, *s, scratch, row, groups * len));
                join(a, b, *lens, out);
            }
            RowOp::PositionScale { src: s, scale } => {
                out.copy_from_slice(src(*s));
                (kernels.scale)(out, scale.factor(self.backend.batch.positions[token_row] as usize));
            }
            RowOp::Scale { src: s, factor } => {
                out.copy_from_slice(src(*s));
                (kernels.scale)(out, *factor);
            }
            RowOp::Softcap { src: s, cap } => {
                out.copy_from_slice(src(*s));
                (kernels.softcap)(out, *cap);
            }
            RowOp::Route { src: s, route } => {
                let logits = self.source(program, *s, scratch, row, route.n_experts);
                let token = self.backend.batch.tokens[token_row] as usize;
                let fixed = self.vector(route.table).map(|t| &t[(token * route.k).min(t.len() - route.k)..][..route.k]);
                let (bias, expert_scale) = (self.vector(route.bias), self.vector(route.expert_scale));
                route::route(route, RouteVectors { bias, expert_scale, fixed }, logits, work, out);
            }
            RowOp::ExpertSum { src: s, route, k, weighted } => {
                let y = self.source(program, *s, scratch, row, width * k);
                let weights = &self.source(program, *route, scratch, row, 2 * k)[*k..];
                out.fill(0.0);
                for (y, weight) in y.chunks_exact(width).zip(weights) {
                    (kernels.add_scaled)(out, y, if *weighted { *weight } else { 1.0 });
                }
            }
            RowOp::Copy { src: s } => out.copy_from_slice(src(*s)),
            RowOp::Rope { src: s, rope, head_dim } => {
                out.copy_from_slice(src(*s));
                let (cos, sin) = self.cos_sin(*rope, token_row);
                let spec = &self.backend.plan.graph.ropes()[rope.0 as usize];
                (kernels.rope_heads)(out, *head_dim, spec.first_dim, cos, sin, spec.layout);
            }
        }
    }

    /// Normalises every group of `x` into `out`.
    pub(super) fn norm(&self, norm: &NormOp, x: &[f32], out: &mut [f32]) {
        let (weight, bias) = (self.vector(norm.weight), self.vector(norm.bias));
        for (x, out) in x.chunks_exact(norm.group).zip(out.chunks_exact_mut(norm.group)) {
            match norm.kind {
                NormKind::Rms => (self.backend.ops.rms_norm)(x, weight, norm.weight_offset, norm.eps, out),
                NormKind::None => {
                    let scale = |i: usize| weight.map_or(1.0, |w| w[i] + norm.weight_offset);
                    let shift = |i: usize| bias.map_or(0.0, |b| b[i]);
                    out.iter_mut().zip(x).enumerate().for_each(|(i, (out, x))| *out = x * scale(i) + shift(i));
                }
                NormKind::Layer => (self.backend.ops.layer_norm)(x, weight, norm.weight_offset, bias, norm.eps, out),
            }
        }
    }
}
