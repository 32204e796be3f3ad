//! What attention does to a step's rows before it attends: norms and rotations of heads, keys and values into their
//! pages.

use super::StepContext;
use crate::{
    cpu::{kv::KvRows, pool::Worker},
    graph::{AttentionOp, AttentionStage, CacheId, HeadOp, ValueId},
    step::{KvType, SequenceKv, turn_key},
};

/// Rows of a step whose keys and values are written one by one.
const FEW_ROWS: usize = 16;

impl StepContext<'_> {
    /// One phase: the keys and values of all rows into their pages, queries rotated. An item has one head of some rows,
    /// of one where there are few.
    pub(super) fn write_rows(&self, worker: &Worker<'_>, stage: &AttentionStage) {
        let heads = stage.op.n_kv_heads;
        let group = stage.op.n_heads / heads;
        let n = self.backend.batch.tokens.len();
        let rows = if n <= FEW_ROWS { 1 } else { 4 };
        worker.for_each(n.div_ceil(rows) * heads, |item| {
            let (first, head) = (item / heads * rows, item % heads);
            let scratch = self.attention_scratch(worker, &stage.op);
            for row in first..n.min(first + rows) {
                self.write_head(stage, self.kvs[self.sequence_of(row)], row, head, scratch.key);
                self.rotate_queries(stage, row, head, group);
                if let (0, Some((blocks, cache))) = (head, stage.blocks.zip(stage.op.blocks)) {
                    self.cache_row(row, cache, blocks, None);
                }
            }
        });
    }

    /// Writes heads of `value` (and of a second value, where there is one) as keys (and values) into the entry of
    /// `cache` that `row` completes, if it completes an entry. No other item may write or read that entry in this
    /// phase.
    pub(super) fn cache_row(&self, row: usize, cache: CacheId, key: ValueId, value: Option<ValueId>) {
        let rows = self.backend.kv.rows(&self.backend.book, cache, self.kvs[self.sequence_of(row)]);
        let Some(entry) = rows.entry(self.backend.batch.positions[row] as usize) else { return };
        let spec = &self.backend.plan.graph.caches()[cache.0 as usize];
        for head in 0..spec.n_kv_heads {
            let store = |from: ValueId, dim: usize, to: *mut u8| {
                let (buffer, first, _) = self.place(from, row);
                // SAFETY: values were made in an earlier step, and by the caller's promise the entry is ours.
                unsafe { self.store_cached(buffer.slice(first + head * dim, dim), to) };
            };
            store(key, spec.head_dim, rows.key(head, entry));
            if let Some(value) = value {
                store(value, spec.v_dim, rows.value(head, entry));
            }
        }
    }

    /// The sequence of a row.
    pub(super) fn sequence_of(&self, row: usize) -> usize {
        self.backend.batch.sequences.partition_point(|s| s.first_row + s.n_rows <= row)
    }

    /// Writes the key and value of one head of one row into their pages.
    pub(super) fn write_head(
        &self,
        stage: &AttentionStage,
        kv: &SequenceKv,
        row: usize,
        head: usize,
        scratch: &mut [f32],
    ) {
        let op = &stage.op;
        let rows: KvRows<'_> = self.backend.kv.rows(&self.backend.book, op.cache, kv);
        let position = self.backend.batch.positions[row] as usize;
        let targets = [rows.key(head, position), rows.value(head, position)];
        let parts = if op.shared { 0 } else { 2 - usize::from(op.v_in_k) };
        for (i, (dim, to)) in [op.head_dim, op.v_dim].into_iter().zip(targets).take(parts).enumerate() {
            let (buffer, first, _) = self.place(stage.inputs[1 + i], row);
            // SAFETY: k and v were written in an earlier phase.
            let from = unsafe { buffer.slice::<f32>(first + head * dim, dim) };
            let x = &mut scratch[..dim];
            x.copy_from_slice(from);
            self.head_ops(&stage.head_ops[1 + i], x, dim, row);
            if i == 0 {
                self.even_out(op, head, x);
            }
            // SAFETY: only this item writes the row, and it is read later or by this item alone.
            unsafe { self.store_cached(x, to) };
        }
    }

    /// Takes its centre from a key and turns it, where keys lie in blocks: see [`KvType`].
    fn even_out(&self, op: &AttentionOp, head: usize, key: &mut [f32]) {
        if let Some(centre) = self.backend.key_centres[op.cache.0 as usize].get(head * key.len()..) {
            key.iter_mut().zip(centre).for_each(|(x, c)| *x -= c);
        }
        if self.backend.book.kv_type().turns_keys(op.v_in_k, op.rotate_on_read.is_some()) {
            turn_key(key);
        }
    }

    /// Writes a row of a cache.
    ///
    /// # Safety
    /// `to` must be a row of as many elements as `x`, which nobody else uses.
    pub(super) unsafe fn store_cached(&self, x: &[f32], to: *mut u8) {
        match self.backend.book.kv_type() {
            KvType::F16 => {
                // SAFETY: the caller's promise.
                let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u16>(), x.len()) };
                (self.backend.ops.f32_to_f16)(x, to);
            }
            KvType::F32 => {
                // SAFETY: as above, with floats.
                unsafe { std::slice::from_raw_parts_mut(to.cast::<f32>(), x.len()) }.copy_from_slice(x);
            }
            kv @ KvType::Q8_0 => {
                // SAFETY: as above.
                let to = unsafe { std::slice::from_raw_parts_mut(to, kv.row_bytes(x.len())) };
                (self.backend.ops.store_blocks)(x, to);
            }
        }
    }

    /// Normalises and rotates the queries of one key/value head's group in place.
    fn rotate_queries(&self, stage: &AttentionStage, row: usize, head: usize, group: usize) {
        let ops = &stage.head_ops[0];
        let dim = stage.op.head_dim;
        if !ops.is_empty() {
            let (buffer, first, _) = self.place(stage.inputs[0], row);
            // SAFETY: the planner made sure that nothing else reads these rows; a group belongs to one item.
            let q = unsafe { buffer.slice_mut::<f32>(first + head * group * dim, group * dim) };
            self.head_ops(ops, q, dim, row);
        }
    }

    /// Applies norms, rotations and factors to consecutive heads of a row.
    pub(super) fn head_ops(&self, ops: &[HeadOp], x: &mut [f32], dim: usize, row: usize) {
        for op in ops {
            match op {
                HeadOp::Norm(norm) => {
                    let weight = self.vector(norm.weight);
                    for head in x.chunks_exact_mut(dim) {
                        (self.backend.ops.rms_norm_in_place)(head, weight, norm.weight_offset, norm.eps);
                    }
                }
                HeadOp::Rope(rope) => {
                    let (cos, sin) = self.cos_sin(*rope, row);
                    let spec = &self.backend.plan.graph.ropes()[rope.0 as usize];
                    (self.backend.ops.rope_heads)(x, dim, spec.first_dim, cos, sin, spec.layout);
                }
                HeadOp::PositionScale(scale) => {
                    (self.backend.ops.scale)(x, scale.factor(self.backend.batch.positions[row] as usize));
                }
            }
        }
    }
}
