//! A step under way: its parts, and their results in the order of its sequences.

use std::sync::atomic::Ordering;

use super::flight::{Flight, Pending, Results};
use crate::step::Batch;

/// A step that was submitted, in one part or, where it has rows of both roles, in two.
pub(super) struct Submitted {
    /// Which part of the buffer of tokens its choices go to.
    pub slot: usize,
    pub flights: Vec<Flight>,
    /// By sequence, where there are several parts.
    shares: Vec<Share>,
    /// Set when it is read.
    pub results: Option<Results>,
    /// Set when reading it has failed: what is left of it means nothing.
    pub failed: bool,
}

/// What a sequence has in a part.
#[derive(Clone, Copy, Default)]
struct Share {
    part: usize,
    chooses: bool,
    /// Rows of logits and hidden states.
    rows: [usize; 2],
}

impl Submitted {
    pub fn whole(slot: usize, flight: Flight) -> Self {
        Self { slot, flights: vec![flight], shares: Vec::new(), results: None, failed: false }
    }

    /// The parts of `batch` for the sequences `roles`.
    pub fn parts(slot: usize, flights: Vec<Flight>, batch: &Batch, roles: &[Vec<usize>]) -> Self {
        let mut shares = vec![Share::default(); batch.sequences.len()];
        for (part, of) in roles.iter().enumerate() {
            for &s in of {
                let sequence = &batch.sequences[s];
                let own = sequence.first_output..sequence.first_output + sequence.n_outputs;
                let count = |rows: &[u32]| rows.iter().filter(|row| own.contains(&(**row as usize))).count();
                let chooses = batch.choices.iter().any(|c| c.step == s);
                shares[s] = Share { part, chooses, rows: [count(&batch.wanted), count(&batch.hidden)] };
            }
        }
        Self { slot, flights, shares, results: None, failed: false }
    }

    /// The part that makes choice `i`, and the choice there.
    pub fn choice(&self, i: usize) -> (&Flight, &Pending) {
        let choosing = self.shares.iter().enumerate().filter(|(_, share)| share.chooses);
        let Some((at, &Share { part, .. })) = choosing.clone().nth(i) else {
            return (&self.flights[0], &self.flights[0].choices[i]);
        };
        let before = choosing.take_while(|(s, _)| *s < at).filter(|(_, share)| share.part == part).count();
        (&self.flights[part], &self.flights[part].choices[before])
    }

    /// Whether all parts are over.
    pub fn is_done(&self) -> bool {
        self.results.is_some() || self.flights.iter().all(|f| f.done.load(Ordering::Acquire))
    }

    /// The results of all parts in the order of the sequences.
    pub fn merge(&self, mut parts: Vec<Results>) -> Results {
        if self.shares.is_empty() {
            return parts.pop().unwrap_or_default();
        }
        let mut all = Results::default();
        let mut parts: Vec<_> = parts
            .iter_mut()
            .zip(&self.flights)
            .map(|(results, flight)| {
                let [width, hidden] = flight.widths().map(|w| w.max(1));
                let Results { chosen, logits, hidden: states } = results;
                (chosen.drain(..), logits.chunks_exact(width), states.chunks_exact(hidden))
            })
            .collect();
        for share in &self.shares {
            let (chosen, logits, hidden) = &mut parts[share.part];
            all.chosen.extend(chosen.take(usize::from(share.chooses)));
            logits.take(share.rows[0]).for_each(|row| all.logits.extend_from_slice(row));
            hidden.take(share.rows[1]).for_each(|row| all.hidden.extend_from_slice(row));
        }
        all
    }
}
