//! From logits to the next token: the rule, and what comes out. Both devices choose by it: [`Sampler`] on a CPU,
//! `sample.wgsl` with its neighbours on a GPU.
//!
//! Steps, in this order (llama.cpp's default order): logit bias, penalties, the mask of allowed tokens; then at
//! temperature 0 the largest logit; else top-k, top-p, min-p, temperature, and a draw. Top-p and min-p see the
//! probabilities at temperature 1; top-p those among the tokens that top-k left.
//!
//! The draw is an exponential race: of random numbers E(token) ~ Exp(1), the least E / weight wins with the probability
//! that its weight has. E is a hash of the seed, the row's position and the token: a stream without a state, so that a
//! seed draws the same on every device, whatever else runs, and when a row is run again.
//!
//! Log-probabilities are those of the model: of the logits before bias, penalties and mask, at temperature 1.

mod host;
mod random;

pub use host::Sampler;
#[cfg(feature = "gpu")]
pub(crate) use host::edits;
#[cfg(all(test, feature = "gpu"))]
pub(crate) use random::pcg;

/// Parameters of the choice of the next token. The defaults are llama.cpp's.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits: below 1 likely tokens get likelier. 0 takes the likeliest token. Default 0.8.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens; 0 keeps all. Default 40.
    pub top_k: usize,
    /// Keep the fewest tokens that together reach this probability; 1 keeps all. Default 0.95.
    /// Source: Holtzman et al., The Curious Case of Neural Text Degeneration (2019).
    pub top_p: f32,
    /// Keep tokens whose probability is at least this share of the likeliest one's; 0 keeps all. Default 0.05.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 does nothing. Default 1.
    /// Source: Keskar et al., CTRL (2019).
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens seen before. Default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens seen before, once for each occurrence. Default 0.
    pub frequency_penalty: f32,
    /// Number of last tokens that the three penalties look at; `usize::MAX` looks at all. Default 64.
    pub penalty_last_n: usize,
    /// Added to the logits of these tokens; −∞ forbids one. Ids outside of the vocabulary are ignored; of several
    /// biases of a token the sum counts. Default none.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers. Default 0.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_last_n: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The likeliest token each time, without penalties or biases.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] with the first value out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |name, value: f32, allowed, ok: bool| {
            // `ok` is false for NaN in every range.
            if ok { Ok(()) } else { Err(SamplingError::OutOfRange { name, value, allowed }) }
        };
        let (t, p, m) = (self.temperature, self.top_p, self.min_p);
        check("temperature", t, "0 or more, finite", t >= 0.0 && t.is_finite())?;
        check("top_p", p, "above 0 and up to 1", p > 0.0 && p <= 1.0)?;
        check("min_p", m, "from 0 to 1", (0.0..=1.0).contains(&m))?;
        let r = self.repetition_penalty;
        check("repetition_penalty", r, "above 0, finite", r > 0.0 && r.is_finite())?;
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check(name, value, "finite", value.is_finite())?;
        }
        for &(_, bias) in &self.logit_bias {
            check("logit_bias", bias, "finite, or -inf to forbid a token", bias < f32::INFINITY)?;
        }
        Ok(())
    }

    /// The number of last tokens that penalties look at: 0 where there are none.
    pub(crate) fn penalty_window(&self) -> usize {
        let none = self.repetition_penalty == 1.0 && self.presence_penalty == 0.0 && self.frequency_penalty == 0.0;
        if none { 0 } else { self.penalty_last_n }
    }

    /// A logit with its bias, then with the penalties for a token that was seen `count` times.
    pub(crate) fn adjusted(&self, logit: f32, bias: f32, count: u32) -> f32 {
        let logit = logit + bias;
        if count == 0 {
            return logit;
        }
        let logit = if logit > 0.0 { logit / self.repetition_penalty } else { logit * self.repetition_penalty };
        logit - (count as f32 * self.frequency_penalty + self.presence_penalty)
    }
}

/// How the token behind the last row of a sequence's step is chosen.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Choice<'a> {
    /// The rule.
    pub params: &'a SamplingParams,
    /// The tokens before those of the step, for the penalties: as many as there are, or the last ones that the
    /// penalties look at. Tokens that steps under way have chosen for this sequence are none of them: the backend adds
    /// those, and the step's own.
    pub recent: &'a [u32],
    /// A bit for each token, from the lowest bit of the first word on; tokens whose bit is 0 or missing are forbidden.
    /// `None` allows all. On a GPU such rows are chosen by the host.
    pub allowed: Option<&'a [u32]>,
    /// Asks for the chosen token's log-probability, and for as many of the likeliest tokens with theirs.
    pub log_probabilities: Option<usize>,
}

impl<'a> Choice<'a> {
    /// By `params` alone: no tokens before, all allowed, no log-probabilities.
    pub fn new(params: &'a SamplingParams) -> Self {
        Self { params, recent: &[], allowed: None, log_probabilities: None }
    }
}

/// The token that was chosen for a row.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Chosen {
    /// The token. None where no logit allows one, and where one is +∞ or no number: nothing can then be said about the
    /// others.
    pub token: Option<u32>,
    /// Its log-probability (natural logarithm), where it was asked for. Where the token is among [`Chosen::likeliest`],
    /// the two numbers are the same.
    pub log_probability: Option<f32>,
    /// The likeliest tokens with their log-probabilities, likeliest first; of equals the lower id first.
    pub likeliest: Vec<(u32, f32)>,
}

/// Reasons why no token could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A parameter is out of range.
    #[error("{name} is {value}; it must be {allowed}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f32,
        /// Its range.
        allowed: &'static str,
    },
    /// All logits are −∞, or forbidden.
    #[error("none of the {n} logits is a number above -inf; the model, a bias or a mask forbids every token")]
    NoCandidate {
        /// Number of logits.
        n: usize,
    },
}

#[cfg(test)]
mod tests;
