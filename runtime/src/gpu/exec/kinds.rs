//! Kinds of attention. Layers of one kind divide a row's keys into the same number of parts.

use crate::{
    graph::{AttentionOp, Plan, StageKind},
    step::PageBook,
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
        (group(op.cache), op.blocks.map(group), op.selected, op.window, op.n_heads)
    };
    kinds.iter().position(|k| key(&k.op) == key(op)).unwrap_or(kinds.len())
}
