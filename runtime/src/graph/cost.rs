//! Bytes and operations that a stage of a plan needs at least, for profiles.
//!
//! Bytes are those of weights, of keys and values, and of the values that cross stages, each counted once. A kernel
//! that reads something twice, or passes something through memory within a stage, so moves more bytes than are shown
//! here. Operations are those of matrix products and attention; row programs count none.

use super::{
    attention::{AttentionOp, CacheSpec},
    op::Rows,
    plan::{AttentionStage, Plan, RowProgram, Src, StageKind},
};
use crate::step::KvType;

/// Rows and cached tokens of one step of a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Load {
    /// New tokens.
    pub tokens: usize,
    /// Output rows.
    pub outputs: usize,
    /// By sequence: tokens cached, the new ones included, and new tokens.
    pub sequences: Vec<(usize, usize)>,
    /// How keys and values are cached.
    pub kv: KvType,
}

impl Load {
    fn rows(&self, rows: Rows) -> u64 {
        match rows {
            Rows::Token => self.tokens as u64,
            Rows::Output => self.outputs as u64,
        }
    }
}

/// Bytes and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Bytes read and written.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, flops: self.flops + other.flops }
    }
}

/// The cost of a stage of a plan, in the two parts that GPUs run as separate kernels.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct StageCost {
    /// The row program; in attention, norms and rotations of heads.
    pub rows: Cost,
    /// The linears, or attention itself.
    pub main: Cost,
}

impl Plan {
    /// The stage's kind with the formats of its weights: `linear q4_1`.
    pub fn op_label(&self, stage: usize) -> String {
        match &self.stages[stage].kind {
            StageKind::Rows(p) if p.instrs.iter().any(|i| i.op.table().is_some()) => "embed".to_owned(),
            StageKind::Rows(_) => "rows".to_owned(),
            StageKind::Select(_) => "select".to_owned(),
            StageKind::Attention(_) => "attention".to_owned(),
            StageKind::Pool(_) | StageKind::ShortConv(_) | StageKind::GatedDelta(_) => {
                self.stages[stage].kind.name().to_owned()
            }
            StageKind::Experts(experts) => {
                let format = experts.parts.first().and_then(|p| p.op.experts.first());
                format!("experts {}", format.map_or("", |w| self.graph.weight(*w).dtype().name()))
            }
            StageKind::Linear(linear) => {
                let mut formats: Vec<&str> = Vec::new();
                for part in &linear.parts {
                    let name = self.graph.weight(part.weight).dtype().name();
                    if !formats.contains(&name) {
                        formats.push(name);
                    }
                }
                format!("linear {}", formats.join("+"))
            }
        }
    }

    /// Memory traffic and work of a stage under `load`, at least.
    pub fn cost(&self, stage: usize, load: &Load) -> StageCost {
        match &self.stages[stage].kind {
            StageKind::Rows(program) => StageCost { rows: self.program_cost(program, load), main: Cost::default() },
            StageKind::Linear(linear) => {
                let n = load.rows(linear.prologue.rows);
                let heads = linear.heads.map_or(1, |h| h.heads) as u64;
                let mut main = Cost { bytes: n * heads * linear.k as u64 * 4, flops: 0 };
                if let (Some(h), true) = (linear.heads, n > 0) {
                    let row_bytes = self.graph.weight(h.weight).row_bytes() as u64;
                    main.bytes += heads * (h.rows() as u64 * row_bytes + n * h.output as u64 * 4);
                    main.flops += 2 * n * heads * (h.input * h.output) as u64;
                    return StageCost { rows: self.program_cost(&linear.prologue, load), main };
                }
                for part in linear.parts.iter().filter(|_| n > 0) {
                    let tensor = self.graph.weight(part.weight);
                    main.bytes += tensor.stored_bytes() as u64 + n * tensor.rows() as u64 * 4;
                    main.flops += 2 * n * (tensor.rows() * tensor.row_len()) as u64;
                }
                StageCost { rows: self.program_cost(&linear.prologue, load), main }
            }
            StageKind::Experts(experts) => {
                let n = load.rows(experts.prologue.rows);
                let mut main = Cost { bytes: n * (experts.inputs() * experts.k) as u64 * 4, flops: 0 };
                let chosen = n * experts.slots as u64;
                for part in experts.parts.iter().filter(|_| n > 0) {
                    let bytes = part.op.experts.first().map_or(0, |w| self.graph.weight(*w).stored_bytes()) as u64;
                    // An upper bound: rows may share experts.
                    main.bytes += chosen.min(experts.n_experts as u64) * bytes + chosen * part.out as u64 * 4;
                    main.flops += 2 * chosen * (part.out * experts.k) as u64;
                }
                StageCost { rows: self.program_cost(&experts.prologue, load), main }
            }
            StageKind::Select(select) => {
                let (op, n) = (&select.op, load.tokens as u64);
                let query = (op.n_heads * op.head_dim) as u64;
                let mut main = Cost { bytes: n * (query + op.k as u64) * 4, flops: 0 };
                for &(cached, new) in &load.sequences {
                    let spec = &self.graph.caches()[op.cache.0 as usize];
                    main.bytes += (cached / spec.every * load.kv.row_bytes(op.head_dim)) as u64;
                    let pairs: u64 = (cached - new..cached).map(|p| spec.seen(p) as u64).sum();
                    main.flops += 2 * pairs * query;
                }
                StageCost { rows: Cost::default(), main }
            }
            StageKind::Pool(pool) => {
                let (op, n) = (&pool.op, load.tokens as u64);
                // The row of every token is written; rows of blocks that become complete are read.
                let row = (4 * op.channels() + load.kv.row_bytes(op.channels())) as u64;
                let mut main = Cost { bytes: n * (2 * row + op.width as u64 * 4), flops: 0 };
                for &(cached, new) in &load.sequences {
                    let blocks = (cached / op.block - (cached - new) / op.block) as u64;
                    let read = blocks * op.reach() as u64;
                    main.bytes += 2 * read * load.kv.row_bytes(op.width) as u64;
                    main.flops += 4 * read * op.width as u64;
                }
                StageCost { rows: Cost::default(), main }
            }
            StageKind::Attention(attention) => {
                let every = attention.op.blocks.map(|c| self.graph.caches()[c.0 as usize].every);
                attention_cost(attention, every, load)
            }
            StageKind::ShortConv(conv) => {
                let (n, width) = (load.tokens as u64, self.graph.value(conv.input).width as u64);
                let (taps, states) = (conv.op.taps as u64, 2 * load.sequences.len() as u64);
                let bytes = (2 * n + taps + states * (taps - 1)) * width * 4;
                StageCost { rows: Cost::default(), main: Cost { bytes, flops: 2 * n * width * taps } }
            }
            StageKind::GatedDelta(delta) => {
                let row: usize = [delta.inputs[0], delta.output].iter().map(|v| self.graph.value(*v).width).sum();
                let state = (delta.op.n_v_heads * delta.op.k_dim * delta.op.v_dim) as u64;
                let (n, states) = (load.tokens as u64, 2 * load.sequences.len() as u64);
                let bytes = (n * row as u64 + states * state) * 4;
                // Two products with the state, and the update.
                StageCost { rows: Cost::default(), main: Cost { bytes, flops: 7 * n * state } }
            }
        }
    }

    fn program_cost(&self, program: &RowProgram, load: &Load) -> Cost {
        let mut row = 0;
        for instr in &program.instrs {
            for src in instr.op.srcs().into_iter().flatten() {
                if let Src::Value(v) = src {
                    row += self.graph.value(v).width as u64 * 4;
                }
            }
            row += instr.op.table().map_or(0, |t| self.graph.weight(t).row_bytes() as u64);
            row += instr.store.map_or(0, |_| instr.width as u64 * 4);
        }
        Cost { bytes: row * load.rows(program.rows), flops: 0 }
    }
}

/// `every`: the tokens of a block, where there are blocks.
fn attention_cost(stage: &AttentionStage, every: Option<usize>, load: &Load) -> StageCost {
    let op = &stage.op;
    let n = load.tokens as u64;
    let spec = CacheSpec { v_in_k: op.v_in_k, ..CacheSpec::new(op.n_kv_heads, op.head_dim, op.v_dim) };
    let entry = spec.entry_bytes(load.kv) as u64;
    let written = if op.shared { 0 } else { spec.elements() as u64 * 4 + entry };
    let query = (op.n_heads * op.head_dim) as u64;
    let mut main = Cost { bytes: n * (query + (op.n_heads * op.v_dim) as u64) * 4, flops: 0 };
    for &(cached, new) in &load.sequences {
        let first = cached - new;
        let reach = (first..cached).map(|p| visible(op, p));
        let span = reach.clone().next().map_or(0, |r| r + new.saturating_sub(1)).min(cached);
        main.bytes += span as u64 * entry;
        let blocks = |p: usize| every.map_or(0, |e| op.selected.unwrap_or(usize::MAX).min((p + 1) / e));
        main.bytes += every.map_or(0, |e| cached / e) as u64 * entry;
        let pairs: u64 = reach.map(|r| r as u64).sum::<u64>() + (first..cached).map(|p| blocks(p) as u64).sum::<u64>();
        main.flops += 2 * pairs * (op.n_heads * (op.head_dim + op.v_dim)) as u64;
    }
    // Queries, keys and values are read; queries are written again, keys and values go to the cache.
    let rows = Cost { bytes: n * (2 * query * 4 + written), flops: 0 };
    StageCost { rows, main }
}

/// Keys that the query at `position` sees.
fn visible(op: &AttentionOp, position: usize) -> usize {
    let chosen = op.selected.filter(|_| op.blocks.is_none());
    let all = chosen.map_or(position + 1, |k| k.min(position + 1));
    let all = op.chunk.map_or(all, |chunk| position % chunk.max(1) + 1);
    op.window.map_or(all, |window| all.min(window))
}
