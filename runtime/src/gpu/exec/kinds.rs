//! Kinds of attention. Layers of one kind divide a row's keys into the same number of parts.

use crate::{
    gpu::{Caps, ops::attention},
    graph::{AttentionOp, Plan, StageKind},
    step::{Batch, PageBook, Role},
};

/// One kind.
#[derive(Clone, Debug)]
pub(super) struct AttentionKind {
    /// An op of one of its layers; the others differ only in fields that the division does not depend on.
    pub op: AttentionOp,
    /// Tokens of a block, where there are blocks.
    pub every: usize,
}

/// All kinds of a plan, in the order of their numbers.
pub(super) fn kinds(plan: &Plan, book: &PageBook) -> Vec<AttentionKind> {
    let mut all: Vec<AttentionKind> = Vec::new();
    for stage in &plan.stages {
        if let StageKind::Attention(a) = &stage.kind
            && number(&all, book, &a.op) == all.len()
        {
            let every = a.op.blocks.map_or(1, |c| plan.graph.caches()[c.0 as usize].every);
            all.push(AttentionKind { op: a.op.clone(), every });
        }
    }
    all
}

/// The number of the kind of `op`.
pub(super) fn number(kinds: &[AttentionKind], book: &PageBook, op: &AttentionOp) -> usize {
    let key = |op: &AttentionOp| {
        let group = |cache| book.place(cache).0;
        (group(op.cache), op.blocks.map(group), op.selected, op.window, op.chunk, op.n_heads)
    };
    kinds.iter().position(|k| key(&k.op) == key(op)).unwrap_or(kinds.len())
}

/// The parts that a step's rows divide their keys into, as `lib/split.wgsl` reads them. Empty where tiles of a prompt's rows
/// are taken instead.
#[derive(Clone, Debug, Default)]
pub(super) struct RowParts {
    /// By row, and behind the last: the parts before.
    first: Vec<u32>,
    /// By part: its row.
    rows: Vec<u32>,
}

impl RowParts {
    /// Divides the keys of the rows of `batch`, whose longest sequence has `longest` tokens, for attention of `kind`.
    pub fn fill(&mut self, caps: &Caps, kind: &AttentionKind, batch: &Batch, longest: usize) {
        self.first.clear();
        self.rows.clear();
        let role = batch.role();
        if role == Role::Prompt && attention::fits_prompt(caps, &kind.op, longest) {
            return;
        }
        for (row, position) in batch.positions.iter().enumerate() {
            self.first.push(self.len());
            let n = attention::parts_of_row(caps, &kind.op, kind.every, *position as usize, role);
            self.rows.extend(std::iter::repeat_n(row as u32, n as usize));
        }
        self.first.push(self.len());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Parts of all rows.
    pub fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Whether some row has several.
    pub fn splits(&self) -> bool {
        self.rows.len() + 1 > self.first.len()
    }

    pub fn pack(&self, words: &mut Vec<u32>) {
        words.extend_from_slice(&self.first);
        words.extend_from_slice(&self.rows);
    }
}
