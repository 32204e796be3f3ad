//! Linears: the bindings of their weights, and gated activations that their kernels apply.

use super::{
    Draft, Lowering, StageDraft,
    calls::{Flops, When},
};
use crate::{
    format::ScaleType,
    gpu::{
        GpuError,
        exec::arena::Source,
        ops::linear::{self, HeadCall, InputNorm, LinearCall, LinearPart, PartScales},
    },
    graph::{
        Act, Device, HeadLinearOp, LinearStage, NormKind, ResidualSum, RowInstr, RowOp, Src, StageKind, ValueId,
        WeightId,
    },
};

impl Lowering<'_> {
    /// A linear stage's calls. With `gated` they apply the activation that follows; with `sum` they make the sum that
    /// follows, and write only the sum.
    pub(super) fn linear(
        &mut self,
        stage: &LinearStage,
        gated: Option<Act>,
        sum: Option<ResidualSum>,
    ) -> Result<StageDraft, GpuError> {
        let rows = stage.prologue.rows;
        let prologue = self.program(&stage.prologue, Some(stage.input))?;
        let input = self.source(&stage.prologue, stage.input);
        let norm = self.input_norm(stage);
        let mut variants: Vec<(When, Vec<Draft>)> = Vec::new();
        let bound = match &stage.heads {
            Some(heads) => vec![self.heads_binding(stage, heads)?],
            None => self.bindings_of(stage)?,
        };
        let mut calls = Vec::new();
        let residual = sum.map(|s| self.value(s.added));
        for (source, mut parts) in bound {
            // The binding shows the only part, or rows of it.
            parts.iter_mut().zip(sum).for_each(|(part, s)| part.out = self.value(s.sum));
            let heads = stage.heads.map(|h| HeadCall {
                heads: h.heads as u32,
                bytes: (h.period * self.plan.graph.weight(h.weight).row_bytes()) as u64,
                transposed: h.transposed,
            });
            let k = stage.k as u32;
            calls.push((source, LinearCall { input, k, parts, rows, residual, gated, norm, heads }));
        }
        // The norm is folded into all calls, or into none.
        let folds = calls.iter().all(|(_, call)| linear::folds(&self.linear_caps, call));
        for (source, call) in calls {
            let call = LinearCall { norm: norm.filter(|_| folds), ..call };
            let made = linear::dispatches(&self.linear_caps, &call)?;
            for (i, variant) in made.into_iter().enumerate() {
                let draft = self.draft(variant.dispatch, &[source]);
                if let Some((_, all)) = variants.get_mut(i) {
                    all.push(draft);
                    continue;
                }
                let mut all = if folds && !variant.folded { prologue.clone() } else { Vec::new() };
                all.push(draft);
                let when = if variant.generated { When::Generated } else { When::RowsUpTo };
                variants.push((when(variant.max_rows), all));
            }
        }
        let before = if folds { Vec::new() } else { prologue };
        let weights = stage.parts.iter().map(|p| self.plan.graph.weight(p.weight));
        let flops = Flops::per_row(match &stage.heads {
            Some(h) => 2 * (h.heads * h.input * h.output) as u64,
            None => weights.map(|w| 2 * (w.rows() * w.row_len()) as u64).sum(),
        });
        Ok(StageDraft { rows, flops, gated, sum, before, variants })
    }

    /// The sum behind stage `i` that its kernel can make. Kernels add to their first part alone, so each dispatch must
    /// have a single part: the stage's only one, or rows of it.
    pub(super) fn sum_with_next(&self, i: usize, stage: &LinearStage) -> Result<Option<ResidualSum>, GpuError> {
        let next = self.plan.stages.get(i + 1).filter(|s| s.device == Device::Gpu);
        let Some(sum) = self.sums[i].filter(|_| next.is_some()) else { return Ok(None) };
        let single = self.bindings_of(stage)?.iter().all(|(_, parts)| parts.len() == 1);
        Ok(single.then_some(sum))
    }

    /// The norm that makes the input, where the prologue has no other instruction.
    fn input_norm(&self, stage: &LinearStage) -> Option<InputNorm> {
        let [RowInstr { op: RowOp::Norm { src, norm }, store: None, .. }] = &stage.prologue.instrs[..] else {
            return None;
        };
        let scale = self.vector_at[norm.weight?.0 as usize];
        let plain = norm.kind == NormKind::Rms && norm.bias.is_none() && norm.group == stage.k;
        (plain && stage.input == Src::Temp(0)).then(|| InputNorm {
            input: self.source(&stage.prologue, *src),
            scale,
            offset: norm.weight_offset,
            eps: norm.eps,
        })
    }

    /// The gated activation that stage `i`'s kernel can apply to its two outputs, and the first of them, whose place
    /// gets the result. The next stage must begin with it, nothing else may read the outputs, and one binding must show
    /// both weights.
    pub(super) fn gated_with_next(&self, i: usize, stage: &LinearStage) -> Result<Option<(Act, ValueId)>, GpuError> {
        let [a, b] = &stage.parts[..] else { return Ok(None) };
        let next = self.plan.stages.get(i + 1).filter(|s| s.device == Device::Gpu);
        let Some(StageKind::Linear(next)) = next.map(|s| &s.kind) else { return Ok(None) };
        let first = next.prologue.instrs.first();
        let Some(RowInstr { op: RowOp::GatedAct { act, gate, up }, store: None, .. }) = first else { return Ok(None) };
        let readers =
            |v: ValueId| self.plan.stages.iter().flat_map(|s| s.kind.reads_and_writes().0).filter(move |r| *r == v);
        let fits = *gate == Src::Value(a.output)
            && *up == Src::Value(b.output)
            && readers(a.output).chain(readers(b.output)).count() == 2
            && next.prologue.rows == stage.prologue.rows;
        if !fits {
            return Ok(None);
        }
        let groups = self.bindings_of(stage)?;
        let whole = groups.len() == 1 && groups[0].1.len() == 2 && groups[0].1[0].rows == groups[0].1[1].rows;
        Ok(whole.then_some((*act, a.output)))
    }

    /// The scales of rows `first..` of a weight, which lie among the vectors.
    pub(super) fn scales(&self, id: WeightId, first: u32) -> Option<PartScales> {
        let tensor = self.plan.graph.weight(id);
        let s = tensor.scales().filter(|s| s.dtype == ScaleType::F32)?;
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let block = [size(s.block[0]), size(s.block[1])];
        Some(PartScales { at: self.vector_at[id.0 as usize], first_row: size(s.first_row) + first, block, each: 0 })
    }

    /// The binding that shows all matrices of a head linear, and the first of them.
    fn heads_binding(&self, stage: &LinearStage, h: &HeadLinearOp) -> Result<(Source, Vec<LinearPart>), GpuError> {
        let tensor = self.plan.graph.weight(h.weight);
        let windows = self.windows(h.weight, 0..tensor.rows() as u32)?;
        let [window] = &windows[..] else {
            let name = self.plan.graph.weight_name(h.weight).to_owned();
            let why = "no binding holds the matrices of all heads".to_owned();
            return Err(GpuError::Unsupported { op: "head_linear", name, why });
        };
        let row_bytes = tensor.row_bytes() as u64;
        let part = LinearPart {
            dtype: tensor.dtype(),
            rows: h.output as u32,
            out: self.value(stage.parts[0].output),
            out_first: 0,
            bias: None,
            weight_byte: window.byte + h.first as u64 * row_bytes,
            row_bytes,
            scales: self.scales(h.weight, h.first as u32),
        };
        Ok((window.source, vec![part]))
    }

    /// The parts of a stage by the binding that shows their weights. There are as few groups as possible; parts are cut
    /// by rows where no binding holds them.
    fn bindings_of(&self, stage: &LinearStage) -> Result<Vec<(Source, Vec<LinearPart>)>, GpuError> {
        let mut windows = Vec::new();
        for part in &stage.parts {
            let tensor = self.plan.graph.weight(part.weight);
            for window in self.windows(part.weight, 0..tensor.rows() as u32)? {
                windows.push((part, window));
            }
        }
        let mut groups: Vec<(Source, Vec<LinearPart>)> = Vec::new();
        for (part, window) in windows {
            let tensor = self.plan.graph.weight(part.weight);
            let Source::Weights { buffer, offset, len } = window.source else { continue };
            let make = |byte: u64| LinearPart {
                dtype: tensor.dtype(),
                rows: window.rows.len() as u32,
                out: self.value(part.output),
                out_first: window.rows.start,
                bias: part.bias.map(|b| self.vector_at[b.0 as usize] + window.rows.start),
                weight_byte: byte,
                row_bytes: tensor.row_bytes() as u64,
                scales: self.scales(part.weight, window.rows.start),
            };
            if let Some((Source::Weights { buffer: b, offset: o, len: l }, parts)) = groups.last_mut()
                && *b == buffer
                && parts.len() < linear::MAX_PARTS
            {
                let first = offset.min(*o);
                let end = (offset + len).max(*o + *l);
                if end - first <= self.gpu.caps().max_binding {
                    for p in parts.iter_mut() {
                        p.weight_byte += *o - first;
                    }
                    parts.push(make(offset + window.byte - first));
                    (*o, *l) = (first, end - first);
                    continue;
                }
            }
            groups.push((window.source, vec![make(window.byte)]));
        }
        Ok(groups)
    }
}
