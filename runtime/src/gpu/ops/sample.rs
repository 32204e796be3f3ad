//! Choice of tokens on the device, so that the next step can begin before the host has seen them.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    params::{NONE, Params, reduction, workgroup},
};
use crate::{
    gpu::{Access, Caps, Kernel},
    graph::Rows,
    sample::{Choice, edits},
    step::MOST_UNDER_WAY,
};

/// Logits of a chunk. Smaller chunks are too many to save work; larger ones rule out less of the row.
const CHUNK: u32 = 1024;

/// The most tokens that the device lists with their log-probabilities.
pub const LISTED: usize = 32;

/// Words of a choice's results in the buffer of log-probabilities.
pub const RESULT_WORDS: usize = 2 * (LISTED + 1);

/// Whether the device makes a choice; the host makes those with masks and with long lists.
pub fn on_device(choice: &Choice<'_>) -> bool {
    choice.allowed.is_none() && choice.log_probabilities.is_none_or(|n| n <= LISTED)
}

/// The records of a step's choices, as `lib/choice.wgsl` reads them.
#[derive(Debug, Default)]
pub struct Records {
    records: Vec<u32>,
    changes: Vec<u32>,
    /// Words for the logits that are changed.
    pub originals: usize,
    /// Whether some log-probability is wanted.
    pub log_probabilities: bool,
}

/// Words of a record.
const RECORD: usize = 16;

impl Records {
    /// Adds a choice from the logits of output row `output`. `more` are the tokens behind those that the caller knows;
    /// behind them come those at `places` in the buffer of tokens, which the device alone knows.
    pub fn push(&mut self, choice: &Choice<'_>, output: usize, more: &[u32], places: &[u32]) {
        let p = choice.params;
        let window = p.penalty_window().min(MOST_UNDER_WAY);
        let places = &places[places.len() - places.len().min(window)..];
        let mut list = Vec::new();
        edits(choice, more, places.len(), &mut list);
        let top_k = u32::try_from(p.top_k).unwrap_or(0);
        let seed = [p.seed as u32, (p.seed >> 32) as u32];
        let listed = choice.log_probabilities.map_or(NONE, |n| n as u32);
        self.records.push(output as u32);
        self.records.extend([p.temperature, p.top_p, p.min_p].map(f32::to_bits));
        self.records.push(top_k);
        self.records.extend(seed);
        self.records.extend([self.changes.len() as u32, list.len() as u32, places.len() as u32]);
        self.records.extend([p.repetition_penalty, p.presence_penalty, p.frequency_penalty].map(f32::to_bits));
        self.records.extend([listed, self.originals as u32, 0]);
        self.changes.extend(list.iter().flat_map(|e| [e.id, e.count, e.bias.to_bits()]));
        self.changes.extend(places);
        self.originals += 2 * (list.len() + places.len());
        self.log_probabilities |= choice.log_probabilities.is_some();
    }

    /// Choices.
    pub fn len(&self) -> usize {
        self.records.len() / RECORD
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.records.clear();
        self.changes.clear();
        (self.originals, self.log_probabilities) = (0, false);
    }

    /// Appends the records to the words of a batch.
    pub fn pack(&self, batch: &mut Vec<u32>) {
        let at = batch.len();
        batch[14] = at as u32;
        batch.extend(&self.records);
        let changes_at = batch.len() as u32;
        batch[at..].chunks_exact_mut(RECORD).for_each(|record| record[7] += changes_at);
        batch.extend(&self.changes);
    }
}

/// The dispatches that choose tokens, in the order in which they run; [`Dim::Choices`] workgroups. Bindings from 4 on are
/// in brackets.
#[derive(Clone, Debug)]
pub struct SampleDispatches {
    /// Biases and penalties [`tokens`, `originals`], where some choice has any.
    pub adjust: Dispatch,
    /// [`chunks`]
    pub chunks: Dispatch,
    /// The choice [`chunks`, `tokens`].
    pub choose: Dispatch,
    /// Takes `adjust` back [`originals`], where the logits are read afterwards.
    pub restore: Dispatch,
    /// Log-probabilities [`tokens`, `results`], where some are wanted.
    pub log_probabilities: Dispatch,
}

/// Words of the `chunks` buffer for `choices` choices.
pub fn chunks_len(vocab: usize, choices: usize) -> usize {
    4 * vocab.div_ceil(CHUNK as usize) * choices
}

/// Chooses from rows of `vocab` logits.
pub fn dispatches(caps: &Caps, logits: Place, vocab: usize) -> SampleDispatches {
    let chunks = (vocab as u32).div_ceil(CHUNK);
    let params = || Params::default().place(&logits).u(&[vocab as u32, chunks]).finish();
    let invocations = workgroup(caps, 256, if caps.software { 32 } else { 256 });
    let dispatch = |name, more: &[Access], defines: Defines, over_chunks: bool| {
        let mut bindings = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read];
        bindings.extend(more);
        let kernel = Kernel { name, defines, constants: Vec::new(), bindings };
        let grid = match over_chunks {
            true => [Dim::Fixed(chunks), Dim::Choices, Dim::Fixed(1)],
            false => [Dim::Choices, Dim::Fixed(1), Dim::Fixed(1)],
        };
        Dispatch { kernel, params: params(), grid, rows: Rows::Output }
    };
    let defines = || reduction(caps, invocations).with("CHUNK", CHUNK);
    let adjust = || defines().with("PLACES", MOST_UNDER_WAY);
    let (read, write) = (Access::Read, Access::ReadWrite);
    SampleDispatches {
        adjust: dispatch("adjust_logits", &[read, write], adjust(), false),
        chunks: dispatch("logit_chunks", &[write], defines(), true),
        choose: dispatch("sample", &[read, write], defines(), false),
        restore: dispatch("adjust_logits", &[read], adjust().flag("RESTORE", true), false),
        log_probabilities: dispatch("log_probabilities", &[read, write], defines().with("LISTED", LISTED), false),
    }
}
