//! Numbers that are none: how they are noticed, and which op they come from.
//!
//! Nothing looks at the values inside a step. Whoever takes logits looks at those, and where one is not finite the tokens
//! are run once more with an eye on every op. -inf is a logit like any other: some models forbid tokens by it.

use handmill_runtime::{
    Observed,
    graph::StepKind,
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

use super::Engine;
use crate::Error;

/// Whether all logits are numbers, or forbid their token.
pub(super) fn are_logits(logits: &[f32]) -> bool {
    // No early end, so that vectors can do it. Of what is no number every comparison is false.
    logits.iter().fold(true, |all, x| all & (*x < f32::INFINITY))
}

impl Engine {
    /// Says which op is the first to compute something that is not finite when `tokens` run as a sequence of their own; the
    /// last one where none does this time. There must be room in the cache for all of them.
    pub(super) fn not_finite(&mut self, tokens: &[u32]) -> Error {
        match self.first_not_finite(tokens) {
            Ok(found) => self.not_finite_in(found.unwrap_or(self.backend.plan().steps.len().saturating_sub(1))),
            Err(error) => error,
        }
    }

    /// The error for a step of the plan whose result is not finite though what it reads is.
    pub(super) fn not_finite_in(&mut self, step: usize) -> Error {
        let half = self.backend.pages().kv_type() == KvType::F16;
        let plan = self.backend.plan();
        let cached = matches!(plan.steps[step].kind, StepKind::Attention(_) | StepKind::Pool(_) | StepKind::Select(_));
        Error::NotFinite { step: plan.steps[step].name.clone(), op: plan.op_label(step), beyond_f16: half && cached }
    }

    /// Runs `tokens` part by part until the result of a step of the plan is not finite: that step.
    pub(super) fn first_not_finite(&mut self, tokens: &[u32]) -> Result<Option<usize>, Error> {
        let output = self.backend.plan().output;
        let is_fine = |seen: &Observed| match seen.value == output {
            true => are_logits(&seen.data),
            false => seen.data.iter().all(|x| x.is_finite()),
        };
        let mut first = None;
        let mut sequence = SequenceKv::default();
        sequence.expect(tokens.len());
        let mut rest = tokens;
        while !rest.is_empty() && first.is_none() {
            let (tokens, more) = rest.split_at(self.backend.step_tokens(sequence.len()).min(rest.len()));
            let step = SequenceStep { kv: &mut sequence, tokens, outputs: Outputs::Last };
            self.backend.forward_observed(&mut [step], &mut |seen| {
                if first.is_none() && !is_fine(seen) {
                    first = Some(seen.step);
                }
            })?;
            rest = more;
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::are_logits;

    #[test]
    fn a_forbidden_token_has_a_logit_and_nan_is_none() {
        assert!(are_logits(&[0.0, f32::NEG_INFINITY, -1e30]));
        assert!(!are_logits(&[0.0, f32::NAN]));
        assert!(!are_logits(&[f32::INFINITY, 1.0]));
    }
}
