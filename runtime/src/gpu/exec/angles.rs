//! The angles of rows and keys, as cosines and sines: `ropes` of `lib/rope.wgsl`.
//!
//! Angles of the step's own rows are computed and written every step. Keys that are rotated when they are read need the
//! angles of every cached position. These depend on the frequencies and the position, and on no sequence, so they lie
//! in tables that stay on the device; a step writes only the rows that a table lacks. In the buffer the tables come
//! first, then the rows of the step.

use std::ops::Range;

use crate::{
    cpu::ops::rope_cos_sin,
    gpu::Gpu,
    graph::{Device, Plan, RopeSpec, StageKind},
    step::Batch,
};

/// Tables of a rope that are kept while no sequence of the step uses them: steps may alternate between sequences with
/// different frequencies.
const KEPT: usize = 2;

/// The least positions that a table has room for.
const LEAST_ROOM: usize = 64;

/// Positions that a table for `rows` rows has room for.
fn room(rows: usize) -> usize {
    rows.next_power_of_two().max(LEAST_ROOM)
}

/// A sequence's need of a rope in the step.
#[derive(Clone, Copy, Debug)]
struct Want {
    rope: usize,
    /// See [`RopeSpec::regime`].
    regime: usize,
    /// Elements of a row.
    width: usize,
    /// Positions, from 0 on.
    rows: usize,
}

/// The angles of all positions, for sequences with the same frequencies.
#[derive(Clone, Copy, Debug)]
struct Table {
    rope: usize,
    regime: usize,
    width: usize,
    /// First element.
    at: usize,
    /// Positions that the table has room for.
    room: usize,
    /// Rows that are on the device.
    rows: usize,
    /// Rows that the step needs which last used the table, and the number of that step.
    wanted: usize,
    step: u64,
}

impl Table {
    fn want(&mut self, step: u64, rows: usize) {
        self.wanted = if self.step == step { self.wanted.max(rows) } else { rows };
        self.step = step;
    }
}

/// Rows that a table lacks, and the element that they begin at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fresh {
    rope: usize,
    regime: usize,
    rows: Range<usize>,
    at: usize,
}

/// The tables of keys: their places in the buffer and the rows in them.
#[derive(Debug, Default)]
struct KeyTables {
    tables: Vec<Table>,
    /// Elements of all tables.
    len: usize,
    step: u64,
}

impl KeyTables {
    /// Finds or makes a table with room for each of `wants`. All tables together have up to `most` elements, unless
    /// `wants` alone need more.
    fn admit(&mut self, wants: &[Want], most: usize) {
        self.step += 1;
        // Existing tables are claimed first, so that no other want takes them over.
        for want in wants {
            if let Some(i) = self.find(want.rope, want.regime) {
                self.tables[i].want(self.step, want.rows);
            }
        }
        for want in wants {
            let i = self.find(want.rope, want.regime).unwrap_or_else(|| self.make(want));
            self.tables[i].want(self.step, want.rows);
        }
        if self.len > most || self.tables.iter().any(|t| t.step == self.step && t.room < t.wanted) {
            self.lay_out(most);
        }
    }

    fn find(&self, rope: usize, regime: usize) -> Option<usize> {
        self.tables.iter().position(|t| t.rope == rope && t.regime == regime)
    }

    /// An empty table: the longest unused one, or a new one at the end.
    fn make(&mut self, want: &Want) -> usize {
        let step = self.step;
        let unused = || self.tables.iter().enumerate().filter(|(_, t)| t.rope == want.rope && t.step != step);
        let oldest = unused().min_by_key(|(_, t)| t.step).map(|(i, _)| i);
        if let Some(i) = oldest.filter(|_| unused().count() > KEPT) {
            (self.tables[i].regime, self.tables[i].rows) = (want.regime, 0);
            return i;
        }
        let Want { rope, regime, width, rows } = *want;
        let table = Table { rope, regime, width, at: self.len, room: room(rows), rows: 0, wanted: 0, step: 0 };
        self.len += table.room * width;
        self.tables.push(table);
        self.tables.len() - 1
    }

    /// Gives all tables new places, with room for the rows that the step wants. All rows must be written again.
    fn lay_out(&mut self, most: usize) {
        let step = self.step;
        let before = self.tables.clone();
        self.tables.retain(|t| {
            let later = |o: &&Table| o.rope == t.rope && o.step != step && (o.step, o.at) > (t.step, t.at);
            t.step == step || before.iter().filter(later).count() < KEPT
        });
        for table in self.tables.iter_mut().filter(|t| t.step == step && t.room < t.wanted) {
            table.room = room(table.wanted);
        }
        if self.place() > most {
            self.tables.retain(|t| t.step == step);
        }
        if self.place() > most {
            self.tables.iter_mut().for_each(|t| t.room = t.wanted);
            self.place();
        }
        self.forget();
    }

    /// Places the tables one after the other; returns the elements of all.
    fn place(&mut self) -> usize {
        self.len = 0;
        for table in &mut self.tables {
            table.at = self.len;
            self.len += table.room * table.width;
        }
        self.len
    }

    /// Marks all rows as missing, because the buffer is new.
    fn forget(&mut self) {
        self.tables.iter_mut().for_each(|t| t.rows = 0);
    }

    /// First element of a table that the step wants.
    fn at(&self, rope: usize, regime: usize) -> usize {
        self.find(rope, regime).map_or(0, |i| self.tables[i].at)
    }

    /// The rows that the step wants and the device lacks. They count as present afterwards: the caller must write them.
    fn fresh(&mut self) -> impl Iterator<Item = Fresh> {
        let step = self.step;
        self.tables.iter_mut().filter(move |t| t.step == step && t.rows < t.wanted).map(|t| {
            let rows = std::mem::replace(&mut t.rows, t.wanted)..t.wanted;
            Fresh { rope: t.rope, regime: t.regime, at: t.at + rows.start * t.width, rows }
        })
    }
}

/// The angles of a backend's steps.
#[derive(Debug)]
pub(super) struct Angles {
    /// Ropes of keys that are rotated when they are read on this device.
    of_keys: Vec<usize>,
    tables: KeyTables,
    /// Angles of the step's own rows.
    rows: Vec<f32>,
    // Kept from step to step, so that nothing is allocated.
    wants: Vec<Want>,
    fresh: Vec<f32>,
}

impl Angles {
    pub fn new(plan: &Plan) -> Self {
        let (rows, wants, fresh) = (Vec::new(), Vec::new(), Vec::new());
        Self { of_keys: ropes_of_keys(plan), tables: KeyTables::default(), rows, wants, fresh }
    }

    /// Computes the angles of the step's rows, finds the tables of its keys, and writes down the places of both: words
    /// 8 and 9 of `lib/batch.wgsl`. The buffer may have up to `limit` bytes.
    pub fn pack(&mut self, plan: &Plan, batch: &Batch, limit: u64, words: &mut Vec<u32>) {
        let ropes = plan.graph.ropes();
        self.rows.clear();
        words[8] = words.len() as u32;
        for spec in ropes {
            words.push(self.rows.len() as u32);
            self.add_rows(spec, batch);
        }
        words[9] = words.len() as u32;
        if self.of_keys.is_empty() {
            return;
        }
        self.wants.clear();
        for &rope in &self.of_keys {
            let (spec, width) = (&ropes[rope], ropes[rope].rotary_dims);
            let want = |length, rows| Want { rope, regime: spec.regime(length), width, rows };
            self.wants.extend(batch.sequences.iter().map(|s| want(s.length, s.cached)));
        }
        self.tables.admit(&self.wants, ((limit / 4) as usize).saturating_sub(self.rows.len()));
        let first_row = words[8] as usize;
        words[first_row..].iter_mut().for_each(|at| *at += self.tables.len as u32);
        for (rope, spec) in ropes.iter().enumerate() {
            words.extend(batch.sequences.iter().map(|s| self.tables.at(rope, spec.regime(s.length)) as u32));
        }
    }

    fn add_rows(&mut self, spec: &RopeSpec, batch: &Batch) {
        let half = spec.rotary_dims / 2;
        let mut at = self.rows.len();
        self.rows.resize(at + batch.tokens.len() * 2 * half, 0.0);
        for sequence in &batch.sequences {
            let (inv_freq, factor) = (spec.inv_freq(sequence.length), spec.factor(sequence.length));
            for row in sequence.first_row..sequence.first_row + sequence.n_rows {
                let (cos, sin) = self.rows[at..at + 2 * half].split_at_mut(half);
                let position = (batch.positions[row] as usize).saturating_sub(spec.back);
                rope_cos_sin(&inv_freq, factor, position, cos, sin);
                at += 2 * half;
            }
        }
    }

    /// Bytes of the buffer that the packed step needs.
    pub fn bytes(&self) -> u64 {
        (self.tables.len + self.rows.len()) as u64 * 4
    }

    /// Writes the rows that the packed step needs and `buffer` lacks, all of them where it is `new`; returns the bytes.
    /// Steps under way read their own rows: these writes come after them.
    pub fn upload(&mut self, gpu: &Gpu, buffer: &wgpu::Buffer, plan: &Plan, new: bool) -> u64 {
        if new {
            self.tables.forget();
        }
        let mut bytes = 0;
        let mut write = |at: usize, elements: &[f32]| {
            if !elements.is_empty() {
                gpu.queue.write_buffer(buffer, at as u64 * 4, bytemuck::cast_slice(elements));
                bytes += size_of_val(elements) as u64;
            }
        };
        for Fresh { rope, regime, rows, at } in self.tables.fresh() {
            let spec = &plan.graph.ropes()[rope];
            let (inv_freq, factor) = (spec.inv_freq(regime), spec.factor(regime));
            self.fresh.clear();
            self.fresh.resize(rows.len() * spec.rotary_dims, 0.0);
            for (both, position) in self.fresh.chunks_exact_mut(spec.rotary_dims.max(1)).zip(rows) {
                let (cos, sin) = both.split_at_mut(spec.rotary_dims / 2);
                rope_cos_sin(&inv_freq, factor, position, cos, sin);
            }
            write(at, &self.fresh);
        }
        write(self.tables.len, &self.rows);
        bytes
    }
}

/// Ropes of keys that are rotated when the GPU reads them.
fn ropes_of_keys(plan: &Plan) -> Vec<usize> {
    let on_gpu = plan.stages.iter().filter(|s| s.device == Device::Gpu);
    let mut ropes: Vec<usize> = on_gpu
        .filter_map(|s| match &s.kind {
            StageKind::Attention(a) => a.op.rotate_on_read.map(|rope| rope.0 as usize),
            _ => None,
        })
        .collect();
    ropes.sort_unstable();
    ropes.dedup();
    ropes
}

/// Bytes of the tables for a sequence of `cached` tokens.
pub(super) fn table_bytes(plan: &Plan, cached: usize) -> u64 {
    let widths = ropes_of_keys(plan).into_iter().map(|rope| plan.graph.ropes()[rope].rotary_dims);
    widths.map(|width| (room(cached) * width) as u64 * 4).sum()
}

#[cfg(test)]
#[path = "angles_tests.rs"]
mod tests;
