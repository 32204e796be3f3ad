//! Experts stages: the bindings of each expert's weights.

use std::ops::Range;

use super::{
    Draft, Lowering, StageDraft,
    calls::{Flops, When},
};
use crate::{
    gpu::{
        GpuError,
        exec::arena::Source,
        ops::{
            experts::{self, ExpertCall},
            linear::{LinearCall, LinearPart, PartScales},
        },
        weights::{WeightPlace, device_format},
    },
    graph::{ExpertPart, ExpertStage, Src},
};

/// Some rows of some experts, as one binding shows them.
struct Shown {
    source: Source,
    rows: Range<u32>,
    bytes: Vec<Option<u32>>,
}

impl Lowering<'_> {
    pub(super) fn experts(&mut self, stage: &ExpertStage) -> Result<StageDraft, GpuError> {
        let rows = stage.prologue.rows;
        let before = self.program(&stage.prologue, Some(stage.input))?;
        let input = self.source(&stage.prologue, stage.input);
        let route = self.source(&stage.prologue, stage.route);
        let (mut few, mut many): (Vec<Draft>, Vec<Draft>) = (Vec::new(), Vec::new());
        let mut sorted = false;
        for part in &stage.parts {
            for shown in self.expert_bindings(stage, part)? {
                let tensor = self.plan.graph.weight(part.op.experts[0]);
                let (dtype, row_bytes) = device_format(tensor);
                let linear = LinearPart {
                    dtype,
                    rows: shown.rows.len() as u32,
                    out: self.value(part.output),
                    out_first: shown.rows.start,
                    bias: part.op.bias.map(|b| self.vector_at[b.0 as usize]),
                    weight_byte: 0,
                    row_bytes,
                    scales: self.expert_scales(part, shown.rows.start)?,
                };
                let k = stage.k as u32;
                let call = ExpertCall {
                    linear: LinearCall {
                        norm: None,
                        input,
                        k,
                        parts: vec![linear],
                        rows,
                        residual: None,
                        gated: None,
                        heads: None,
                    },
                    route,
                    slots: stage.slots as u32,
                    per_slot: stage.per_slot,
                    out: part.out as u32,
                    scaled: part.op.scaled,
                    input_major: part.op.input_major,
                    bytes: shown.bytes,
                };
                let made = experts::dispatches(&self.linear_caps, &call)?;
                sorted |= made.many.is_some();
                let of_many = made.many.unwrap_or_else(|| made.few.clone());
                let draft = self.draft(of_many, &[shown.source, Source::Pairs]);
                many.push(draft);
                let draft = self.draft(made.few, &[shown.source]);
                few.push(draft);
            }
        }
        let variants = if sorted {
            let value = match stage.route {
                Src::Value(v) => Some(v),
                Src::Temp(t) => stage.prologue.instrs[usize::from(t)].store,
            };
            // The experts before may have had the same route, whose pairs are then still there.
            if value.is_none() || self.sorted != value {
                let sort = experts::sort(&self.linear_caps, route, stage.slots as u32, stage.n_experts, rows)?;
                let sort = self.draft(sort, &[Source::Pairs]);
                many.insert(0, sort);
                self.sorted = value;
            }
            vec![(When::Generated(u32::MAX), few), (When::Always, many)]
        } else {
            vec![(When::Always, few)]
        };
        let flops = |part: &ExpertPart| 2 * (stage.slots * part.out * stage.k) as u64;
        let flops = Flops::per_row(stage.parts.iter().map(flops).sum());
        Ok(StageDraft { variants, ..StageDraft::of(rows, flops, before) })
    }

    /// f32 scales of a part's experts, which lie at equal distances among the vectors.
    fn expert_scales(&self, part: &ExpertPart, first: u32) -> Result<Option<PartScales>, GpuError> {
        let experts = &part.op.experts;
        let first_of = |e: usize| self.scales(experts[e], first);
        let Some(scales) = first_of(0) else { return Ok(None) };
        let each = if experts.len() > 1 { first_of(1).map_or(0, |s| s.at.wrapping_sub(scales.at)) } else { 0 };
        let fits = |e: usize| {
            let expected = scales.at.wrapping_add(each.wrapping_mul(e as u32));
            first_of(e) == Some(PartScales { at: expected, ..scales })
        };
        if !(0..experts.len()).all(fits) {
            let name = self.plan.graph.weight_name(experts[0]).to_owned();
            let why = "its experts' scales are of several kinds".to_owned();
            return Err(GpuError::Unsupported { op: "expert_linear", name, why });
        }
        Ok(Some(PartScales { each, ..scales }))
    }

    /// The experts of a part by the bindings that show them; experts are cut by rows where no binding holds a whole
    /// one.
    fn expert_bindings(&self, stage: &ExpertStage, part: &ExpertPart) -> Result<Vec<Shown>, GpuError> {
        let graph = &self.plan.graph;
        let unsupported = |e: usize, why: String| GpuError::Unsupported {
            op: "expert_linear",
            name: graph.weight_name(part.op.experts[e]).to_owned(),
            why,
        };
        let (_, row_bytes) = device_format(graph.weight(part.op.experts[0]));
        let align = self.gpu.caps().storage_alignment;
        let most = self.gpu.caps().max_binding.min(u64::from(u32::MAX)) / align * align;
        // Columns cannot be cut: a row has all of them.
        let all = if part.op.input_major { stage.k as u64 } else { part.out as u64 };
        let per = (most - align).checked_div(row_bytes).unwrap_or(all).min(all);
        if per == 0 || part.op.input_major && per < all {
            return Err(unsupported(0, format!("a matrix of {} bytes is longer than a binding", all * row_bytes)));
        }
        // Experts are of one shape, so all are cut at the same rows as the first.
        let cuts = self.weights.places(part.op.experts[0]).iter().map(|p| p.rows.start as u64..p.rows.end as u64);
        let cuts =
            cuts.flat_map(|c| (c.start..c.end).step_by(per as usize).map(move |first| first..c.end.min(first + per)));
        let cuts: Vec<Range<u64>> = cuts.collect();
        if part.op.input_major && cuts.len() > 1 {
            return Err(unsupported(0, format!("a matrix of {} bytes is longer than a buffer", all * row_bytes)));
        }
        let mut shown = Vec::new();
        for rows in cuts {
            let len = (rows.end - rows.start) * row_bytes;
            // As many experts at once as are adjacent in one binding.
            let mut windows: Vec<(usize, u64, u64, Vec<Option<u64>>)> = Vec::new();
            for (e, id) in part.op.experts.iter().enumerate() {
                let holds = |p: &&WeightPlace| p.rows.start as u64 <= rows.start && rows.end <= p.rows.end as u64;
                let place = self.weights.places(*id).iter().find(holds);
                let place = place.ok_or_else(|| unsupported(e, "the weight is not on the device".to_owned()))?;
                let start = place.byte + (rows.start - place.rows.start as u64) * row_bytes;
                let fits = |w: &&mut (usize, u64, u64, _)| {
                    let (from, to) = (w.1.min(start) / align * align, w.2.max(start + len));
                    w.0 == place.buffer && (to - from).next_multiple_of(4) <= most
                };
                match windows.iter_mut().find(fits) {
                    Some((_, from, to, at)) => {
                        (*from, *to) = ((*from).min(start), (*to).max(start + len));
                        at[e] = Some(start);
                    }
                    None => {
                        let mut at = vec![None; part.op.experts.len()];
                        at[e] = Some(start);
                        windows.push((place.buffer, start, start + len, at));
                    }
                }
            }
            for (buffer, from, to, at) in windows {
                let offset = from / align * align;
                let source = Source::Weights { buffer, offset, len: (to - offset).next_multiple_of(4) };
                let bytes = at.into_iter().map(|b| b.map(|b| (b - offset) as u32)).collect();
                let rows = match part.op.input_major {
                    true => 0..part.out as u32,
                    false => rows.start as u32..rows.end as u32,
                };
                shown.push(Shown { source, rows, bytes });
            }
        }
        Ok(shown)
    }
}
