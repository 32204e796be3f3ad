//! Attention stages: per-head norms and rotations, keys and values into their pages, then attention over the pages.
//!
//! A sequence with one row takes the decode kernel, one with more rows the prompt kernel, whatever the other sequences
//! of the step are. Where every sequence has one row and few pieces of keys, the stage is one phase: the worker that
//! claims a key/value head writes its key and value and then attends. All other steps write in a first phase and attend
//! in a second one: prompts tile by tile, short sequences head by head, long ones piece by piece. Where there are long
//! ones, a third phase joins their pieces.

use super::StepContext;
use crate::{
    cpu::{
        buffer::Buffer,
        ops::attention::{AttentionParams, DecodeItem, KeyRope, PIECE, PromptItem},
        pool::Worker,
    },
    graph::{AttentionOp, AttentionStage, ValueId},
    step::SequenceRows,
};

/// The kernels' view of an op.
pub(super) fn params<'a>(
    op: &AttentionOp,
    sinks: Option<&'a [f32]>,
    k_rope: Option<KeyRope<'a>>,
) -> AttentionParams<'a> {
    let share = share(op);
    AttentionParams {
        n_heads: op.n_heads,
        n_kv_heads: op.n_kv_heads * share,
        share,
        head_dim: op.head_dim,
        v_dim: op.v_dim,
        scale: op.scale,
        softcap: op.softcap,
        window: op.window,
        chunk: op.chunk,
        sinks,
        causal: true,
        k_rope,
        v_in_k: op.v_in_k,
    }
}

/// Query heads of one item, at most, where more of them share a key/value head.
const MOST_HEADS: usize = 8;

/// Parts into which the query heads of a key/value head are cut.
fn share(op: &AttentionOp) -> usize {
    let group = op.n_heads / op.n_kv_heads;
    if group <= MOST_HEADS {
        return 1;
    }
    let own = (1..=MOST_HEADS).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1);
    group / own
}

/// Elements of scratch that a worker needs: a row of queries, a key, a partial result, and the kernels' own.
pub(super) fn scratch_len(op: &AttentionOp) -> usize {
    let p = params(op, None, None);
    query_len(op) + key_len(op) + partials_len(op) + p.scratch_len()
}

/// Pieces at most that one item does where it does all of a sequence: two further phases cost as much as these.
const WHOLE_PIECES: usize = 4;

/// Elements of an item's partial results at a time: of a short sequence's pieces; where keys are listed, of one piece
/// and of all pieces before it.
fn partials_len(op: &AttentionOp) -> usize {
    const { assert!(WHOLE_PIECES >= 2) };
    (WHOLE_PIECES * params(op, None, None).partial_len()).next_multiple_of(16)
}

fn query_len(op: &AttentionOp) -> usize {
    (op.n_heads * op.head_dim).next_multiple_of(16)
}

fn key_len(op: &AttentionOp) -> usize {
    op.head_dim.max(op.v_dim).next_multiple_of(16)
}

/// The items of each key/value head that a sequence takes.
#[derive(Clone, Copy)]
enum Share {
    Nothing,
    /// One item from queries to results.
    Whole,
    /// As many pieces of keys.
    Pieces(usize),
    /// As many tiles of queries.
    Tiles(usize),
}

impl Share {
    fn tiles(self) -> usize {
        if let Share::Tiles(n) = self { n } else { 0 }
    }

    /// Items of the decode kernel.
    fn parts(self) -> usize {
        match self {
            Share::Nothing | Share::Tiles(_) => 0,
            Share::Whole => 1,
            Share::Pieces(n) => n,
        }
    }
}

/// The sequence that item `left` belongs to, and the item's number among the sequence's.
fn find(items: impl Iterator<Item = usize>, mut left: usize) -> (usize, usize) {
    let mut s = 0;
    for n in items {
        if left < n {
            break;
        }
        left -= n;
        s += 1;
    }
    (s, left)
}

/// A worker's scratch in its parts.
pub(super) struct Scratch<'a> {
    query: &'a mut [f32],
    pub key: &'a mut [f32],
    partial: &'a mut [f32],
    kernel: &'a mut [f32],
}

impl StepContext<'_> {
    pub(super) fn attention(&self, worker: &Worker<'_>, stage: &AttentionStage) {
        if stage.selected.is_some() || stage.blocks.is_some() {
            return self.listed(worker, stage);
        }
        let whole = |s: &SequenceRows| matches!(self.share_of(stage, s), Share::Nothing | Share::Whole);
        if share(&stage.op) == 1 && self.backend.batch.sequences.iter().all(whole) {
            self.decode_at_once(worker, stage);
        } else {
            self.write_and_attend(worker, stage);
        }
    }

    /// The items that a sequence takes.
    fn share_of(&self, stage: &AttentionStage, seq: &SequenceRows) -> Share {
        let params = params(&stage.op, None, None);
        match seq.n_rows {
            0 => Share::Nothing,
            1 => match params.pieces(seq.cached - 1, seq.cached).len() {
                0..=WHOLE_PIECES => Share::Whole,
                n => Share::Pieces(n),
            },
            n => Share::Tiles(params.prompt_tiles(n)),
        }
    }

    /// One phase: an item takes one key/value head of one sequence from its key's rotation to its result.
    fn decode_at_once(&self, worker: &Worker<'_>, stage: &AttentionStage) {
        let heads = stage.op.n_kv_heads;
        let group = stage.op.n_heads / heads;
        worker.for_each(self.backend.batch.sequences.len() * heads, |item| {
            let (s, head) = (item / heads, item % heads);
            let (seq, kv) = (self.backend.batch.sequences[s], self.kvs[s]);
            if seq.n_rows == 0 {
                return;
            }
            let scratch = self.attention_scratch(worker, &stage.op);
            self.write_head(stage, kv, seq.first_row, head, scratch.key);
            // A copy, because other items may be rotating their heads of the row. Only this group's elements are filled
            // in.
            let own = head * group * stage.op.head_dim..(head + 1) * group * stage.op.head_dim;
            let (buffer, first, _) = self.place(stage.inputs[0], seq.first_row);
            // SAFETY: q was written in an earlier phase, and in this one nobody writes it.
            let from = unsafe { buffer.slice::<f32>(first + own.start, own.len()) };
            scratch.query[own.clone()].copy_from_slice(from);
            self.head_ops(&stage.head_ops[0], &mut scratch.query[own], stage.op.head_dim, seq.first_row);
            // SAFETY: the one key and value of this head that this step writes were written just now, by this item.
            unsafe { self.decode_whole(stage, s, head, scratch.query, scratch.partial, scratch.kernel) };
        });
    }

    /// One head of a sequence with one row and few pieces, from its queries to its result.
    ///
    /// # Safety
    /// Nobody writes the sequence's keys and values of this head meanwhile.
    unsafe fn decode_whole(
        &self,
        stage: &AttentionStage,
        s: usize,
        head: usize,
        q: &[f32],
        partials: &mut [f32],
        scratch: &mut [f32],
    ) {
        let seq = self.backend.batch.sequences[s];
        let params = self.params(stage, &seq);
        let pages = self.backend.kv.pages(&self.backend.book, stage.op.cache, self.kvs[s]);
        let position = seq.cached - 1;
        let pieces = params.pieces(position, seq.cached);
        // A token that sees nothing has one empty piece.
        let n = pieces.len().max(1);
        let partials = &mut partials[..n * params.partial_len()];
        for (piece, partial) in (pieces.start..).zip(partials.chunks_exact_mut(params.partial_len())) {
            let item = DecodeItem { params: &params, kv: &pages, kv_head: head, q, position, piece, keys: None };
            // SAFETY: the caller's promise.
            unsafe { (self.backend.ops.attention_decode)(&item, scratch, partial) };
        }
        self.merge(stage, &params, seq.first_row, head, partials);
    }

    /// Two phases, or three where sequences have many pieces: write all keys and values, attend, join pieces.
    fn write_and_attend(&self, worker: &Worker<'_>, stage: &AttentionStage) {
        self.write_rows(worker, stage);
        let sequences = &self.backend.batch.sequences;
        let p = params(&stage.op, None, None);
        let (heads, partial_len) = (p.n_kv_heads, p.partial_len());
        let shares = || sequences.iter().map(|seq| self.share_of(stage, seq));
        let tiles: usize = shares().map(Share::tiles).sum();
        let (parts, most) = shares().map(Share::parts).fold((0, 0), |(sum, most), n| (sum + n, n.max(most)));
        // Place of a head's partial results.
        let place = |s: usize, head: usize, piece: usize| ((s * heads + head) * most + piece) * partial_len;
        // Tiles take longest, and so they come first; the last tiles of a sequence see most keys.
        worker.for_each((tiles + parts) * heads, |item| {
            let scratch = self.attention_scratch(worker, &stage.op);
            let (item, head) = (item / heads, item % heads);
            if let Some(left) = tiles.checked_sub(item + 1) {
                let (s, tile) = find(shares().map(Share::tiles), left);
                return self.prompt_tile(stage, s, head, tile, scratch.kernel);
            }
            let (s, piece) = find(shares().map(Share::parts), item - tiles);
            let seq = sequences[s];
            let q = self.query_rows(stage.inputs[0], seq.first_row, 1);
            if let Share::Whole = self.share_of(stage, &seq) {
                // SAFETY: keys and values were written in the phase before.
                return unsafe { self.decode_whole(stage, s, head, q, scratch.partial, scratch.kernel) };
            }
            let params = self.params(stage, &seq);
            let pages = self.backend.kv.pages(&self.backend.book, stage.op.cache, self.kvs[s]);
            let position = seq.cached - 1;
            // SAFETY: this item alone writes its partial result.
            let partial = unsafe { self.backend.partials.slice_mut::<f32>(place(s, head, piece), partial_len) };
            let piece = params.pieces(position, seq.cached).start + piece;
            let decode = DecodeItem { params: &params, kv: &pages, kv_head: head, q, position, piece, keys: None };
            // SAFETY: keys and values were written in the phase before.
            unsafe { (self.backend.ops.attention_decode)(&decode, scratch.kernel, partial) };
        });
        if most <= 1 {
            return;
        }
        worker.for_each(sequences.len() * heads, |item| {
            let (s, head) = (item / heads, item % heads);
            if let Share::Pieces(n) = self.share_of(stage, &sequences[s]) {
                let params = self.params(stage, &sequences[s]);
                // SAFETY: written in the phase before.
                let partials = unsafe { self.backend.partials.slice::<f32>(place(s, head, 0), n * partial_len) };
                self.merge(stage, &params, sequences[s].first_row, head, partials);
            }
        });
    }

    /// One tile of one head of a sequence with several rows.
    fn prompt_tile(&self, stage: &AttentionStage, s: usize, head: usize, tile: usize, scratch: &mut [f32]) {
        let seq = self.backend.batch.sequences[s];
        let params = self.params(stage, &seq);
        let pages = self.backend.kv.pages(&self.backend.book, stage.op.cache, self.kvs[s]);
        let (_, _, q_stride) = self.place(stage.inputs[0], 0);
        let (out, out_first, out_stride) = self.place(stage.output, seq.first_row);
        let width = stage.op.n_heads * stage.op.v_dim;
        let item = PromptItem {
            params: &params,
            kv: &pages,
            kv_head: head,
            tile,
            q: self.query_rows(stage.inputs[0], seq.first_row, seq.n_rows),
            q_stride,
            out: out.element::<f32>(out_first, (seq.n_rows - 1) * out_stride + width),
            out_stride,
            n_tokens: seq.n_rows,
            first_position: seq.cached - seq.n_rows,
        };
        // SAFETY: keys and values were written in the phase before; this item alone writes its tile's heads.
        unsafe { (self.backend.ops.attention_prompt)(&item, scratch) };
    }

    /// Two phases: write all keys and values, then each row attends to the keys within its window and to those of
    /// blocks, or to those that were chosen for it.
    fn listed(&self, worker: &Worker<'_>, stage: &AttentionStage) {
        self.write_rows(worker, stage);
        let heads = params(&stage.op, None, None).n_kv_heads;
        worker.for_each(self.backend.batch.tokens.len() * heads, |item| {
            let (row, head) = (item / heads, item % heads);
            let s = self.sequence_of(row);
            let params = self.params(stage, &self.backend.batch.sequences[s]);
            let q = self.query_rows(stage.inputs[0], row, 1);
            let position = self.backend.batch.positions[row] as usize;
            let scratch = self.attention_scratch(worker, &stage.op);
            let (partial, joined) = scratch.partial[..2 * params.partial_len()].split_at_mut(params.partial_len());
            let mut any = false;
            let mut attend = |item: &DecodeItem<'_>| {
                // SAFETY: keys and values were written in the phase before.
                unsafe { (self.backend.ops.attention_decode)(item, scratch.kernel, partial) };
                match any {
                    true => (self.backend.ops.attention_join)(&params, partial, joined),
                    false => joined.copy_from_slice(partial),
                }
                any = true;
            };
            // SAFETY: the choice was made in an earlier stage.
            let keys = stage.selected.map(|v| unsafe { self.row(v, row, stage.op.selected.unwrap_or(0)) });
            let keys = keys.map(|keys| &keys[..keys.partition_point(|k| *k >= 0.0)]);
            let pages = |cache| self.backend.kv.pages(&self.backend.book, cache, self.kvs[s]);
            let (own, blocks) = (pages(stage.op.cache), stage.op.blocks.map(pages));
            if blocks.is_some() {
                for piece in params.pieces(position, own.len) {
                    attend(&DecodeItem { params: &params, kv: &own, kv_head: head, q, position, piece, keys: None });
                }
            }
            // All blocks that are complete at this position.
            let (kv, seen) = match (&blocks, stage.op.blocks) {
                (Some(kv), Some(cache)) => (kv, self.backend.plan.graph.caches()[cache.0 as usize].seen(position)),
                _ => (&own, position + 1),
            };
            let everything = AttentionParams { window: None, ..params };
            for piece in 0..keys.map_or(seen, <[f32]>::len).div_ceil(PIECE) {
                let position = seen - 1;
                attend(&DecodeItem { params: &everything, kv, kv_head: head, q, position, piece, keys });
            }
            self.merge(stage, &params, row, head, joined);
        });
    }

    fn params(&self, stage: &AttentionStage, seq: &SequenceRows) -> AttentionParams<'_> {
        let k_rope = stage.op.rotate_on_read.map(|rope| {
            let spec = &self.backend.plan.graph.ropes()[rope.0 as usize];
            let half = spec.rotary_dims / 2;
            let (buffer, all) = (&self.backend.key_rope_tables[rope.0 as usize], self.backend.batch.cached);
            let (first, n) = (seq.first_key * half, seq.cached * half);
            // SAFETY: tables are written before the run only.
            let (cos, sin) = unsafe { (buffer.slice(first, n), buffer.slice(all * half + first, n)) };
            KeyRope { cos, sin, half, layout: spec.layout }
        });
        params(&stage.op, self.vector(stage.op.sinks), k_rope)
    }

    pub(super) fn attention_scratch(&self, worker: &Worker<'_>, op: &AttentionOp) -> Scratch<'_> {
        let buffer: &Buffer = &self.backend.scratch[worker.index()];
        let p = params(op, None, None);
        let key = query_len(op);
        let partial = key + key_len(op);
        let kernel = partial + partials_len(op);
        // SAFETY: scratch belongs to this worker, which uses one of these at a time; the parts are disjoint.
        unsafe {
            Scratch {
                query: buffer.slice_mut(0, query_len(op)),
                key: buffer.slice_mut(key, key_len(op)),
                partial: buffer.slice_mut(partial, partials_len(op)),
                kernel: buffer.slice_mut(kernel, p.scratch_len()),
            }
        }
    }

    /// `n` rows of queries, rotated in an earlier phase.
    fn query_rows(&self, q: ValueId, row: usize, n: usize) -> &[f32] {
        let (buffer, first, stride) = self.place(q, row);
        let width = self.backend.plan.slot(q).width;
        // SAFETY: nobody writes queries in this phase.
        unsafe { buffer.slice(first, (n - 1) * stride + width) }
    }

    /// Merges the pieces of one key/value head into the result's row.
    fn merge(&self, stage: &AttentionStage, params: &AttentionParams<'_>, row: usize, head: usize, partials: &[f32]) {
        let n = params.group() * params.v_dim;
        let (buffer, first, _) = self.place(stage.output, row);
        // SAFETY: these heads of the row are this item's.
        let out = unsafe { buffer.slice_mut::<f32>(first + head * n, n) };
        (self.backend.ops.attention_merge)(params, head, partials, out);
    }
}
