//! How many tokens of prompts a step takes beside running answers: as many as make it about twice as long as a step of
//! the answers alone. What that number is depends on the machine, the model and the lengths, so it is learned from the
//! times of the steps.

use std::time::Duration;

/// A step with prompts may take this times as long as one without.
const SLOWER: f64 = 1.8;
/// The fewest tokens of prompts in a step: below it they would hardly come forward.
const LEAST: f64 = 8.0;
/// The first guess.
const FIRST: f64 = 32.0;
/// Share of a new time in the mean.
const NEW: f64 = 0.2;

/// Learns the size of the prompts' share.
#[derive(Debug)]
pub(super) struct Pace {
    /// Mean seconds of a step of answers alone, by the power of two at or below their number.
    alone: Vec<Option<f64>>,
    chunk: f64,
}

impl Pace {
    pub fn new() -> Self {
        Self { alone: Vec::new(), chunk: FIRST }
    }

    /// Most tokens of prompts in a step with so many running answers. None at all where it is not known yet how long these
    /// take alone: that one step tells it.
    pub fn prompt_tokens(&self, answers: usize) -> usize {
        match answers {
            0 => usize::MAX,
            _ if self.alone(answers).is_none() => 0,
            _ => self.chunk as usize,
        }
    }

    /// Learns from a step.
    pub fn observe(&mut self, answers: usize, prompt_tokens: usize, time: Duration) {
        let Some(size) = answers.checked_ilog2() else { return };
        let (size, seconds) = (size as usize, time.as_secs_f64());
        if prompt_tokens == 0 {
            if self.alone.len() <= size {
                self.alone.resize(size + 1, None);
            }
            if let Some(mean) = self.alone.get_mut(size) {
                *mean = Some(mean.map_or(seconds, |mean| mean + NEW * (seconds - mean)));
            }
        } else if let Some(alone) = self.alone(answers) {
            let factor = (alone * SLOWER / seconds.max(1e-9)).clamp(0.5, 1.5);
            // A short rest of a prompt says nothing against more tokens, nor for them.
            if factor < 1.0 || prompt_tokens as f64 > 0.8 * self.chunk {
                self.chunk = (self.chunk * factor).clamp(LEAST, 1e6);
            }
        }
    }

    /// Seconds of a step of so many answers alone: of the next smaller number that was seen, else of the next larger.
    fn alone(&self, answers: usize) -> Option<f64> {
        let size = answers.checked_ilog2()? as usize;
        let (below, above) = self.alone.split_at((size + 1).min(self.alone.len()));
        below.iter().rev().chain(above).find_map(|mean| *mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_settles_where_a_step_takes_about_twice_as_long() {
        let mut pace = Pace::new();
        assert_eq!(
            (pace.prompt_tokens(0), pace.prompt_tokens(3)),
            (usize::MAX, 0),
            "the first step is of answers alone"
        );
        pace.observe(3, 0, Duration::from_millis(10));
        for _ in 0..50 {
            let n = pace.prompt_tokens(3);
            // 10 ms, and 50 us a token.
            pace.observe(3, n, Duration::from_micros(10_000 + 50 * n as u64));
        }
        assert!((140..=180).contains(&pace.prompt_tokens(3)), "{}", pace.prompt_tokens(3));
        // A machine on which nothing goes beside the answers still brings prompts forward.
        for _ in 0..50 {
            pace.observe(3, pace.prompt_tokens(3), Duration::from_secs(1));
        }
        assert_eq!(pace.prompt_tokens(3), LEAST as usize);
    }

    #[test]
    fn times_of_other_numbers_of_answers_stand_in() {
        let mut pace = Pace::new();
        pace.observe(8, 0, Duration::from_millis(10));
        assert!(pace.prompt_tokens(1) > 0 && pace.prompt_tokens(100) > 0);
    }
}
