//! Chooses tokens: with the host's sampler, or on a GPU some steps ahead of the host.

#[cfg(feature = "gpu")]
use handmill_runtime::BackendError;
use handmill_runtime::step::Outputs;

use super::{
    Engine, Sequence, Step,
    finite::are_logits,
    sampling::{Sampler, SamplingParams},
};
use crate::Error;

/// Chooses the tokens of one answer, one after the other.
pub(super) enum Chooser {
    /// The host chooses from logits.
    Host {
        /// Chooses the tokens.
        sampler: Sampler,
        /// Logits of the last token.
        logits: Vec<f32>,
    },
    /// The device chooses and feeds its own next step.
    #[cfg(feature = "gpu")]
    Device {
        /// Steps begun whose token has not been read.
        under_way: usize,
        /// The length at which no further step begins.
        end: usize,
    },
}

impl Chooser {
    /// Runs `prompt` and is ready to choose the token after it. `cancelled` hears how many tokens have been run; where
    /// it returns true before the end, the result is none. The sequence will not exceed the length `end`.
    pub fn new(
        engine: &mut Engine,
        params: &SamplingParams,
        sequence: &mut Sequence,
        prompt: &[u32],
        end: usize,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Self>, Error> {
        // Parameters are checked here for both ways of choosing.
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
        engine.keep_pages(sequence)?;
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
        engine.make_room(&[(sequence, last.len())], true)?;
        let gpu = engine.backend.as_gpu().ok_or(Error::OtherEngine)?;
        let failed = BackendError::from;
        gpu.choose_by(choice).map_err(failed)?;
        gpu.step_ahead(&mut sequence.kv, Some(last)).map_err(failed)?;
        sequence.tokens.extend_from_slice(last);
        // Separates the time of the prompt from that of the answer.
        gpu.gpu().wait().map_err(failed)?;
        engine.keep_pages(sequence)?;
        Ok(Some(Self::Device { under_way: 1, end }))
    }

    /// The next token.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the logits are not; the sequence is then empty, because its cache is useless.
    pub fn next(&mut self, engine: &mut Engine, sequence: &mut Sequence) -> Result<u32, Error> {
        match self {
            Self::Host { sampler, logits } => {
                if !are_logits(logits) {
                    let tokens = empty(engine, sequence)?;
                    return Err(engine.not_finite(&tokens));
                }
                let token = sampler.sample(logits)?;
                sampler.accept(token);
                Ok(token)
            }
            #[cfg(feature = "gpu")]
            Self::Device { under_way, end } => {
                let token = Self::read(engine, sequence, under_way, *end);
                if token.is_err() {
                    take_back(engine, sequence)?;
                }
                if let Some(token) = token? {
                    return Ok(token);
                }
                let tokens = empty(engine, sequence)?;
                let n = engine.model().info().vocab_size;
                Err(match engine.first_not_finite(&tokens)? {
                    Some(found) => engine.not_finite_in(found),
                    None => super::sampling::SamplingError::NoCandidate { n }.into(),
                })
            }
        }
    }

    /// Keeps the device busy and reads the earliest token that it chose.
    #[cfg(feature = "gpu")]
    fn read(
        engine: &mut Engine,
        sequence: &mut Sequence,
        under_way: &mut usize,
        end: usize,
    ) -> Result<Option<u32>, Error> {
        use handmill_runtime::gpu::GpuBackend;
        while *under_way < GpuBackend::AHEAD && sequence.len() < end {
            engine.make_room(&[(sequence, 1)], true)?;
            let gpu = engine.backend.as_gpu().ok_or(Error::OtherEngine)?;
            gpu.step_ahead(&mut sequence.kv, None).map_err(BackendError::from)?;
            *under_way += 1;
        }
        let gpu = engine.backend.as_gpu().ok_or(Error::OtherEngine)?;
        let token = gpu.read_token().map_err(BackendError::from)?;
        *under_way -= 1;
        Ok(token)
    }

    /// Tokens of the sequence that will not be taken back.
    pub fn len(&self, sequence: &Sequence) -> usize {
        match self {
            Self::Host { .. } => sequence.len(),
            #[cfg(feature = "gpu")]
            Self::Device { .. } => sequence.tokens.len(),
        }
    }

    /// Continues with `token`, the last one chosen.
    pub fn go_on(&mut self, engine: &mut Engine, sequence: &mut Sequence, token: u32) -> Result<(), Error> {
        match self {
            Self::Host { logits, .. } => {
                let step = Step { sequence, tokens: &[token], outputs: Outputs::Last };
                logits.copy_from_slice(engine.step(&mut [step])?);
            }
            #[cfg(feature = "gpu")]
            Self::Device { .. } => {
                // The device has already continued with its token.
                let gpu = engine.backend.as_gpu().ok_or(Error::OtherEngine)?;
                if let Err(error) = gpu.check_token(token) {
                    take_back(engine, sequence)?;
                    return Err(BackendError::from(error).into());
                }
                sequence.tokens.push(token);
            }
        }
        Ok(())
    }

    /// Takes back the steps that went too far.
    pub fn finish(self, engine: &mut Engine, sequence: &mut Sequence) -> Result<(), Error> {
        match self {
            Self::Host { .. } => {
                let _ = (engine, sequence);
            }
            #[cfg(feature = "gpu")]
            Self::Device { mut under_way, .. } => {
                let gpu = engine.backend.as_gpu().ok_or(Error::OtherEngine)?;
                while under_way > 0 {
                    gpu.read_token().map_err(BackendError::from)?;
                    under_way -= 1;
                }
                take_back(engine, sequence)?;
            }
        }
        Ok(())
    }
}

/// Empties a sequence whose cache is useless; returns its tokens.
fn empty(engine: &mut Engine, sequence: &mut Sequence) -> Result<Vec<u32>, Error> {
    let tokens = std::mem::take(&mut sequence.tokens);
    engine.truncate(sequence, 0)?;
    Ok(tokens)
}

/// Takes back the steps that the device has begun beyond the tokens that stay.
#[cfg(feature = "gpu")]
fn take_back(engine: &mut Engine, sequence: &mut Sequence) -> Result<(), Error> {
    let confirmed = sequence.tokens.len();
    engine.truncate(sequence, confirmed)?;
    Ok(())
}

/// The device's rule of choice for `params`; none where they have penalties or biases, which the device cannot apply.
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
