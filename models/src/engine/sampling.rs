//! From logits to the next token.
//!
//! Steps, in this order (llama.cpp's default order): logit bias, penalties, then at temperature 0 the largest logit;
//! else top-k, top-p, min-p, temperature, and a draw. Top-p and min-p see the probabilities at temperature 1; top-p
//! those among the tokens that top-k left.
//!
//! Everything is computed with the four basic operations in a fixed order, the exponential and the random numbers
//! included, so that a seed gives the same tokens on every machine that gives the same logits. After the first token
//! nothing is allocated, and a vocabulary of 262,144 is never sorted as a whole.

mod defaults;

pub use defaults::SamplingDefaults;

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

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
    /// Added to the logits of these tokens; −∞ forbids one. Ids outside of the vocabulary are ignored. Default none.
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

    pub(super) fn penalises(&self) -> bool {
        self.penalty_last_n > 0
            && (self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }
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
    /// All logits are −∞ or NaN.
    #[error("none of the {n} logits is a number above -inf; the model or logit_bias forbids every token")]
    NoCandidate {
        /// Number of logits.
        n: usize,
    },
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// e^(logit − largest logit).
    weight: f32,
}

/// Likeliest first; of equals the lower id first. The order is total, because NaN is left out before.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Chooses tokens, one after the other, for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: SplitMix64,
    /// The tokens that the penalties look at, and the count of each.
    recent: VecDeque<u32>,
    counts: HashMap<u32, u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// # Errors
    /// Parameters that [`SamplingParams::validate`] refuses.
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        params.validate()?;
        let rng = SplitMix64(params.seed);
        Ok(Self { params, rng, recent: VecDeque::new(), counts: HashMap::new(), candidates: Vec::new() })
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Tells the penalties that `token` is part of the text: each token of the prompt, and each one chosen.
    pub fn accept(&mut self, token: u32) {
        if !self.params.penalises() {
            return;
        }
        if self.recent.len() >= self.params.penalty_last_n
            && let Some(old) = self.recent.pop_front()
            && let Some(count) = self.counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
        self.recent.push_back(token);
        *self.counts.entry(token).or_default() += 1;
    }

    /// Chooses a token by `logits` `[vocab]`, which bias and penalties change in place. It does not
    /// [`accept`](Self::accept) the token. A logit that is NaN counts as −∞.
    ///
    /// # Errors
    /// [`SamplingError::NoCandidate`] if every token is forbidden.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, SamplingError> {
        for &(id, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        self.penalise(logits);
        let (best, max) = argmax(logits).ok_or(SamplingError::NoCandidate { n: logits.len() })?;
        // One infinite logit makes all others impossible.
        if self.params.temperature == 0.0 || max == f32::INFINITY {
            return Ok(best);
        }
        self.candidates.clear();
        if self.params.top_k > 0 && self.params.top_k < logits.len() {
            self.keep_top_k(logits, max);
            self.keep_top_p_sorted();
        } else if self.params.top_p < 1.0 {
            self.keep_top_p(logits, max);
        } else {
            self.keep_above(logits, max, self.params.min_p);
        }
        let min_p = self.params.min_p;
        self.candidates.retain(|c| c.weight >= min_p);
        Ok(self.draw(max).unwrap_or(best))
    }

    fn penalise(&self, logits: &mut [f32]) {
        if !self.params.penalises() {
            return;
        }
        let p = &self.params;
        for (&id, &count) in &self.counts {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / p.repetition_penalty } else { *logit * p.repetition_penalty };
            *logit -= count as f32 * p.frequency_penalty + p.presence_penalty;
        }
    }

    /// The k likeliest, sorted. A buffer of a few times k is cut back to k whenever it is full; from then on only
    /// logits above the worst of these k get in: O(n) in all, and mostly one comparison a logit.
    fn keep_top_k(&mut self, logits: &[f32], max: f32) {
        let k = self.params.top_k;
        let full = k.saturating_mul(2).max(k + 512).min(logits.len() + 1);
        let mut threshold = f32::NEG_INFINITY;
        for (id, &logit) in logits.iter().enumerate() {
            // An equal logit further right ranks lower, so it is left out. So is NaN.
            if logit > threshold {
                self.candidates.push(Candidate { id: id as u32, logit, weight: 0.0 });
                if self.candidates.len() == full {
                    threshold = self.cut_to(k);
                }
            }
        }
        self.cut_to(k);
        self.candidates.sort_unstable_by(by_rank);
        for c in &mut self.candidates {
            c.weight = exp(c.logit - max);
        }
    }

    /// Leaves the k likeliest candidates, in any order, and returns the smallest logit among them.
    fn cut_to(&mut self, k: usize) -> f32 {
        if self.candidates.len() > k {
            self.candidates.select_nth_unstable_by(k - 1, by_rank);
            self.candidates.truncate(k);
        }
        self.candidates.iter().map(|c| c.logit).fold(f32::INFINITY, f32::min)
    }

    /// Top-p among candidates that are sorted.
    fn keep_top_p_sorted(&mut self) {
        if self.params.top_p < 1.0 {
            let total: f64 = self.candidates.iter().map(|c| c.weight as f64).sum();
            let keep = reach(&self.candidates, total * self.params.top_p as f64).unwrap_or(self.candidates.len());
            self.candidates.truncate(keep);
        }
    }

    /// Top-p among all tokens. Tokens too unlikely to matter all together are left out first; of the rest, growing
    /// parts are sorted until the probability is reached.
    fn keep_top_p(&mut self, logits: &[f32], max: f32) {
        let total = sum_of_weights(logits, max);
        let target = total * self.params.top_p as f64;
        // If all tokens below this weight had this weight, together they would still fit into the probability that
        // top-p cuts off. Halved, so that rounding cannot matter.
        let least = 0.5 * (total - target) / logits.len() as f64;
        self.keep_above(logits, max, least as f32);
        let mut sorted = 0;
        let mut step = 256;
        while sorted < self.candidates.len() {
            let end = (sorted + step).min(self.candidates.len());
            let rest = &mut self.candidates[sorted..];
            if end - sorted < rest.len() {
                rest.select_nth_unstable_by(end - sorted - 1, by_rank);
            }
            self.candidates[sorted..end].sort_unstable_by(by_rank);
            if let Some(keep) = reach(&self.candidates[..end], target) {
                self.candidates.truncate(keep);
                return;
            }
            sorted = end;
            step *= 4;
        }
    }

    /// All tokens of at least this weight, in the order of their ids.
    fn keep_above(&mut self, logits: &[f32], max: f32, least: f32) {
        for (id, &logit) in logits.iter().enumerate() {
            let weight = exp(logit - max);
            if weight > 0.0 && weight >= least {
                self.candidates.push(Candidate { id: id as u32, logit, weight });
            }
        }
    }

    /// Draws one of the candidates at the temperature.
    fn draw(&mut self, max: f32) -> Option<u32> {
        let cold = 1.0 / self.params.temperature;
        for c in &mut self.candidates {
            c.weight = exp((c.logit - max) * cold);
        }
        let total: f64 = self.candidates.iter().map(|c| c.weight as f64).sum();
        let mut left = self.rng.next_unit() * total;
        for c in &self.candidates {
            left -= c.weight as f64;
            if left < 0.0 {
                return Some(c.id);
            }
        }
        // Only rounding can lead here.
        self.candidates.iter().rev().find(|c| c.weight > 0.0).map(|c| c.id)
    }
}

/// Number of sorted candidates that together reach `target`.
fn reach(sorted: &[Candidate], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    sorted
        .iter()
        .position(|c| {
            sum += c.weight as f64;
            sum >= target
        })
        .map(|i| i + 1)
}

/// The index and value of the largest logit, the first of equals. NaN is skipped; `None` if nothing exceeds −∞.
fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = None;
    let mut max = f32::NEG_INFINITY;
    for (i, &logit) in logits.iter().enumerate() {
        if logit > max {
            max = logit;
            best = Some((i as u32, logit));
        }
    }
    best
}

/// Σ e^(logit − max), in 8 running sums so that the compiler can use vectors.
fn sum_of_weights(logits: &[f32], max: f32) -> f64 {
    let mut sums = [0.0f64; 8];
    let chunks = logits.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|&l| exp(l - max) as f64).sum();
    for chunk in chunks {
        for (sum, &logit) in sums.iter_mut().zip(chunk) {
            *sum += exp(logit - max) as f64;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// e^x for x ≤ 0, within 2 units in the last place; 0 for NaN and where the result would be subnormal.
///
/// Not `f32::exp`: the system implements it, with results that differ between systems.
#[inline]
fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2; ln 2 is split in two so that r is exact.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let x_safe = if x > -87.0 { x } else { -87.0 };
    let n = (x_safe * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x_safe - n * 0.693_359_4) - n * -2.121_944_4e-4;
    // Taylor's series up to r^7: the rest is below 2^-28.
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let scale = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x > -87.0 { p * scale } else { 0.0 }
}

/// Random numbers. Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators (2014).
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to but not 1, in steps of 2^-53.
    fn next_unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
