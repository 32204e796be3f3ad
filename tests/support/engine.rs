//! A sequence on an engine of its own: tokens in, logits out.

use std::{collections::VecDeque, path::Path};

pub use handmill_models::engine::{DeviceChoice, KvChoice, PrecisionChoice};
use handmill_models::{
    Error, Model,
    engine::{Engine, EngineOptions, Sequence, Step},
};
use handmill_runtime::{
    Backend, BackendError,
    cpu::Isa,
    sample::{Choice, SamplingParams},
    step::{Outputs, SequenceKv, SequenceStep, Ticket, Tokens},
};

use super::Matrix;

/// How to run the model; by default with nothing rounded but sums and room for any fixture.
#[derive(Clone)]
pub struct Options {
    pub device: DeviceChoice,
    pub gpu_layers: Option<usize>,
    pub threads: Option<usize>,
    pub isa: Option<Isa>,
    pub kv: KvChoice,
    pub precision: PrecisionChoice,
    pub n_ctx: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            gpu_layers: None,
            threads: None,
            isa: None,
            kv: KvChoice::F32,
            precision: PrecisionChoice::Exact,
            n_ctx: 256,
        }
    }
}

impl Options {
    /// As `run` has it: activations, keys and values may be rounded.
    pub fn rounding() -> Self {
        Self { kv: KvChoice::F16, precision: PrecisionChoice::Fast, ..Self::default() }
    }
}

/// An engine and the sequence that runs on it.
pub struct Session {
    engine: Engine,
    sequence: Sequence,
}

impl Session {
    /// Opens the file or folder `path`; panics with the error where that fails.
    pub fn open(path: &Path, options: Options) -> Self {
        Self::try_open(path, options).unwrap_or_else(|e| panic!("opening {}: {e}", path.display()))
    }

    /// Opens the file or folder `path`.
    pub fn try_open(path: &Path, options: Options) -> Result<Self, Error> {
        let model = Model::open(path)?;
        let options = EngineOptions {
            device: options.device,
            gpu_layers: options.gpu_layers,
            threads: options.threads,
            isa: options.isa,
            kv: options.kv,
            precision: options.precision,
            n_ctx: Some(options.n_ctx),
            ..EngineOptions::default()
        };
        let engine = Engine::new(&model, &options)?;
        let sequence = engine.sequence();
        Ok(Self { engine, sequence })
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Continues the sequence in one step; logits of every token.
    pub fn feed(&mut self, tokens: &[u32]) -> Matrix {
        self.try_feed(tokens).unwrap_or_else(|e| panic!("{} tokens: {e}", tokens.len()))
    }

    /// Continues the sequence in one step; logits of every token.
    pub fn try_feed(&mut self, tokens: &[u32]) -> Result<Matrix, Error> {
        let vocab = self.engine.model().info().vocab_size;
        let step = Step::new(&mut self.sequence, tokens, Outputs::All);
        Ok(Matrix::new(vocab, self.engine.step(&mut [step])?.to_vec()))
    }

    /// Continues the sequence; logits of the last token.
    pub fn feed_last(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.engine
            .prefill(&mut self.sequence, tokens)
            .unwrap_or_else(|e| panic!("{} tokens: {e}", tokens.len()))
            .to_vec()
    }

    /// Continues a copy of the sequence in one step; logits of every token. The sequence itself stays as it is.
    pub fn feed_fork(&mut self, tokens: &[u32]) -> Matrix {
        let vocab = self.engine.model().info().vocab_size;
        let mut fork = self.engine.fork(&self.sequence).expect("its own sequence");
        let step = Step::new(&mut fork, tokens, Outputs::All);
        Matrix::new(vocab, self.engine.step(&mut [step]).expect("a fork").to_vec())
    }

    /// Takes back all but the first `len` tokens; whether that was possible.
    pub fn take_back(&mut self, len: usize) -> bool {
        self.engine.truncate(&mut self.sequence, len).expect("its own sequence")
    }

    /// Runs each of `prompts` as a sequence of its own, all in one step; logits of every token.
    pub fn feed_batch(&mut self, prompts: &[&[u32]]) -> Vec<Matrix> {
        let vocab = self.engine.model().info().vocab_size;
        let mut sequences: Vec<Sequence> = prompts.iter().map(|_| self.engine.sequence()).collect();
        let mut steps: Vec<Step<'_>> = prompts
            .iter()
            .zip(&mut sequences)
            .map(|(tokens, sequence)| Step::new(sequence, *tokens, Outputs::All))
            .collect();
        let logits = Matrix::new(vocab, self.engine.step(&mut steps).expect("a batch").to_vec());
        let mut start = 0;
        let rows = prompts.iter().map(|tokens| {
            start += tokens.len();
            logits.slice(start - tokens.len()..start)
        });
        rows.collect()
    }
}

/// Engines of `model` with these options: on the CPU, and where there is a GPU on that and on both together.
pub fn engines(test: &str, model: &Model, options: &EngineOptions) -> Vec<Engine> {
    let engine = |device, gpu_layers| {
        let options = EngineOptions { device, gpu_layers, ..options.clone() };
        Engine::new(model, &options).expect("an engine")
    };
    #[allow(unused_mut)]
    let mut all = vec![engine(DeviceChoice::Cpu, None)];
    #[cfg(feature = "gpu")]
    if let Some(gpu) = super::open_gpu(test, &Default::default()) {
        all.extend([None, Some(1)].map(|layers| engine(DeviceChoice::Gpu(gpu.clone()), layers)));
    }
    let _ = test;
    all
}

/// The likeliest tokens of a sequence, each chosen while the step before it may still be under way.
pub struct Greedy {
    params: SamplingParams,
    pub kv: SequenceKv,
    under_way: VecDeque<Ticket>,
}

impl Greedy {
    pub fn new() -> Self {
        Self { params: SamplingParams::greedy(), kv: SequenceKv::default(), under_way: VecDeque::new() }
    }

    /// Begins a step over `tokens`, or over the token that the last step under way chooses.
    pub fn submit(&mut self, backend: &mut dyn Backend, tokens: Option<&[u32]>) -> Result<(), BackendError> {
        let chosen = self.under_way.back().map(|last| Tokens::Chosen(*last, 0));
        let tokens = tokens.map(Tokens::Ids).or(chosen).expect("tokens, or a step under way");
        let step = SequenceStep::new(&mut self.kv, tokens, Outputs::None).choosing(Choice::new(&self.params));
        self.under_way.push_back(backend.submit(&mut [step])?);
        Ok(())
    }

    /// The token that the earliest step under way has chosen.
    pub fn collect(&mut self, backend: &mut dyn Backend) -> Result<Option<u32>, BackendError> {
        let first = self.under_way.pop_front().expect("a step under way");
        Ok(backend.collect(first)?.chosen[0].token)
    }
}
