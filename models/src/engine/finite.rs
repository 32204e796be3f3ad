//! Values that are not finite: how they are noticed, and which op they come from.
//!
//! No kernel checks values inside a step. Callers that take logits check those; where one is not finite the tokens are
//! run once more with every op observed. -inf is a valid logit: some models forbid tokens by it.

use handmill_runtime::{
    Observed,
    graph::{StageKind, ValueId},
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

use super::Engine;
use crate::Error;

/// A value that is not finite, and the stage of the plan that computes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub stage: usize,
    pub value: ValueId,
}

/// Whether all logits are finite or -inf.
pub(super) fn are_logits(logits: &[f32]) -> bool {
    // Without an early end, so that the compiler can use vectors. Comparisons with NaN are false.
    logits.iter().fold(true, |all, x| all & (*x < f32::INFINITY))
}

impl Engine {
    /// Names the first op that computes a value that is not finite when `tokens` run as a new sequence; the last op
    /// where all are finite this time. The cache must have room for all tokens.
    pub(super) fn not_finite(&mut self, tokens: &[u32]) -> Error {
        match self.first_not_finite(tokens) {
            Ok(found) => {
                let plan = self.backend.plan();
                let last = Found { stage: plan.stages.len().saturating_sub(1), value: plan.output };
                self.not_finite_in(found.unwrap_or(last))
            }
            Err(error) => error,
        }
    }

    /// The error for a value that is not finite although its inputs are.
    pub(super) fn not_finite_in(&mut self, found: Found) -> Error {
        let rounds = self.backend.pages().kv_type() != KvType::F32;
        let plan = self.backend.plan();
        let stage = &plan.stages[found.stage];
        let cached = matches!(stage.kind, StageKind::Attention(_) | StageKind::Pool(_) | StageKind::Select(_));
        // A stage of the plan may begin with other ops than the one that gives it its name.
        let node = plan.graph.nodes().iter().find(|n| n.output == found.value);
        let (name, op) = match node {
            Some(node) if node.name != stage.name => (node.name.clone(), node.op.kind().to_owned()),
            _ => (stage.name.clone(), plan.op_label(found.stage)),
        };
        Error::NotFinite { name, op, beyond_f16: rounds && cached }
    }

    /// Runs `tokens` part by part until a value is not finite.
    pub(super) fn first_not_finite(&mut self, tokens: &[u32]) -> Result<Option<Found>, Error> {
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
            let step = SequenceStep::new(&mut sequence, tokens, Outputs::Last);
            self.backend.forward_observed(&mut [step], &mut |seen| {
                if first.is_none() && !is_fine(seen) {
                    // Where the stage's kernel made a sum, its own addend counts: the other part was observed before.
                    first = Some(Found { stage: seen.stage, value: seen.addend.unwrap_or(seen.value) });
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
