//! The options that say how tokens are chosen, on top of what the model's publisher chose.

use crate::{
    error::CliError,
    terminal::{detail, note},
};
use handmill_models::engine::sampling::{SamplingDefaults, SamplingParams};
use handmill_runtime::format::Checkpoint;
use std::time::{SystemTime, UNIX_EPOCH};

/// How tokens are chosen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling (default: as the model's files say, else as here)")]
pub struct Sampling {
    /// Temperature; 0 takes the likeliest token each time [else 0.8]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Keep the K likeliest tokens; 0 keeps all [else 40]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the fewest tokens that together reach this probability; 1 keeps all [else 0.95]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens at least this times as likely as the likeliest; 0 keeps all [else 0.05]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens seen before less likely by this factor; 1 does nothing [else 1]
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// Take this from the logits of tokens seen before
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Take this from the logits of tokens seen before, once for each time
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// The number of last tokens that count as seen before, or `all` [else 64]
    #[arg(long, value_name = "N|all", value_parser = Limit::parse)]
    repeat_last_n: Option<Limit>,
    /// Add X to the logit of token ID (may be given several times; -inf forbids it)
    #[arg(long, value_name = "ID=X", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers start: the same seed gives the same answer [default: drawn, and shown at the end]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A number, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(Option<usize>);

impl Limit {
    /// Reads a number or `all`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self(None)),
            _ => text.parse().map(|n| Self(Some(n))).map_err(|_| "give a number, or all".to_owned()),
        }
    }

    /// The number; none where there is no limit.
    pub fn tokens(self) -> Option<usize> {
        self.0
    }
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("write it as ID=X, for example 42=-5")?;
    let id = id.trim().parse().map_err(|_| format!("{id:?} is not a token id"))?;
    let bias: f32 = bias.trim().parse().map_err(|_| format!("{bias:?} is not a number"))?;
    if bias.is_nan() || bias == f32::INFINITY { Err(format!("{bias} is no bias")) } else { Ok((id, bias)) }
}

impl Sampling {
    /// Refuses values out of range before anything is opened.
    pub fn check(&self) -> Result<(), CliError> {
        self.over(SamplingParams::default()).validate().map_err(|e| CliError::Usage(e.to_string()))
    }

    /// Whether a seed is given.
    pub fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// The seed: as given, else drawn. Short enough to be typed.
    pub fn seed(&self) -> u64 {
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        self.seed.unwrap_or_else(|| getrandom::u32().unwrap_or_else(|_| time()).into())
    }

    /// The parameters for a model: as its files say, and single ones as the options say. Prints warnings about the former.
    pub fn params(&self, checkpoint: &Checkpoint, seed: u64) -> Result<SamplingParams, CliError> {
        let SamplingDefaults { params, source, warnings } = SamplingDefaults::of_checkpoint(checkpoint);
        warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
        let params = SamplingParams { seed, ..self.over(params) };
        detail(|| {
            let from = source.map_or_else(String::new, |source| format!(" (defaults of {source})"));
            let SamplingParams { temperature, top_k, top_p, min_p, repetition_penalty, .. } = params;
            format!(
                "sampling: temperature {temperature}, top-k {top_k}, top-p {top_p}, min-p {min_p}, repeat penalty \
                 {repetition_penalty}, seed {seed}{from}"
            )
        });
        params.validate().map_err(|e| CliError::Usage(e.to_string()))?;
        Ok(params)
    }

    /// `base` with the parameters that are given.
    fn over(&self, base: SamplingParams) -> SamplingParams {
        SamplingParams {
            temperature: self.temp.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repeat_penalty.unwrap_or(base.repetition_penalty),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            penalty_last_n: self.repeat_last_n.map_or(base.penalty_last_n, |n| n.0.unwrap_or(usize::MAX)),
            logit_bias: self.logit_bias.clone(),
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_biases_are_read() {
        assert_eq!(logit_bias("5=+1.5"), Ok((5, 1.5)));
        assert_eq!(logit_bias("5=-inf"), Ok((5, f32::NEG_INFINITY)));
        for wrong in ["5", "=1", "5=", "a=1", "5=x", "5=nan", "-1=2", "5=inf"] {
            assert!(logit_bias(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_numbers_or_all() {
        assert_eq!((Limit::parse("7"), Limit::parse("all")), (Ok(Limit(Some(7))), Ok(Limit(None))));
        for wrong in ["", "-1", "All", "7.5"] {
            assert!(Limit::parse(wrong).is_err(), "{wrong}");
        }
    }
}
