//! Kinds of attention: what the layers of one have in common decides into how many parts a row's keys are divided.

use crate::{
    graph::{AttentionOp, Plan, StageKind},
    step::PageBook,
};

/// One kind.
#[derive(Clone, Debug)]
pub(super) struct AttentionKind {
    /// An op of one of its layers; they only differ in what does not matter here.
    pub op: AttentionOp,
    /// Tokens of a block, where there are blocks.
    pub every: usize,
}

/// All kinds of a plan, in the order of their numbers.
pub(super) fn kinds(plan: &Plan, book: &PageBook) -> Vec<AttentionKind> {
    let mut all: Vec<AttentionKind> = Vec::new();
    for step in &plan.stages {
        if let StageKind::Attention(a) = &step.kind
            && number(&all, book, &a.op) == all.len()
        {
            let every = a.op.blocks.map_or(1, |c| plan.graph.caches()[c.0 as usize].every);
            all.push(AttentionKind { op: a.op.clone(), every });
        }
    }
    all
}

/// The number of the kind that `op` is of.
pub(super) fn number(kinds: &[AttentionKind], book: &PageBook, op: &AttentionOp) -> usize {
    let key = |op: &AttentionOp| {
        let group = |cache| book.place(cache).0;
        (group(op.cache), op.blocks.map(group), op.selected, op.window, op.n_heads)
    };
    kinds.iter().position(|k| key(&k.op) == key(op)).unwrap_or(kinds.len())
}
