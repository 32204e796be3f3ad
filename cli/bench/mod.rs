//! `handmill bench`: the speed of a model here, and its distance from what the machine can do.
//!
//! With `--synthetic`, the speed of the layers of a model without its weights: they are made up.
//!
//! The walls are measured in the same run, one sample before the repetitions and one after each: machines drift.

mod batch;

use crate::{
    args::{COMMON, Compute, Ctx, Output, Rounding},
    error::CliError,
    fetch, interrupt, out, profile, session, system,
    terminal::{human_bytes, note},
    walls::{Medians, Walls, median},
};
use handmill_models::{
    Engine, Error, Model,
    engine::{Sequence, Step, sampling::SamplingParams},
    synthetic::{Synthetic, SyntheticOptions},
};
use handmill_runtime::{
    cpu::{Pool, arch::Isa},
    quant::DType,
    step::{GpuStats, Outputs, PAGE_TOKENS},
};
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Instant,
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// Instead of MODEL: random weights of the dimensions in a published config.json
    #[arg(long, value_name = "CONFIG.json", conflicts_with = "model")]
    synthetic: Option<PathBuf>,
    /// Layers to make up [default: all that the configuration has]
    #[arg(long, value_name = "N", requires = "synthetic")]
    layers: Option<NonZeroUsize>,
    /// Format of the matrices that are made up: f16, q8_0, q4_k, …
    #[arg(long, value_name = "TYPE", requires = "synthetic", default_value = "q4_k", value_parser = format)]
    format: DType,
    /// Tokens of the prompt
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to generate
    #[arg(short = 'n', long = "generate", value_name = "N", default_value_t = 64)]
    generate: usize,
    /// Also generate for N sequences at once, for each N of the list
    #[arg(long, value_name = "N,…", value_parser = batch::Sizes::parse)]
    batch: Option<batch::Sizes>,
    /// Repetitions; the medians count
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    reps: usize,
    /// Do not measure the device's read bandwidth and the CPU's FMA peak
    #[arg(long)]
    no_walls: bool,
    /// What is rounded
    #[command(flatten)]
    rounding: Rounding,
    /// Where the time goes, in a turn of its own behind the measured ones
    #[command(flatten)]
    profile: profile::Profile,
    /// Context length in tokens; `model` is as long as it was made for [default: what is measured]
    #[arg(long, value_name = "N|model", value_parser = Ctx::parse, help_heading = COMMON)]
    ctx: Option<Ctx>,
    /// Where it runs
    #[command(flatten)]
    pub compute: Compute,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    if args.reps == 0 || args.prompt + args.generate == 0 {
        return Err(CliError::Usage("nothing to measure: --reps and one of -p and -n must be above 0".to_owned()));
    }
    if args.batch.is_some() && args.generate == 0 {
        return Err(CliError::Usage("--batch measures generation: -n must be above 0".to_owned()));
    }
    let threads = args.compute.machine.threads.map_or_else(Pool::default_threads, usize::from);
    let (model, made_up) = match &args.synthetic {
        Some(config) => {
            let made_up = make_up(config, args, threads)?;
            (made_up.model.clone(), Some(made_up))
        }
        None => (session::model(&args.model)?, None),
    };
    // Prompt and generation are measured apart, each from an empty context, as llama-bench does.
    // Sequences take whole pages.
    let batched = args.batch.as_ref().map_or(0, batch::Sizes::most) * args.generate.next_multiple_of(PAGE_TOKENS);
    let n_ctx = args.ctx.map_or(args.prompt.max(args.generate), |ctx| ctx.tokens(&model)).max(batched);
    let mut engine = session::engine(&args.compute, &model, args.rounding, Some(n_ctx))?;
    let info = model.info().clone();
    let isa = Isa::from_env().map_err(|e| CliError::because("the CPU cannot be used as asked", e))?;

    let failed = |e| CliError::because("the model could not be run", e);
    let ids = |n: usize| -> Vec<u32> { (0..n).map(|i| (i * 7919 % info.vocab_size.max(1)) as u32).collect() };
    let prompt = ids(args.prompt);
    let mut rates = (Vec::new(), Vec::new());
    let mut costs = None;
    // The first turn warms caches and clocks up and is not counted.
    let mut walls = None;
    let mut peak = None;
    for turn in 0..=args.reps {
        if interrupt::asked() {
            return Err(CliError::Interrupted);
        }
        let prompt_time = time_prompt(&mut engine, &prompt).map_err(failed)?;
        let before = engine.gpu_stats();
        let generation_time = time_generation(&mut engine, &ids(args.generate)).map_err(failed)?;
        let gpu = before.zip(engine.gpu_stats()).map(|(before, after)| after.since(before));
        if turn == 0 {
            // Read before the buffer of the bandwidth measurement counts as well.
            peak = system::peak_memory();
            if !args.no_walls {
                walls = Walls::new(&mut engine, threads, isa)?;
            }
        } else {
            rates.0.push(args.prompt as f64 / prompt_time);
            rates.1.push(args.generate as f64 / generation_time);
            costs = gpu;
        }
        if let Some(walls) = &mut walls {
            walls.sample(&mut engine)?;
        }
    }
    let batch = match &args.batch {
        Some(sizes) => batch::measure(&mut engine, sizes, &ids(args.generate), args.reps)?,
        None => Vec::new(),
    };
    let host = host_time(&mut engine, &ids(args.generate.min(16))).map_err(failed)?;
    if args.profile.wanted() {
        args.profile.begin(&mut engine)?;
        time_prompt(&mut engine, &prompt).map_err(failed)?;
        time_generation(&mut engine, &ids(args.generate)).map_err(failed)?;
    }
    let generation = Rates::of(rates.1, args.generate);
    let report = Report {
        model: &args.synthetic.as_ref().map_or(&args.model[..], |config| config.as_os_str()).to_string_lossy(),
        made_up,
        format: args.format,
        architecture: &info.architecture,
        threads,
        isa,
        reps: args.reps,
        prompt: Rates::of(rates.0, args.prompt),
        // Reads of keys and values are small beside the weights at these lengths and are left out.
        read: generation.median * info.bytes_per_token as f64,
        flops_per_token: prompt_flops(&model),
        bytes_per_token: info.bytes_per_token,
        generation,
        batch,
        walls: walls.map(Walls::medians),
        peak,
        device: engine.backend().describe(),
        costs,
        host,
        weights: engine.gpu_weight_bytes(),
    };
    if args.output.json { out::json(&report.json()) } else { out::text(&report.text()) }?;
    args.profile.end(&mut engine, args.compute.machine.threads.map(usize::from))
}

/// A format by its name.
fn format(name: &str) -> Result<DType, String> {
    let names = || DType::ALL.map(DType::name).join(", ");
    DType::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| format!("the formats are {}", names()))
}

/// A model of the dimensions in `config`.
fn make_up(config: &Path, args: &Args, threads: usize) -> Result<Synthetic, CliError> {
    let options = SyntheticOptions {
        layers: args.layers,
        format: args.format,
        limit: system::available_memory(),
        threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        ..SyntheticOptions::default()
    };
    let start = Instant::now();
    let made_up = Synthetic::new(config, &options).map_err(|e| CliError::because("could not make the model up", e))?;
    let bytes = made_up.bytes.values().sum();
    note(&format!("made up {} of weights in {:.1} s", human_bytes(bytes), start.elapsed().as_secs_f64()));
    Ok(made_up)
}

fn time_prompt(engine: &mut Engine, tokens: &[u32]) -> Result<f64, Error> {
    if tokens.is_empty() {
        return Ok(f64::INFINITY);
    }
    let mut sequence = engine.sequence();
    let start = Instant::now();
    engine.prefill(&mut sequence, tokens)?;
    let time = start.elapsed().as_secs_f64();
    Ok(time)
}

/// Seconds of as many steps as there are `tokens`. The CPU runs these tokens. A GPU that runs the whole model chooses
/// its own tokens after the first, some steps ahead of the host, as in `handmill run`.
fn time_generation(engine: &mut Engine, tokens: &[u32]) -> Result<f64, Error> {
    if let Some(first) = tokens.first()
        && engine.backend().steps_ahead() > 1
    {
        let greedy = SamplingParams::greedy();
        let start = Instant::now();
        engine.generate_ids(&[*first], &greedy, tokens.len())?;
        return Ok(start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    steps(engine, tokens, |_| {})?;
    Ok(start.elapsed().as_secs_f64())
}

/// One step for each token; each begins when the results of the previous one are there. `each` is called after every
/// step.
fn steps(engine: &mut Engine, tokens: &[u32], mut each: impl FnMut(&mut Engine)) -> Result<(), Error> {
    let mut sequence: Sequence = engine.sequence();
    for token in tokens {
        let step = Step::new(&mut sequence, std::slice::from_ref(token), Outputs::Last);
        engine.step(&mut [step])?;
        each(engine);
    }
    Ok(())
}

/// Seconds that the host of a GPU spends on a token until it is submitted, in separate steps, because drivers may wait
/// in a submit for earlier work. The median, because a software device sometimes takes the host's core.
fn host_time(engine: &mut Engine, tokens: &[u32]) -> Result<Option<f64>, Error> {
    let Some(mut last) = engine.gpu_stats() else { return Ok(None) };
    let mut times = Vec::new();
    steps(engine, tokens, |engine| {
        if let Some(now) = engine.gpu_stats() {
            times.push(now.since(last).host.as_secs_f64());
            last = now;
        }
    })?;
    Ok((!times.is_empty()).then(|| median(&mut times)))
}

/// Operations of the matrix products for one prompt token. The head runs for the last token only and does not count.
fn prompt_flops(model: &Model) -> f64 {
    let info = model.info();
    let head = 2 * info.vocab_size as u64 * info.width as u64;
    model.graph().linear_flops_per_token().saturating_sub(head) as f64
}

/// Median, least and most of some rates.
struct Rates {
    tokens: usize,
    median: f64,
    min: f64,
    max: f64,
}

impl Rates {
    fn of(mut rates: Vec<f64>, tokens: usize) -> Self {
        let median = median(&mut rates);
        Self { tokens, median, min: rates[0], max: rates[rates.len() - 1] }
    }

    fn json(&self) -> Value {
        json!({ "tokens": self.tokens, "tokens_per_second": self.median, "min": self.min, "max": self.max })
    }
}

/// All results of the command.
struct Report<'a> {
    model: &'a str,
    /// The made-up model, with the format of each weight.
    made_up: Option<Synthetic>,
    format: DType,
    architecture: &'a str,
    threads: usize,
    isa: Isa,
    reps: usize,
    prompt: Rates,
    generation: Rates,
    /// Generation of several sequences at once.
    batch: Vec<batch::Rate>,
    bytes_per_token: u64,
    flops_per_token: f64,
    /// Bytes of weights a second that generation reads.
    read: f64,
    walls: Option<Medians>,
    peak: Option<u64>,
    device: String,
    /// Costs of the generated tokens on the host's side of a GPU.
    costs: Option<GpuStats>,
    /// Seconds of the host for a token.
    host: Option<f64>,
    /// Bytes of weights copied to a GPU, and bytes that it reads where they lie in host memory.
    weights: Option<(u64, u64)>,
}

impl Report<'_> {
    /// Operations a second of the prompt.
    fn prompt_flops(&self) -> f64 {
        self.prompt.median * self.flops_per_token
    }

    fn json(&self) -> Value {
        let mut prompt = self.prompt.json();
        prompt["flops_per_second"] = self.prompt_flops().into();
        let mut generation = self.generation.json();
        generation["bytes_per_second"] = self.read.into();
        if let Some(walls) = &self.walls {
            prompt["share_of_fma_peak"] = walls.fma_peak.map(|peak| self.prompt_flops() / peak).into();
            generation["share_of_read_bandwidth"] = (self.read / walls.bandwidth).into();
        }
        if let Some(costs) = &self.costs {
            let a_token = |n: u64| n as f64 / costs.steps.max(1) as f64;
            generation["dispatches_per_token"] = a_token(costs.dispatches).into();
            generation["submits_per_token"] = a_token(costs.submits).into();
            generation["bytes_uploaded_per_token"] = a_token(costs.uploaded).into();
            generation["host_ms_per_token"] = self.host.map(|seconds| seconds * 1e3).into();
        }
        let made_up = self.made_up.as_ref().map(|made_up| {
            let bytes = made_up.bytes.iter().map(|(dtype, n)| (dtype.name().to_owned(), (*n).into()));
            json!({
                "layers": made_up.layers,
                "of_layers": made_up.of_layers,
                "format": self.format.name(),
                "weight_bytes": bytes.collect::<serde_json::Map<_, Value>>(),
            })
        });
        let mut report = json!({
            "model": self.model,
            "synthetic": made_up,
            "device": self.device,
            "architecture": self.architecture,
            "threads": self.threads,
            "isa": self.isa.name(),
            "reps": self.reps,
            "prompt": prompt,
            "generation": generation,
            "bytes_per_token": self.bytes_per_token,
            "flops_per_token": self.flops_per_token,
            "read_bandwidth": self.walls.as_ref().map(|walls| walls.bandwidth),
            "fma_peak": self.walls.as_ref().and_then(|walls| walls.fma_peak),
            "peak_memory_bytes": self.peak,
        });
        if !self.batch.is_empty() {
            let rate = |rate: &batch::Rate| json!({ "sequences": rate.sequences, "tokens_per_second": rate.tokens_per_second });
            report["batch"] = self.batch.iter().map(rate).collect();
        }
        if let Some((copied, imported)) = self.weights {
            report["weights_copied_bytes"] = copied.into();
            report["weights_imported_bytes"] = imported.into();
        }
        report
    }

    fn text(&self) -> String {
        let mut text = format!("{} on {}, medians of {}\n", self.model, self.device, self.reps);
        if let Some(Synthetic { layers, of_layers, bytes, .. }) = &self.made_up {
            let formats = bytes.iter().map(|(dtype, n)| format!("{} of {dtype}", human_bytes(*n)));
            let formats = formats.collect::<Vec<_>>().join(", ");
            text += &format!("{layers} of {of_layers} layers and the head, made up: {formats}\n");
        }
        let mut line = |name: &str, rates: &Rates, unit: &str, per_second: f64, wall: Option<f64>| {
            if rates.tokens == 0 {
                return;
            }
            text += &format!(
                "{name:<10} {:>5} tokens  {:8.1} tokens/s ({:.1} to {:.1})  {:7.1} {unit}",
                rates.tokens,
                rates.median,
                rates.min,
                rates.max,
                per_second / 1e9
            );
            if let Some(wall) = wall {
                text += &format!(" of {:.1}: {:.0} %", wall / 1e9, per_second / wall * 100.0);
            }
            text += "\n";
        };
        let walls = self.walls.as_ref();
        line("prompt", &self.prompt, "GFLOP/s", self.prompt_flops(), walls.and_then(|walls| walls.fma_peak));
        line("generation", &self.generation, "GB/s", self.read, walls.map(|walls| walls.bandwidth));
        for batch::Rate { sequences, tokens_per_second } in &self.batch {
            text += &format!("batch      {sequences:>5} sequences {tokens_per_second:6.1} tokens/s together\n");
        }
        if let Some(costs) = &self.costs {
            let steps = costs.steps.max(1);
            text += &format!(
                "a token takes {} dispatches in {} submit(s), {} bytes uploaded, {:.2} ms of the host\n",
                costs.dispatches / steps,
                costs.submits.div_ceil(steps),
                costs.uploaded / steps,
                self.host.unwrap_or_default() * 1e3,
            );
        }
        if let Some((copied, imported)) = self.weights {
            let [copied, imported] = [copied, imported].map(human_bytes);
            text += &format!("weights: {copied} copied to the device, {imported} read where they lie in host memory\n");
        }
        text += &format!("a token reads {} of weights", human_bytes(self.bytes_per_token));
        if let Some(peak) = self.peak {
            text += &format!("; peak memory {}", human_bytes(peak));
        }
        text + "\n"
    }
}
