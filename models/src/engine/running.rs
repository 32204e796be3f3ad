//! Sequences that run together, and which of them waits while the cache is full.
//!
//! Runs come in the order in which they were added. Where a step finds no room, kept prefixes go first; then the youngest
//! run is set aside: its pages are given back, its tokens stay. It comes back as a prompt of all its tokens, of which
//! those that are still kept are not run again, so nothing is lost. The oldest run is never set aside, so that all
//! come to their end; no run overtakes an older one that waits.

use handmill_runtime::step::{Missing, Outputs, PAGE_TOKENS};

use super::{Engine, Sequence, Step};
use crate::Error;

/// The name of a run in its [`Running`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

/// The runs of one engine.
#[derive(Debug, Default)]
pub struct Running {
    /// The oldest first.
    runs: Vec<Run>,
    next: u64,
    set_aside: u64,
}

#[derive(Debug)]
struct Run {
    id: RunId,
    /// None while it waits.
    sequence: Option<Sequence>,
    /// All its tokens. The first ones are the sequence's; the others have yet to be run.
    tokens: Vec<u32>,
}

impl Run {
    fn pending(&self) -> &[u32] {
        let done = self.sequence.as_ref().map_or(0, Sequence::len);
        self.tokens.get(done..).unwrap_or_default()
    }
}

impl Running {
    /// No runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a run with the prompt `tokens`. It waits until [`Running::admit`].
    ///
    /// # Errors
    /// A prompt without tokens, or longer than the context.
    pub fn add(&mut self, engine: &Engine, tokens: Vec<u32>) -> Result<RunId, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        engine.check_context(tokens.len())?;
        let id = RunId(self.next);
        self.next += 1;
        self.runs.push(Run { id, sequence: None, tokens });
        Ok(id)
    }

    /// Begins the oldest run that waits, where the cache has room for its tokens and for a page of every run under way.
    /// Returns it; the caller asks again until none is returned.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn admit(&mut self, engine: &mut Engine) -> Result<Option<RunId>, Error> {
        let Some(at) = self.runs.iter().position(|run| run.sequence.is_none()) else { return Ok(None) };
        let sequence = engine.begin(&self.runs[at].tokens)?;
        let rest = self.runs[at].tokens.len() - sequence.len();
        let mut steps = vec![(&sequence, rest)];
        steps.extend(self.sequences().map(|(_, sequence)| (sequence, PAGE_TOKENS)));
        // Alone it begins in any case: its own step then says that it is too long for the cache.
        if !engine.make_room(&steps, false)?.is_none() && steps.len() > 1 {
            return Ok(None);
        }
        let run = &mut self.runs[at];
        run.sequence = Some(sequence);
        Ok(Some(run.id))
    }

    /// Makes room for a step that adds so many tokens to these runs; with `keep`, one that may be taken back. Returns the
    /// runs that were set aside for it, which the step goes without.
    ///
    /// # Errors
    /// Errors of the engine. Where the oldest run alone finds no room, there is no error: its step will have it.
    pub fn make_room(
        &mut self,
        engine: &mut Engine,
        wanted: &[(RunId, usize)],
        keep: bool,
    ) -> Result<Vec<RunId>, Error> {
        let mut aside = Vec::new();
        loop {
            let n = |id: RunId| wanted.iter().find(|(of, _)| *of == id).map_or(0, |(_, n)| *n);
            let steps: Vec<_> = self.sequences().map(|(id, sequence)| (sequence, n(id))).collect();
            let missing: Missing = engine.make_room(&steps, keep)?;
            if missing.is_none() || steps.len() <= 1 {
                return Ok(aside);
            }
            let Some(youngest) = self.runs.iter_mut().rev().find(|run| run.sequence.is_some()) else {
                return Ok(aside);
            };
            if let Some(sequence) = youngest.sequence.take() {
                // What is not needed at once may still be there when it comes back.
                engine.retain(&sequence)?;
            }
            aside.push(youngest.id);
            self.set_aside += 1;
        }
    }

    /// The next tokens of runs, for [`Engine::step`], in the order of their age: of each run as many as `wanted` says.
    /// The last token that is pending has logits.
    pub fn steps(&mut self, wanted: &[(RunId, usize)]) -> Vec<(RunId, Step<'_>)> {
        let steps = self.runs.iter_mut().filter_map(|run| {
            let (_, n) = wanted.iter().find(|(id, _)| *id == run.id)?;
            let sequence = run.sequence.as_mut()?;
            let pending = run.tokens.get(sequence.len()..)?;
            let tokens = &pending[..pending.len().min(*n)];
            let outputs = if tokens.len() == pending.len() { Outputs::Last } else { Outputs::None };
            (!tokens.is_empty()).then_some((run.id, Step::new(sequence, tokens, outputs)))
        });
        steps.collect()
    }

    /// Adds a token that was chosen for a run.
    pub fn push(&mut self, id: RunId, token: u32) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.id == id) {
            run.tokens.push(token);
        }
    }

    /// Ends a run, under way or waiting, and keeps what it has cached as a prefix for others. Returns its tokens; none
    /// where there is no such run.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn finish(&mut self, engine: &mut Engine, id: RunId) -> Result<Option<Vec<u32>>, Error> {
        let Some(at) = self.runs.iter().position(|run| run.id == id) else { return Ok(None) };
        let run = self.runs.remove(at);
        if let Some(sequence) = &run.sequence {
            engine.retain(sequence)?;
        }
        Ok(Some(run.tokens))
    }

    /// The runs under way and their sequences, the oldest first.
    pub fn sequences(&self) -> impl Iterator<Item = (RunId, &Sequence)> {
        self.runs.iter().filter_map(|run| Some((run.id, run.sequence.as_ref()?)))
    }

    /// The tokens of a run that have yet to be run.
    pub fn pending(&self, id: RunId) -> &[u32] {
        self.runs.iter().find(|run| run.id == id).map_or(&[], Run::pending)
    }

    /// Runs that wait for room.
    pub fn waiting(&self) -> usize {
        self.runs.iter().filter(|run| run.sequence.is_none()).count()
    }

    /// How often a run was set aside.
    pub fn times_set_aside(&self) -> u64 {
        self.set_aside
    }
}
