//! The choice of tokens in the thread pool: a row an item.

use std::sync::{Mutex, PoisonError};

use super::Finished;
use crate::{
    cpu::pool::Worker,
    sample::{Choice, Chosen, Sampler},
    step::{Batch, SequenceStep, Tokens, UnderWay},
};

/// Memory to work in, by worker.
#[derive(Debug)]
pub(crate) struct Samplers(Vec<Mutex<Sampler>>);

/// The choices of one step, made or to be made.
pub(crate) struct Choices<'a> {
    rows: Vec<Row<'a>>,
    chosen: Vec<Mutex<Chosen>>,
}

struct Row<'a> {
    choice: Choice<'a>,
    /// The tokens behind those that the caller knows, up to the row's own.
    more: Vec<u32>,
    output: usize,
    position: usize,
}

impl Samplers {
    pub fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Mutex::default()).collect())
    }
}

impl<'a> Choices<'a> {
    /// The choices of an admitted step that may build on steps under way.
    pub fn of(batch: &Batch, steps: &[SequenceStep<'a>], under_way: &UnderWay<Finished>) -> Self {
        let row = |at: &crate::step::ChoiceRow| {
            let (step, n) = (&steps[at.step], batch.sequences[at.step].n_rows);
            let choice = step.choice?;
            // Only penalties read them.
            let more = match step.tokens {
                _ if choice.params.penalty_window() == 0 => Vec::new(),
                Tokens::Ids(ids) => ids[n - n.min(choice.params.penalty_window())..].to_vec(),
                Tokens::Chosen(ticket, i) => {
                    under_way.chain((ticket, i)).into_iter().map(|input| under_way.token(input)).collect()
                }
            };
            Some(Row { choice, more, output: at.output, position: at.position })
        };
        let rows: Vec<Row<'_>> = batch.choices.iter().filter_map(row).collect();
        let chosen = rows.iter().map(|_| Mutex::default()).collect();
        Self { rows, chosen }
    }

    /// Makes the choices from the rows that `logits` returns for numbers of output rows.
    pub fn make<'l>(&self, worker: &Worker<'_>, samplers: &Samplers, logits: impl Fn(usize) -> &'l [f32]) {
        worker.for_each(self.rows.len(), |i| {
            let row = &self.rows[i];
            let mut sampler = samplers.0[worker.index()].lock().unwrap_or_else(PoisonError::into_inner);
            let chosen = sampler.choose(logits(row.output), &row.choice, &row.more, row.position);
            *self.chosen[i].lock().unwrap_or_else(PoisonError::into_inner) = chosen;
        });
    }

    /// All choices from output rows of `width` elements each.
    #[cfg(feature = "gpu")]
    pub fn make_all(self, pool: &crate::cpu::Pool, samplers: &Samplers, rows: &[f32], width: usize) -> Vec<Chosen> {
        if !self.rows.is_empty() {
            pool.run(&|worker| self.make(worker, samplers, |row| &rows[row * width..][..width]));
        }
        self.finish()
    }

    /// The results.
    pub fn finish(self) -> Vec<Chosen> {
        self.chosen.into_iter().map(|c| c.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}
