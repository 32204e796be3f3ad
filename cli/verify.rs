//! `handmill verify`: each stage of a model on the GPU against the CPU.

use crate::{
    args::{Backend, Compute, Machine, Output, Rounding},
    devices,
    error::CliError,
    fetch, out, session,
};
use handmill_models::{
    Engine,
    engine::verify::{StageCheck, compare, times},
};
use serde_json::{Value, json};
use std::{ffi::OsString, time::Duration};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// Tokens of the prompt that is run before the single token
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    prompt: u16,
    /// How it runs
    #[command(flatten)]
    pub machine: Machine,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand. The GPU runs twice: as it does for `run`, and with nothing rounded, where a wrong bit has no rounding
/// to hide behind. One after the other, for there may be no room for its weights twice.
pub fn run(args: &Args) -> Result<(), CliError> {
    let prompt = usize::from(args.prompt);
    let n_ctx = Some(prompt + 1);
    let machine = Machine { device: None, gpu_layers: None, ..args.machine.clone() };
    let here = Compute { backend: Backend::Cpu, machine };
    let there = Compute { backend: Backend::Gpu, machine: args.machine.clone() };
    let failed = |e| CliError::because("the model could not be run", e);
    let model = session::model(&args.model)?;
    let mut gpu = session::engine(&there, &model, Rounding::AUTO, n_ctx)?;
    let mut cpu = session::engine(&here, &model, Rounding::AUTO, n_ctx)?;
    let mut exact = session::engine(&here, &model, Rounding::NONE, n_ctx)?;
    let vocab = model.info().vocab_size.max(1);
    let tokens: Vec<u32> = (0..=prompt).map(|i| (i * 7919 % vocab) as u32).collect();
    let rounded = compare(&mut exact, Some(&mut cpu), &mut gpu, &tokens).map_err(failed)?;
    let cpu_times = times(&mut cpu, &tokens).map_err(failed)?;
    let gpu_times = times(&mut gpu, &tokens).map_err(failed)?;
    let about = About::of(&mut gpu);
    drop(gpu);
    let mut gpu = session::engine(&there, &model, Rounding::NONE, n_ctx)?;
    let unrounded = compare(&mut exact, None, &mut gpu, &tokens).map_err(failed)?;

    let mut checks = rounded.into_iter().zip(unrounded).zip(cpu_times.into_iter().zip(gpu_times));
    let mut phase = |name: &'static str, tokens: usize| {
        let ((rounded, exact), (cpu, gpu)) = checks.next().unwrap_or_default();
        let times = cpu.into_iter().zip(gpu);
        let stages = rounded.into_iter().zip(exact).zip(times);
        let stages = stages.map(|((rounded, exact), (cpu, gpu))| Stage { rounded, exact, cpu, gpu }).collect();
        Phase { name, tokens, stages }
    };
    let phases = [phase("prompt", prompt), phase("generation", 1)];
    let report = Report { model: &args.model.to_string_lossy(), cpu: cpu.backend().describe(), about, phases };
    if args.output.json {
        out::json(&report.json())?
    } else {
        out::text(&report.text())?
    }
    match report.stages().filter(|s| !s.passed()).count() {
        0 => Ok(()),
        n => Err(CliError::failed(format!(
            "{n} of {} stages differ more than rounding explains; please report this with the table above",
            report.stages().count(),
        ))),
    }
}

/// A GPU's description, and the clock of its times.
struct About {
    adapter: Option<devices::Gpu>,
    clock: &'static str,
}

impl About {
    fn of(engine: &mut Engine) -> Self {
        let gpu = engine.gpu();
        let timestamps = gpu.is_some_and(|gpu| gpu.gpu().caps().timestamps);
        let clock = if timestamps { "device timestamps" } else { "host clock, one submit a kernel" };
        Self { adapter: gpu.map(|gpu| devices::Gpu(gpu.gpu().summary().clone())), clock }
    }
}

/// A stage of the plan: as `run` has it, with nothing rounded, and its times.
struct Stage {
    rounded: StageCheck,
    exact: StageCheck,
    cpu: Duration,
    gpu: Duration,
}

impl Stage {
    fn passed(&self) -> bool {
        self.rounded.passed() && self.exact.passed()
    }

    fn not_finite(&self) -> usize {
        self.rounded.not_finite + self.exact.not_finite
    }
}

struct Phase {
    name: &'static str,
    tokens: usize,
    stages: Vec<Stage>,
}

struct Report<'a> {
    model: &'a str,
    cpu: String,
    about: About,
    phases: [Phase; 2],
}

impl Report<'_> {
    fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.phases.iter().flat_map(|p| &p.stages)
    }

    fn json(&self) -> Value {
        let stage = |phase: &str, stage: &Stage| {
            json!({
                "phase": phase,
                "name": stage.rounded.name,
                "op": stage.rounded.op,
                "rows": stage.rounded.rows,
                // JSON has no infinity.
                "error": stage.rounded.error.min(f64::MAX),
                "bound": stage.rounded.bound,
                "exact_error": stage.exact.error.min(f64::MAX),
                "exact_bound": stage.exact.bound,
                "not_finite": stage.not_finite(),
                "cpu_ms": stage.cpu.as_secs_f64() * 1e3,
                "gpu_ms": stage.gpu.as_secs_f64() * 1e3,
                "passed": stage.passed(),
            })
        };
        let stages: Vec<Value> =
            self.phases.iter().flat_map(|p| p.stages.iter().map(move |s| stage(p.name, s))).collect();
        json!({
            "model": self.model,
            "cpu": self.cpu,
            "gpu": self.about.adapter.as_ref().map(devices::Gpu::json),
            "clock": self.about.clock,
            "passed": self.stages().all(Stage::passed),
            "steps": stages,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{} on {}\n", self.model, self.cpu);
        if let Some(gpu) = &self.about.adapter {
            text += &format!("against\n{}", gpu.text());
        }
        text += "each stage has the CPU's exact inputs everywhere; `exact` is with --kv-type f32 --precision exact, where nothing is rounded\n";
        text += &format!("GPU times by {}\n", self.about.clock);
        for Phase { name, tokens, stages } in &self.phases {
            text += &format!(
                "\n{name}, {tokens} token(s)\n{:<40} {:<18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
                "stage", "op", "error", "bound", "exact", "bound", "cpu ms", "gpu ms"
            );
            for stage in stages {
                text += &format!(
                    "{:<40} {:<18} {:>9.1e} {:>9.0e} {:>9.1e} {:>9.0e} {:>9.3} {:>9.3}{}\n",
                    stage.rounded.name,
                    stage.rounded.op,
                    stage.rounded.error,
                    stage.rounded.bound,
                    stage.exact.error,
                    stage.exact.bound,
                    stage.cpu.as_secs_f64() * 1e3,
                    stage.gpu.as_secs_f64() * 1e3,
                    match (stage.not_finite(), stage.passed()) {
                        (0, true) => String::new(),
                        (0, false) => "  WRONG".to_owned(),
                        (n, _) => format!("  WRONG: {n} not finite"),
                    },
                );
            }
        }
        let all = || self.stages().flat_map(|s| [&s.rounded, &s.exact]).filter(|c| c.bound > 0.0);
        let worst = all().max_by(|a, b| (a.error / a.bound).total_cmp(&(b.error / b.bound)));
        if let Some(worst) = worst {
            text += &format!(
                "\n{} of {} stages within their bounds; nearest to its bound: {} ({}), {:.1e} of {:.0e}\n",
                self.stages().filter(|s| s.passed()).count(),
                self.stages().count(),
                worst.name,
                worst.op,
                worst.error,
                worst.bound,
            );
        }
        text
    }
}
