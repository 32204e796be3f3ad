//! `bench --batch`: generation of several sequences at once.

use std::time::Instant;

use handmill_models::{
    Engine, Error,
    engine::{Sequence, Step},
};
use handmill_runtime::step::Outputs;

use crate::{error::CliError, interrupt, walls::median};

/// Numbers of sequences.
#[derive(Clone, Debug)]
pub struct Sizes(pub Vec<usize>);

/// Most sequences at once: more would measure prompts.
const MOST: usize = 512;

impl Sizes {
    /// Numbers with commas between them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |part: &str| match part.trim().parse() {
            Ok(n @ 1..=MOST) => Ok(n),
            _ => Err(format!("`{part}` is no number of sequences from 1 to {MOST}")),
        };
        text.split(',').map(number).collect::<Result<_, _>>().map(Self)
    }

    /// The most sequences.
    pub fn most(&self) -> usize {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

/// Sequences and the tokens a second of all of them together.
pub struct Rate {
    pub sequences: usize,
    pub tokens_per_second: f64,
}

/// Medians of `reps` rounds, of which each goes through all sizes, because machines drift. A round before them warms up
/// and is not counted.
pub fn measure(engine: &mut Engine, sizes: &Sizes, tokens: &[u32], reps: usize) -> Result<Vec<Rate>, CliError> {
    let mut seconds = vec![Vec::new(); sizes.0.len()];
    for round in 0..=reps {
        for (&n, seconds) in sizes.0.iter().zip(&mut seconds) {
            if interrupt::asked() {
                return Err(CliError::Interrupted);
            }
            let time = generate(engine, n, tokens).map_err(|e| CliError::because("the model could not be run", e))?;
            if round > 0 {
                seconds.push(time);
            }
        }
    }
    let rates = sizes.0.iter().zip(&mut seconds);
    Ok(rates
        .map(|(&sequences, seconds)| Rate {
            sequences,
            tokens_per_second: (sequences * tokens.len()) as f64 / median(seconds),
        })
        .collect())
}

/// Seconds of a step for each of `tokens`, with a row for each of `n` sequences.
fn generate(engine: &mut Engine, n: usize, tokens: &[u32]) -> Result<f64, Error> {
    let mut sequences: Vec<Sequence> = (0..n).map(|_| engine.sequence()).collect();
    let start = Instant::now();
    for token in tokens {
        let tokens = std::slice::from_ref(token);
        let steps = sequences.iter_mut().map(|sequence| Step::new(sequence, tokens, Outputs::Last));
        engine.step(&mut steps.collect::<Vec<_>>())?;
    }
    Ok(start.elapsed().as_secs_f64())
}
