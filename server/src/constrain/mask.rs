//! The masks of one answer.

use std::sync::Arc;

use handmill_models::text::Tokenizer;
use llguidance::{Matcher, toktrie::SimpleVob};

use super::{ConstraintError, first_line};

/// Whether an answer may reason before it has the form that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reasoning {
    /// It may not.
    #[default]
    None,
    /// It may, between these marks.
    Between(String, String),
    /// The prompt has begun it; this mark ends it.
    Open(String),
}

/// The tokens that may come next in one answer. A clone is the same answer so far.
#[derive(Clone)]
pub struct Mask {
    matcher: Matcher,
    tokenizer: Arc<Tokenizer>,
    stage: Stage,
    /// Of the next token, once it was asked for.
    allowed: Option<SimpleVob>,
}

/// Where the answer is.
#[derive(Clone)]
enum Stage {
    /// At its start: this token opens reasoning, which that text closes.
    Start { open: u32, close: String },
    /// In reasoning, of which this text is the end so far.
    Reasoning { close: String, end: Vec<u8> },
    /// In the form.
    Form,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").finish_non_exhaustive()
    }
}

impl Mask {
    pub(super) fn new(matcher: Matcher, tokenizer: Arc<Tokenizer>, reasoning: &Reasoning) -> Self {
        let stage = match reasoning {
            Reasoning::None => Stage::Form,
            Reasoning::Open(close) => Stage::Reasoning { close: close.clone(), end: Vec::new() },
            // Words that are several tokens would have to be told from the form's own first ones.
            Reasoning::Between(open, close) => match tokenizer.encode(open, false, true).as_deref() {
                Ok(&[open]) => Stage::Start { open, close: close.clone() },
                _ => Stage::Form,
            },
        };
        Self { matcher, tokenizer, stage, allowed: None }
    }

    /// Finds out which tokens may come next, for [`Mask::allowed`].
    ///
    /// # Errors
    /// [`ConstraintError::Stuck`].
    pub fn prepare(&mut self) -> Result<(), ConstraintError> {
        if self.allowed.is_some() || matches!(self.stage, Stage::Reasoning { .. }) {
            return Ok(());
        }
        let mut allowed = self.matcher.compute_mask_or_eos().map_err(|e| stuck(&e))?;
        if let Stage::Start { open, .. } = self.stage {
            allowed.allow_token(open);
        }
        self.allowed = Some(allowed);
        Ok(())
    }

    /// A bit for each token of the vocabulary, token t in bit t mod 32 of word t / 32: whether it may come next. Where the
    /// form is complete, only an end of turn may. None where all may, and before [`Mask::prepare`].
    pub fn allowed(&self) -> Option<&[u32]> {
        self.allowed.as_ref().map(SimpleVob::as_slice)
    }

    /// Goes on with a token that was chosen.
    ///
    /// # Errors
    /// A token that was not allowed.
    pub fn push(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.allowed = None;
        match &mut self.stage {
            Stage::Start { open, close } if *open == token => {
                self.stage = Stage::Reasoning { close: std::mem::take(close), end: Vec::new() };
                return Ok(());
            }
            Stage::Start { .. } => self.stage = Stage::Form,
            Stage::Reasoning { close, end } => {
                end.extend(self.tokenizer.token_bytes(token).unwrap_or_default());
                if end.windows(close.len().max(1)).any(|window| window == close.as_bytes()) {
                    self.stage = Stage::Form;
                } else {
                    end.drain(..end.len().saturating_sub(close.len()));
                }
                return Ok(());
            }
            Stage::Form => {}
        }
        if self.is_at_end() {
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|e| stuck(&e))
    }

    /// Whether nothing but an end may come.
    pub fn is_at_end(&self) -> bool {
        matches!(self.stage, Stage::Form) && self.matcher.is_stopped() && !self.matcher.is_error()
    }
}

fn stuck(error: &dyn std::fmt::Display) -> ConstraintError {
    ConstraintError::Stuck(first_line(&error.to_string()))
}
