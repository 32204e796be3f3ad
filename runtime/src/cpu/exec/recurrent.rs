//! Stages with a per-sequence state: convolutions over a few tokens, and the gated delta rule. A sequence's tokens run
//! one after the other; channels and columns are independent, so the workers share them.

use std::collections::HashSet;

use super::StepContext;
use crate::{
    cpu::{
        ops::{
            gated_delta::{BLOCK, GatedDeltaItem},
            short_conv::ShortConvItem,
        },
        pool::Worker,
    },
    graph::{GatedDeltaStage, Plan, ShortConvStage, StageKind, StateId},
    step::SequenceRows,
};

/// Transposes the taps of convolutions, by weight, from a row a channel to a row a tap, because vectors go over
/// channels.
pub(super) fn turn_taps(plan: &Plan, vectors: &mut [Vec<f32>]) {
    let mut turned = HashSet::new();
    for stage in &plan.stages {
        if let StageKind::ShortConv(conv) = &stage.kind
            && turned.insert(conv.op.weight)
        {
            let (taps, vector) = (conv.op.taps, &mut vectors[conv.op.weight.0 as usize]);
            let width = vector.len() / taps;
            *vector = (0..vector.len()).map(|i| vector[i % width * taps + i / width]).collect();
        }
    }
}

/// Channels of an item: a few cache lines of each row.
const CHANNELS: usize = 128;

impl StepContext<'_> {
    pub(super) fn short_conv(&self, worker: &Worker<'_>, stage: &ShortConvStage) {
        let sequences = &self.backend.batch.sequences;
        let width = self.backend.plan.slot(stage.input).width;
        let items = width.div_ceil(CHANNELS);
        let taps = stage.op.taps;
        worker.for_each(sequences.len() * items, |item| {
            let (seq, c) = (&sequences[item / items], item % items * CHANNELS);
            if seq.n_rows == 0 {
                return;
            }
            let n_channels = CHANNELS.min(width - c);
            let (from, to) = self.state(stage.op.state, seq);
            let at = |p: *const f32| if p.is_null() { p } else { p.wrapping_add(c) };
            let (x, x_stride) = self.rows_at(stage.input, seq, c, n_channels);
            let (out, out_stride) = self.rows_at(stage.output, seq, c, n_channels);
            let weight = &self.backend.vectors[stage.op.weight.0 as usize];
            let item = ShortConvItem {
                n_channels,
                taps,
                n_tokens: seq.n_rows,
                weight: weight[c..].as_ptr(),
                x,
                x_stride,
                out,
                out_stride,
                from: at(from),
                to: to.wrapping_add(c),
                stride: width,
            };
            // SAFETY: `rows_at` and `state` have checked the places; inputs were written in an earlier phase, and this
            // item alone writes these channels of the results and of the sequence's state.
            unsafe { (self.backend.ops.short_conv)(&item) };
        });
    }

    pub(super) fn gated_delta(&self, worker: &Worker<'_>, stage: &GatedDeltaStage) {
        let op = &stage.op;
        let sequences = &self.backend.batch.sequences;
        let blocks = op.v_dim.div_ceil(BLOCK);
        let vector = |id: crate::graph::WeightId| &self.backend.vectors[id.0 as usize][..];
        worker.for_each(sequences.len() * op.n_v_heads * blocks, |item| {
            let (s, head, block) = (item / blocks / op.n_v_heads, item / blocks % op.n_v_heads, item % blocks);
            let seq = &sequences[s];
            if seq.n_rows == 0 {
                return;
            }
            let column = block * BLOCK;
            let n_columns = BLOCK.min(op.v_dim - column);
            let place = (head * op.v_dim + column) * op.k_dim;
            let (from, to) = self.state(op.state, seq);
            let keys = op.n_k_heads * op.k_dim;
            let key = op.key_head(head) * op.k_dim;
            let (q, stride) = self.rows_at(stage.inputs[0], seq, key, op.k_dim);
            let (k, _) = self.rows_at(stage.inputs[0], seq, keys + key, op.k_dim);
            let (v, _) = self.rows_at(stage.inputs[0], seq, 2 * keys + head * op.v_dim + column, n_columns);
            let (b, b_stride) = self.rows_at(stage.inputs[1], seq, head, 1);
            let (a, a_stride) = self.rows_at(stage.inputs[2], seq, head, 1);
            let (out, out_stride) = self.rows_at(stage.output, seq, head * op.v_dim + column, n_columns);
            let decay = vector(op.decay)[head];
            let item = GatedDeltaItem {
                k_dim: op.k_dim,
                n_columns,
                n_tokens: seq.n_rows,
                q,
                k,
                v,
                stride,
                b,
                a,
                b_stride,
                a_stride,
                decay: if op.decay_log { -decay.exp() } else { decay },
                dt_bias: vector(op.dt_bias)[head],
                from: if from.is_null() { from } else { from.wrapping_add(place) },
                to: to.wrapping_add(place),
                out,
                out_stride,
            };
            // SAFETY: `rows_at` and `state` have checked the places; inputs were written in earlier phases, and this
            // item alone writes these columns of the results and of the sequence's state.
            unsafe { (self.backend.ops.gated_delta)(&item) };
        });
    }

    /// Where the kernel reads the sequence's state (null: zeroes), and where it writes it.
    fn state(&self, id: StateId, seq: &SequenceRows) -> (*const f32, *mut f32) {
        let elements = self.backend.plan.graph.states()[id.0 as usize].elements;
        let rows = self.backend.states.rows(&self.backend.book, id, elements, seq.state);
        (rows.from, rows.to)
    }

    /// Address of element `first` of the sequence's first row of a value, checked to have `len` elements in every row of
    /// the sequence, and the elements from one row to the next.
    fn rows_at(&self, value: crate::graph::ValueId, seq: &SequenceRows, first: usize, len: usize) -> (*mut f32, usize) {
        let (buffer, start, stride) = self.place(value, seq.first_row);
        (buffer.element::<f32>(start + first, (seq.n_rows - 1) * stride + len), stride)
    }
}
