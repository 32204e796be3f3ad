//! Vectors that stand for texts.

use handmill_runtime::step::Outputs;

use super::{Engine, Step};
use crate::Error;

/// How the hidden states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// That of the last token.
    Last,
    /// Their mean.
    Mean,
}

impl Engine {
    /// The vector `[width]` of `tokens`, from the hidden states behind the last norm; its length is not made 1. The head does
    /// not run. The engine must have been made with [`EngineOptions::hidden`](super::EngineOptions::hidden).
    ///
    /// # Errors
    /// No tokens, or more than the context holds; [`Error::NotFinite`] where an element is no finite number; else as
    /// [`Engine::step`].
    pub fn embed(&mut self, tokens: &[u32], pooling: Pooling) -> Result<Vec<f32>, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.check_context(tokens.len())?;
        let mut sequence = self.sequence();
        sequence.kv.expect(tokens.len());
        let plan = self.backend.plan();
        // Without hidden states the first step is refused.
        let width = plan.hidden.map_or(1, |hidden| plan.graph.value(hidden).width);
        let mut sums = vec![0.0f64; width];
        let mut rest = tokens;
        while !rest.is_empty() {
            let (part, more) = rest.split_at(self.output_rows_per_step(sequence.len()).min(rest.len()));
            let wanted = match pooling {
                Pooling::Last if more.is_empty() => Outputs::Last,
                Pooling::Last => Outputs::None,
                Pooling::Mean => Outputs::All,
            };
            let ticket = self.submit(&mut [Step::new(&mut sequence, part, Outputs::None).with_hidden(wanted)])?;
            let hidden = self.collect(ticket)?.hidden;
            for row in hidden.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            rest = more;
        }
        let n = if pooling == Pooling::Mean { tokens.len() } else { 1 };
        let vector: Vec<f32> = sums.into_iter().map(|sum| (sum / n as f64) as f32).collect();
        if vector.iter().all(|x| x.is_finite()) {
            return Ok(vector);
        }
        drop(sequence);
        Err(self.not_finite(tokens))
    }
}
