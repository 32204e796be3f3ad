//! Perplexity by llama.cpp's definition: the text is cut into windows of the context's length, each window is run as a
//! sequence of its own, and the tokens of its second half are scored. Where the tokenizer begins texts with a BOS
//! token, BOS replaces each window's first token.

use handmill_runtime::step::Outputs;

use super::{Engine, Step};
use crate::Error;

/// The perplexity so far.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// Windows done.
    pub windows: usize,
    /// Windows in the text.
    pub of: usize,
    /// Tokens scored.
    pub scored: usize,
    /// Sum of negative log-probabilities.
    pub nll: f64,
}

impl Perplexity {
    /// `exp` of the mean negative log-probability.
    pub fn value(&self) -> f64 {
        (self.nll / self.scored.max(1) as f64).exp()
    }
}

impl Engine {
    /// Perplexity of `tokens` in windows of `window`; `progress` hears of each window.
    ///
    /// # Errors
    /// Fewer tokens than one window, a window longer than the context or shorter than 3 tokens, tokens without a logit
    /// or with the logit -inf; [`Error::NotFinite`] where a probability is NaN.
    pub fn perplexity(
        &mut self,
        tokens: &[u32],
        window: usize,
        mut progress: impl FnMut(Perplexity),
    ) -> Result<Perplexity, Error> {
        if window < 3 {
            return Err(Error::WindowTooShort { window });
        }
        self.check_context(window)?;
        let tokenizer = self.model().tokenizer()?;
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos_default());
        let vocab = self.model().info().vocab_size;
        let mut result = Perplexity { windows: 0, of: tokens.len() / window, scored: 0, nll: 0.0 };
        if result.of == 0 {
            return Err(Error::TextTooShort { tokens: tokens.len(), window });
        }
        let first_scored = window / 2;
        for window_tokens in tokens.chunks_exact(window) {
            let mut ids = window_tokens.to_vec();
            if let Some(bos) = bos {
                ids[0] = bos;
            }
            let mut sequence = self.sequence();
            sequence.kv.expect(window - 1);
            // The logits of a token score the next one, so rows from `first_scored` to the last but one count.
            let mut at = 0;
            while at < window - 1 {
                let scored = at >= first_scored;
                let limit = if scored {
                    self.output_rows_per_step(at)
                } else {
                    self.backend.step_tokens(at).min(first_scored - at)
                };
                let end = (at + limit).min(window - 1);
                let outputs = if scored { Outputs::All } else { Outputs::None };
                let step = Step::new(&mut sequence, &ids[at..end], outputs);
                let logits = self.step(&mut [step])?;
                for (row, &token) in logits.chunks_exact(vocab).zip(&ids[at + 1..]) {
                    let scored = log_probability(row, token);
                    let log = scored.ok_or(Error::TokenBeyondHead { token, rows: vocab })?;
                    if log.is_nan() {
                        drop(sequence);
                        return Err(self.not_finite(&ids[..end]));
                    }
                    if log == f64::NEG_INFINITY {
                        return Err(Error::Forbidden { token, window: result.windows + 1 });
                    }
                    result.nll -= log;
                    result.scored += 1;
                }
                at = end;
            }
            result.windows += 1;
            progress(result);
        }
        Ok(result)
    }
}

/// Natural logarithm of the softmax of `logits` at `token`; none where the token has no logit. NaN where a logit is NaN
/// or +inf.
fn log_probability(logits: &[f32], token: u32) -> Option<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
    Some(f64::from(logits.get(token as usize)? - max) - sum.ln())
}

#[cfg(test)]
mod tests {
    use super::log_probability;

    #[test]
    fn probabilities_of_odd_logits() {
        const INF: f32 = f32::INFINITY;
        assert_eq!(log_probability(&[1.0, 1.0], 1), Some(-f64::ln(2.0)));
        assert_eq!(log_probability(&[1.0, 1.0], 2), None, "beyond the rows");
        assert_eq!(log_probability(&[1.0, -INF], 1), Some(f64::NEG_INFINITY));
        assert_eq!(log_probability(&[1.0, -INF], 0), Some(0.0), "a forbidden token takes nothing");
        for odd in [[1.0, f32::NAN], [1.0, INF], [-INF, -INF]] {
            assert!(log_probability(&odd, 0).is_some_and(f64::is_nan), "{odd:?}");
        }
    }
}
