//! Sequences that begin with what others have left in the cache.

use handmill_runtime::{
    BackendError,
    step::{Missing, PAGE_TOKENS, Pages, PrefixLimits, PrefixStats, Prefixes, SequenceKv},
};

use super::{Engine, Sequence};
use crate::Error;

/// Salt of prefixes that depend on nothing but their tokens.
const PLAIN: u64 = 0;

/// Prefixes may fill the whole cache: they make room for whoever needs it. States may take as many bytes as the keys and
/// values of all tokens do.
pub(super) fn new(mut pages: Pages<'_>, cache_tokens: usize) -> Prefixes {
    let of_tokens = pages.bytes_per_token().saturating_mul(cache_tokens);
    let states = of_tokens.checked_div(pages.bytes_per_sequence()).map_or(0, |n| n.max(8));
    Prefixes::new(PrefixLimits { tokens: cache_tokens, states: states.min(pages.room().states) })
}

impl Engine {
    /// A sequence for the prompt `tokens`. It already holds as many of them as the cache has from sequences that were
    /// begun so or [retained](Engine::retain), but at most all but the last; the caller runs the others, from
    /// `tokens[sequence.len()..]` on.
    ///
    /// # Errors
    /// A prompt longer than the context.
    pub fn begin(&mut self, tokens: &[u32]) -> Result<Sequence, Error> {
        self.check_context(tokens.len())?;
        let mut sequence = Sequence { shared: true, ..Sequence::default() };
        if self.shares(tokens.len()) {
            let (mut pages, prefixes) = (self.backend.pages(), &mut self.prefixes);
            sequence.kv = prefixes.longest(&mut pages, tokens, PLAIN).map_err(BackendError::from)?;
            sequence.tokens.extend_from_slice(&tokens[..sequence.kv.len()]);
        }
        if tokens.len() > 1 {
            sequence.expect(tokens.len());
        }
        Ok(sequence)
    }

    /// Another sequence with the first `len` tokens of this one; none where [`Engine::truncate`] could not go back there.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn fork_at(&mut self, sequence: &Sequence, len: usize) -> Result<Option<Sequence>, Error> {
        let kv = self.backend.pages().fork_at(&sequence.kv, len).map_err(BackendError::from)?;
        Ok(kv.map(|kv| Sequence { tokens: sequence.tokens.iter().copied().take(kv.len()).collect(), kv, ..*sequence }))
    }

    /// Keeps the tokens of a sequence that goes no further, so that later ones can begin with them. The sequence may go on
    /// nevertheless; its next step then copies a page.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn retain(&mut self, sequence: &Sequence) -> Result<(), Error> {
        self.keep(sequence, true)
    }

    /// Keeps the whole pages of a sequence of [`Engine::begin`] while it goes on. Models with sliding windows or recurrent
    /// states can begin at the lengths at which this was called, so a caller that runs a prompt by [`Engine::step`]
    /// calls it after every part; see [`Engine::part_tokens`].
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn keep_pages(&mut self, sequence: &Sequence) -> Result<(), Error> {
        if sequence.shared { self.keep(sequence, false) } else { Ok(()) }
    }

    fn keep(&mut self, sequence: &Sequence, tail: bool) -> Result<(), Error> {
        if !self.shares(sequence.longest.max(sequence.len())) {
            return Ok(());
        }
        let (mut pages, prefixes) = (self.backend.pages(), &mut self.prefixes);
        let kept = prefixes.insert(&mut pages, &sequence.kv, &sequence.tokens, PLAIN, tail);
        Ok(kept.map_err(BackendError::from)?)
    }

    /// Whether a token of a sequence of `len` tokens is the same in every other that begins alike. Where rotations depend
    /// on the length, it is so up to the length at which they begin to.
    fn shares(&self, len: usize) -> bool {
        self.backend.plan().graph.ropes().iter().all(|rope| rope.regime(len) == 0)
    }

    /// Tokens to run next of a prompt of which `rest` are left, `most` at most. Of a sequence of [`Engine::begin`] a part
    /// ends where a page does if it can, for models that can begin only where a part ended.
    pub fn part_tokens(&self, sequence: &Sequence, rest: usize, most: usize) -> usize {
        let len = sequence.len();
        let most = self.backend.step_tokens(len).min(most).min(rest);
        let graph = &self.backend.plan().graph;
        let anywhere = graph.states().is_empty() && graph.caches().iter().all(|cache| cache.window.is_none());
        if !sequence.shared || anywhere {
            return most;
        }
        // The last token always is in the last part: it is run again where the prompt is.
        let end = (len + most).min(len + rest.saturating_sub(1)) / PAGE_TOKENS * PAGE_TOKENS;
        if end > len { end - len } else { most }
    }

    /// Lets go of kept prefixes, the least recently used first, until a step has room that adds so many tokens to each of
    /// these sequences; with `keep`, a step that may be taken back. Returns what is then still missing.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn make_room(&mut self, steps: &[(&Sequence, usize)], keep: bool) -> Result<Missing, Error> {
        let steps: Vec<_> = steps.iter().map(|(sequence, n)| (&sequence.kv, *n)).collect();
        self.make_room_for(&steps, keep)
    }

    pub(super) fn make_room_for(&mut self, steps: &[(&SequenceKv, usize)], keep: bool) -> Result<Missing, Error> {
        let mut pages = self.backend.pages();
        let mut room = || {
            let missing = pages.missing(steps, keep)?;
            if missing.is_none() || self.prefixes.evict(&mut pages, &missing)? {
                return Ok(Missing::default());
            }
            pages.missing(steps, keep)
        };
        Ok(room().map_err(BackendError::from)?)
    }

    /// Forgets all kept prefixes.
    ///
    /// # Errors
    /// None, as things are; the cache is the backend's.
    pub fn forget_prefixes(&mut self) -> Result<(), Error> {
        Ok(self.prefixes.clear(&mut self.backend.pages()).map_err(BackendError::from)?)
    }

    /// Tokens that are kept for sequences to begin with.
    pub fn kept_tokens(&self) -> usize {
        self.prefixes.tokens()
    }

    /// Counts of the prefixes' use.
    pub fn prefix_stats(&self) -> PrefixStats {
        self.prefixes.stats()
    }

    pub(super) fn check_context(&self, tokens: usize) -> Result<(), Error> {
        if tokens > self.n_ctx { Err(Error::ContextFull { tokens, n_ctx: self.n_ctx }) } else { Ok(()) }
    }
}
