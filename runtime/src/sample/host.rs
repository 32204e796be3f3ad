//! The choice on a CPU. After the first token nothing is allocated, and a vocabulary of 262,144 is never sorted as a whole.

use std::cmp::Ordering;

use super::{
    Choice, Chosen, SamplingParams,
    random::{MOST_LUCK, exp, ln, luck, stream},
};

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// e^(logit − largest logit).
    weight: f32,
}

/// Likeliest first; of equals, which both zeroes are, the lower id first. The order is total, because NaN is left out
/// before.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// A logit that bias or penalties change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edit {
    pub id: u32,
    /// Times that the token was seen.
    pub count: u32,
    pub bias: f32,
}

/// Writes the changes that `choice` makes to logits, each token once, in the order of their ids. `more` are tokens behind
/// [`Choice::recent`], of which another `later` follow that are not known yet.
pub(crate) fn edits(choice: &Choice<'_>, more: &[u32], later: usize, edits: &mut Vec<Edit>) {
    edits.clear();
    edits.extend(choice.params.logit_bias.iter().map(|&(id, bias)| Edit { id, count: 0, bias }));
    let window = choice.params.penalty_window().saturating_sub(later);
    let more = &more[more.len().saturating_sub(window)..];
    let recent = &choice.recent[choice.recent.len().saturating_sub(window - more.len())..];
    edits.extend(recent.iter().chain(more).map(|&id| Edit { id, count: 1, bias: 0.0 }));
    // Stable, so that several biases of one token are added in their order.
    edits.sort_by_key(|e| e.id);
    edits.dedup_by(|e, kept| {
        let same = e.id == kept.id;
        if same {
            kept.count += e.count;
            kept.bias += e.bias;
        }
        same
    });
}

/// Chooses tokens. It holds nothing but memory to work in, so one serves any number of sequences.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    candidates: Vec<Candidate>,
    edits: Vec<Edit>,
    /// A row with its changes; of a row with a mask, the logits of the tokens that are allowed.
    changed: Vec<f32>,
    /// These tokens, in ascending order.
    allowed: Vec<u32>,
}

impl Sampler {
    /// Chooses the token behind the row with these `logits` `[vocab]`, which stands at `position` of its sequence. `more`
    /// are the tokens behind [`Choice::recent`], up to the row's own.
    pub fn choose(&mut self, logits: &[f32], choice: &Choice<'_>, more: &[u32], position: usize) -> Chosen {
        // Without an early end, so that the compiler can use vectors. Comparisons with NaN are false.
        if !logits.iter().fold(true, |all, x| all & (*x < f32::INFINITY)) {
            return Chosen::default();
        }
        edits(choice, more, 0, &mut self.edits);
        let token = if self.edits.is_empty() && choice.allowed.is_none() {
            self.draw_from(logits, None, choice.params, position)
        } else {
            let (mut changed, mut allowed) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.allowed));
            changed.clear();
            match choice.allowed {
                None => changed.extend_from_slice(logits),
                Some(mask) => gather(logits, mask, &mut allowed, &mut changed),
            }
            let ids = choice.allowed.map(|_| &allowed[..]);
            for edit in &self.edits {
                let place = ids.map_or(Ok(edit.id as usize), |ids| ids.binary_search(&edit.id));
                if let Some(logit) = place.ok().and_then(|place| changed.get_mut(place)) {
                    *logit = choice.params.adjusted(*logit, edit.bias, edit.count);
                }
            }
            let token = self.draw_from(&changed, ids, choice.params, position);
            (self.changed, self.allowed) = (changed, allowed);
            token
        };
        let mut chosen = Chosen { token, ..Chosen::default() };
        if let (Some(n), Some(token)) = (choice.log_probabilities, token) {
            self.log_probabilities(logits, token, n, &mut chosen);
        }
        chosen
    }

    /// A token by finite or −∞ logits: those of the tokens `ids`, which ascend, or of all.
    fn draw_from(
        &mut self,
        logits: &[f32],
        ids: Option<&[u32]>,
        params: &SamplingParams,
        position: usize,
    ) -> Option<u32> {
        let (best, max) = argmax(logits)?;
        let best = ids.map_or(best, |ids| ids[best as usize]);
        // Penalties may overflow.
        if max == f32::INFINITY {
            return None;
        }
        if params.temperature == 0.0 {
            return Some(best);
        }
        if params.top_k > 0 && params.top_k < logits.len() {
            self.keep_top_k(logits, max, params.top_k);
            self.keep_top_p_sorted(params.top_p);
        } else if params.top_p < 1.0 {
            self.keep_top_p(logits, max, params.top_p);
        } else {
            self.keep_above(logits, max, params.min_p);
        }
        self.candidates.retain(|c| c.weight >= params.min_p);
        if let Some(ids) = ids {
            self.candidates.iter_mut().for_each(|c| c.id = ids[c.id as usize]);
        }
        Some(self.race(max, params.temperature, stream(params.seed, position)).unwrap_or(best))
    }

    /// Fills in the log-probabilities of `token` and of the `n` likeliest.
    fn log_probabilities(&mut self, logits: &[f32], token: u32, n: usize, chosen: &mut Chosen) {
        let Some((_, max)) = argmax(logits) else { return };
        let log_sum = ln(sum_of_weights(logits, max) as f32);
        let log_probability = |logit: f32| (logit - max) - log_sum;
        chosen.log_probability = logits.get(token as usize).map(|logit| log_probability(*logit));
        if n > 0 {
            self.keep_top_k(logits, max, n.min(logits.len()));
            chosen.likeliest.extend(self.candidates.iter().map(|c| (c.id, log_probability(c.logit))));
        }
    }

    /// The k likeliest, sorted. A buffer of a few times k is cut back to k whenever it is full; from then on only
    /// logits above the worst of these k get in: O(n) in all, and mostly one comparison a logit.
    fn keep_top_k(&mut self, logits: &[f32], max: f32, k: usize) {
        self.candidates.clear();
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
    fn keep_top_p_sorted(&mut self, top_p: f32) {
        if top_p < 1.0 {
            let total: f64 = self.candidates.iter().map(|c| c.weight as f64).sum();
            let keep = reach(&self.candidates, total * f64::from(top_p)).unwrap_or(self.candidates.len());
            self.candidates.truncate(keep);
        }
    }

    /// Top-p among all tokens. Tokens too unlikely to matter all together are left out first; of the rest, growing
    /// parts are sorted until the probability is reached.
    fn keep_top_p(&mut self, logits: &[f32], max: f32, top_p: f32) {
        let total = sum_of_weights(logits, max);
        let target = total * f64::from(top_p);
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
        self.candidates.clear();
        for (id, &logit) in logits.iter().enumerate() {
            let weight = exp(logit - max);
            if weight > 0.0 && weight >= least {
                self.candidates.push(Candidate { id: id as u32, logit, weight });
            }
        }
    }

    /// The winner of the race among the candidates, of equals the one with the lower id.
    fn race(&self, max: f32, temperature: f32, stream: u32) -> Option<u32> {
        let mut best: Option<(f32, u32)> = None;
        for c in &self.candidates {
            let score = (c.logit - max) / temperature;
            if best.is_some_and(|(most, _)| score + MOST_LUCK < most) {
                continue;
            }
            let score = score + luck(stream, c.id);
            if best.is_none_or(|(most, id)| score > most || (score == most && c.id < id)) {
                best = Some((score, c.id));
            }
        }
        best.map(|(_, id)| id)
    }
}

/// Takes out the tokens whose bit in `mask` is 1, and their logits: few, most often, of a long vocabulary.
fn gather(logits: &[f32], mask: &[u32], ids: &mut Vec<u32>, values: &mut Vec<f32>) {
    ids.clear();
    for ((first, logits), &word) in (0u32..).step_by(32).zip(logits.chunks(32)).zip(mask) {
        let mut bits = word;
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            let Some(&logit) = logits.get(bit as usize) else { break };
            ids.push(first + bit);
            values.push(logit);
        }
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

#[cfg(test)]
impl Sampler {
    /// The tokens among which the last choice was made.
    pub fn kept(&self) -> impl Iterator<Item = u32> {
        self.candidates.iter().map(|c| c.id)
    }

    /// Room in its memory.
    pub fn capacity(&self) -> [usize; 3] {
        [self.candidates.capacity(), self.edits.capacity(), self.changed.capacity()]
    }
}
