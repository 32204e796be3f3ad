//! The calls of a stage of the plan, by the shape of the step.

use super::super::{Call, shape::Shape};
use crate::graph::{Act, Rows, ValueId};

/// The calls of one stage of the plan.
pub(in super::super) struct StageCalls {
    /// The rows that choose the variant.
    pub rows: Rows,
    pub flops: Flops,
    /// Set where the stage's kernel applies the gated activation of its two outputs.
    pub gated: Option<Act>,
    /// Set where the kernel makes this sum of its output and another value, and does not write the output.
    pub sum: Option<ValueId>,
    /// Calls for any number of rows.
    pub(super) before: Vec<Call>,
    /// The first variant that suits runs after them.
    pub(super) variants: Vec<(When, Vec<Call>)>,
}

/// Operations that a stage of the plan takes.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Flops {
    /// For each row.
    pub per_row: u64,
    /// For each key that a row sees.
    pub per_key: u64,
    /// Keys that a row sees at most.
    pub keys: Option<usize>,
}

impl Flops {
    pub fn per_row(per_row: u64) -> Self {
        Self { per_row, ..Self::default() }
    }

    /// Operations of `rows` rows of sequences of up to `longest` tokens.
    pub fn of(&self, rows: usize, longest: usize) -> u64 {
        let keys = self.keys.unwrap_or(usize::MAX).min(longest) as u64;
        rows as u64 * (self.per_row + self.per_key * keys)
    }
}

/// The steps that a variant of a stage's calls is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At most so many rows, all of them chosen by the model.
    Generated(u32),
    /// At most so many rows.
    RowsUpTo(u32),
    /// Attention of this kind takes tiles of a prompt's rows.
    Prompt(usize),
    /// Attention of this kind takes row by row, and some row's keys are divided into parts.
    Split(usize),
    /// Any step.
    Always,
}

impl StageCalls {
    /// The calls for a step of that shape.
    pub fn calls(&self, shape: &Shape) -> impl Iterator<Item = &Call> {
        let fits = |(when, _): &&(When, Vec<Call>)| match when {
            When::Generated(most) => shape.generated && shape.count(self.rows) as u64 <= u64::from(*most),
            When::RowsUpTo(most) => shape.count(self.rows) as u64 <= u64::from(*most),
            When::Prompt(kind) => shape.parts[*kind].is_empty(),
            When::Split(kind) => shape.parts[*kind].splits(),
            When::Always => true,
        };
        let variant = self.variants.iter().find(fits).map_or(&[][..], |(_, calls)| calls);
        self.before.iter().chain(variant)
    }

    /// All calls of all variants.
    pub fn calls_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.before.iter_mut().chain(self.variants.iter_mut().flat_map(|(_, calls)| calls))
    }
}
