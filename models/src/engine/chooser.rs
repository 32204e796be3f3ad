//! Where tokens are chosen: by the host's sampler, or on a GPU some steps ahead of the host.

use handmill_runtime::step::Outputs;

use super::{
    Engine, Sequence, Step,
    sampling::{Sampler, SamplingParams},
};
use crate::Error;

/// Chooses the tokens of one answer, one after the other.
pub(super) enum Chooser {
    /// Logits come to the host.
    Host {
        /// Chooses.
        sampler: Sampler,
        /// Of the last token.
        logits: Vec<f32>,
    },
    /// The device chooses and goes on by itself.
    #[cfg(feature = "gpu")]
    Device {
        /// Steps begun whose token has not been read.
        under_way: usize,
        /// Tokens of the sequence that have been confirmed: the prompt and all but the last one read.
        confirmed: usize,
        /// No step is begun from this length on.
        end: usize,
    },
}

impl Chooser {
    /// Runs `prompt` and is ready to choose the token behind it; none where `cancelled`,
    /// which hears how many of its tokens have been run, says so before the end.
    /// `end` is the length that the sequence will not exceed.
    pub fn new(
        engine: &mut Engine,
        params: &SamplingParams,
        sequence: &mut Sequence,
        prompt: &[u32],
        end: usize,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Self>, Error> {
        // Parameters are checked wherever they are used.
        let mut sampler = Sampler::new(params.clone())?;
        #[cfg(feature = "gpu")]
        if let Some(choice) = device_choice(params)
            && !prompt.is_empty()
            && engine.backend.as_gpu().is_some()
        {
            return Self::on_device(engine, &choice, sequence, prompt, end, cancelled);
        }
        let _ = end;
        prompt.iter().for_each(|t| sampler.accept(*t));
        let Some(last) = engine.prefill_but_last(sequence, prompt, cancelled)? else { return Ok(None) };
        let logits = engine.step(&mut [Step { sequence, tokens: last, outputs: Outputs::Last }])?.to_vec();
        Ok(Some(Self::Host { sampler, logits }))
    }

    #[cfg(feature = "gpu")]
    fn on_device(
        engine: &mut Engine,
        choice: &handmill_runtime::gpu::Choice,
        sequence: &mut Sequence,
        prompt: &[u32],
        end: usize,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Self>, Error> {
        let Some(last) = engine.prefill_but_last(sequence, prompt, cancelled)? else { return Ok(None) };
        let Some(gpu) = engine.backend.as_gpu() else { return Err(Error::EmptyPrompt) };
        let failed = handmill_runtime::BackendError::from;
        gpu.choose_by(choice).map_err(failed)?;
        gpu.step_ahead(&mut sequence.kv, Some(last)).map_err(failed)?;
        let confirmed = sequence.len();
        // The time of the prompt is told apart from that of the answer.
        gpu.gpu().wait().map_err(failed)?;
        Ok(Some(Self::Device { under_way: 1, confirmed, end }))
    }

    /// The next token.
    pub fn next(&mut self, engine: &mut Engine, sequence: &mut Sequence) -> Result<u32, Error> {
        match self {
            Self::Host { sampler, logits } => {
                let _ = (engine, sequence);
                let token = sampler.sample(logits)?;
                sampler.accept(token);
                Ok(token)
            }
            #[cfg(feature = "gpu")]
            Self::Device { under_way, confirmed: _, end } => {
                use handmill_runtime::gpu::GpuBackend;
                let Some(gpu) = engine.backend.as_gpu() else { return Err(Error::EmptyPrompt) };
                while *under_way < GpuBackend::AHEAD && sequence.len() < *end {
                    gpu.step_ahead(&mut sequence.kv, None).map_err(handmill_runtime::BackendError::from)?;
                    *under_way += 1;
                }
                let token = gpu.read_token().map_err(handmill_runtime::BackendError::from)?;
                *under_way -= 1;
                token.ok_or_else(|| super::sampling::SamplingError::NoCandidate { n: 0 }.into())
            }
        }
    }

    /// Tokens of the sequence that are there to stay.
    pub fn len(&self, sequence: &Sequence) -> usize {
        match self {
            Self::Host { .. } => sequence.len(),
            #[cfg(feature = "gpu")]
            Self::Device { confirmed, .. } => *confirmed,
        }
    }

    /// Goes on with `token`, the last one chosen.
    pub fn go_on(&mut self, engine: &mut Engine, sequence: &mut Sequence, token: u32) -> Result<(), Error> {
        match self {
            Self::Host { logits, .. } => {
                let step = Step { sequence, tokens: &[token], outputs: Outputs::Last };
                logits.copy_from_slice(engine.step(&mut [step])?);
            }
            #[cfg(feature = "gpu")]
            Self::Device { confirmed, .. } => *confirmed += 1,
        }
        Ok(())
    }

    /// Takes back what was begun too far.
    pub fn finish(self, engine: &mut Engine, sequence: &mut Sequence) -> Result<(), Error> {
        match self {
            Self::Host { .. } => {
                let _ = (engine, sequence);
            }
            #[cfg(feature = "gpu")]
            Self::Device { mut under_way, confirmed, .. } => {
                if let Some(gpu) = engine.backend.as_gpu() {
                    while under_way > 0 {
                        gpu.read_token().map_err(handmill_runtime::BackendError::from)?;
                        under_way -= 1;
                    }
                }
                engine.truncate(sequence, confirmed);
            }
        }
        Ok(())
    }
}

/// The device's way of choosing that does what `params` say, if there is one: it knows no penalties and no biases.
#[cfg(feature = "gpu")]
fn device_choice(params: &SamplingParams) -> Option<handmill_runtime::gpu::Choice> {
    let plain = !params.penalises() && params.logit_bias.is_empty();
    plain.then(|| handmill_runtime::gpu::Choice {
        temperature: params.temperature,
        top_k: u32::try_from(params.top_k).unwrap_or(0),
        top_p: params.top_p,
        min_p: params.min_p,
        seed: params.seed,
        token_row: None,
    })
}
