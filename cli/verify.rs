//! `handmill verify`: each step of a model on the GPU against the CPU.

use crate::{
    args::{Backend, Global},
    devices,
    error::CliError,
    fetch, out, session,
};
use handmill_models::{
    KvChoice,
    engine::verify::{StepCheck, compare},
};
use serde_json::{Value, json};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: String,
    /// Tokens of the prompt that is run before the single token
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    prompt: u16,
}

/// Runs the subcommand.
pub fn run(global: &Global, args: &Args) -> Result<(), CliError> {
    let prompt = usize::from(args.prompt);
    let n_ctx = Some(prompt + 1);
    let here = Global { backend: Backend::Cpu, device: None, gpu_layers: None, ..global.clone() };
    let there = Global { backend: Backend::Gpu, ..global.clone() };
    let (model, mut gpu) = session::with_ctx(&there, &args.model, KvChoice::Auto, n_ctx)?;
    let (_, mut cpu) = session::with_ctx(&here, &args.model, KvChoice::Auto, n_ctx)?;
    let vocab = model.info().vocab_size.max(1);
    let tokens: Vec<u32> = (0..=prompt).map(|i| (i * 7919 % vocab) as u32).collect();
    let checks =
        compare(&mut cpu, &mut gpu, &tokens).map_err(|e| CliError::because("the model could not be run", e))?;
    let clock = {
        let backend = gpu.backend();
        let timestamps = backend.as_gpu().is_some_and(|gpu| gpu.gpu().caps().timestamps);
        if timestamps { "device timestamps" } else { "host clock, one submit a kernel" }
    };
    let adapter = gpu.backend().as_gpu().map(|gpu| devices::Gpu(gpu.gpu().summary().clone()));
    let report = Report {
        model: &args.model,
        cpu: cpu.backend().describe(),
        adapter,
        clock,
        phases: [("prompt", prompt, &checks[0]), ("generation", 1, &checks[1])],
    };
    if global.json {
        out::json(&report.json())?
    } else {
        out::text(&report.text())?
    }
    match checks.iter().flatten().filter(|c| !c.passed()).count() {
        0 => Ok(()),
        n => Err(CliError::failed(format!(
            "{n} of {} steps differ more than rounding explains; please report this with the table above",
            checks.iter().map(Vec::len).sum::<usize>(),
        ))),
    }
}

struct Report<'a> {
    model: &'a str,
    cpu: String,
    adapter: Option<devices::Gpu>,
    clock: &'a str,
    phases: [(&'a str, usize, &'a [StepCheck]); 2],
}

impl Report<'_> {
    fn json(&self) -> Value {
        let step = |phase: &str, check: &StepCheck| {
            json!({
                "phase": phase,
                "name": check.name,
                "op": check.op,
                "rows": check.rows,
                // JSON has no infinity.
                "error": check.error.min(f64::MAX),
                "bound": check.bound,
                "not_finite": check.not_finite,
                "cpu_ms": check.reference_time.as_secs_f64() * 1e3,
                "gpu_ms": check.time.as_secs_f64() * 1e3,
                "passed": check.passed(),
            })
        };
        let steps: Vec<Value> =
            self.phases.iter().flat_map(|(phase, _, checks)| checks.iter().map(move |c| step(phase, c))).collect();
        json!({
            "model": self.model,
            "cpu": self.cpu,
            "gpu": self.adapter.as_ref().map(devices::Gpu::json),
            "clock": self.clock,
            "passed": self.phases.iter().all(|(_, _, checks)| checks.iter().all(StepCheck::passed)),
            "steps": steps,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{} on {}\n", self.model, self.cpu);
        if let Some(gpu) = &self.adapter {
            text += &format!("against\n{}", gpu.text());
        }
        text += &format!("each step has the CPU's inputs on both; GPU times by {}\n", self.clock);
        for (phase, tokens, checks) in &self.phases {
            text += &format!(
                "\n{phase}, {tokens} token(s)\n{:<40} {:<18} {:>9} {:>9} {:>9} {:>9}\n",
                "step", "op", "error", "bound", "cpu ms", "gpu ms"
            );
            for check in *checks {
                text += &format!(
                    "{:<40} {:<18} {:>9.1e} {:>9.0e} {:>9.3} {:>9.3}{}\n",
                    check.name,
                    check.op,
                    check.error,
                    check.bound,
                    check.reference_time.as_secs_f64() * 1e3,
                    check.time.as_secs_f64() * 1e3,
                    match (check.not_finite, check.passed()) {
                        (0, true) => String::new(),
                        (0, false) => "  WRONG".to_owned(),
                        (n, _) => format!("  WRONG: {n} not finite"),
                    },
                );
            }
        }
        let all = || self.phases.iter().flat_map(|(_, _, checks)| checks.iter());
        let worst = all().filter(|c| c.bound > 0.0).max_by(|a, b| (a.error / a.bound).total_cmp(&(b.error / b.bound)));
        if let Some(worst) = worst {
            text += &format!(
                "\n{} of {} steps within their bounds; nearest to its bound: {} ({}), {:.1e} of {:.0e}\n",
                all().filter(|c| c.passed()).count(),
                all().count(),
                worst.name,
                worst.op,
                worst.error,
                worst.bound,
            );
        }
        text
    }
}
