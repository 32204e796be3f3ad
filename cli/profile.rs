//! `--profile`: the time of a run by op, as a table, and as a trace that Perfetto and Chrome show.

use crate::{
    error::CliError,
    out_file::OutFile,
    terminal::{always, note},
    walls::Meter,
};
use handmill_models::Engine;
use handmill_runtime::{
    cpu::{Isa, Pool},
    graph::Plan,
    profile::{Phase, Trace},
};
use serde_json::{Value, json};
use std::{io::Write, path::PathBuf, time::Duration};

/// The option, as several subcommands have it.
#[derive(Debug, clap::Args)]
pub struct Profile {
    /// Show where the time went, by kind of op, on standard error; with FILE.json also write a trace of the last steps
    /// for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE.json", num_args = 0..=1, default_missing_value = "", value_parser = file)]
    profile: Option<File>,
}

/// The trace's file; none for the table alone.
#[derive(Clone, Debug)]
struct File(Option<PathBuf>);

/// Refuses the name of a model behind `--profile`, which would be overwritten as the trace's file.
fn file(text: &str) -> Result<File, String> {
    match text {
        "" => Ok(File(None)),
        _ if text.ends_with(".json") => Ok(File(Some(text.into()))),
        _ => Err("the trace's name must end in .json (a model goes before --profile)".to_owned()),
    }
}

impl Profile {
    /// Whether a profile is wanted.
    pub fn wanted(&self) -> bool {
        self.profile.is_some()
    }

    /// Begins to measure, where a profile is wanted.
    pub fn begin(&self, engine: &mut Engine) -> Result<(), CliError> {
        if !self.wanted() {
            return Ok(());
        }
        let done = engine.backend().set_tracing(true);
        done.map_err(|e| CliError::because("the device cannot measure where time goes", e))
    }

    /// Shows the measurements, where a profile is wanted.
    pub fn end(&self, engine: &mut Engine, threads: Option<usize>) -> Result<(), CliError> {
        let Some(File(file)) = &self.profile else { return Ok(()) };
        let device = engine.backend().describe();
        let bandwidth = bandwidth(engine, threads);
        let backend = engine.backend();
        let Some(trace) = backend.trace() else { return Ok(()) };
        always(&table(&device, trace, bandwidth));
        if let Some(file) = file {
            let text = events(&device, trace, backend.plan()).to_string();
            let written = OutFile::create(file).and_then(|mut out| {
                out.write_all(text.as_bytes())?;
                out.finish()
            });
            written.map_err(|e| CliError::because(format!("could not write the trace to {}", file.display()), e))?;
            note(&format!("the last {} steps are in {}", trace.last.len(), file.display()));
        }
        Ok(())
    }
}

/// Bytes a second that the device reads; none where a CPU and a GPU share the work, whose ops have different walls.
fn bandwidth(engine: &mut Engine, threads: Option<usize>) -> Option<f64> {
    let threads = threads.unwrap_or_else(Pool::default_threads);
    Meter::new(engine, threads, Isa::from_env().ok()?).ok()??.bandwidth(engine).ok()?
}

fn table(device: &str, trace: &Trace, bandwidth: Option<f64>) -> String {
    let mut text = format!("profile of {device}: {}\n", trace.clock.describe());
    if let Some(bandwidth) = bandwidth {
        text +=
            &format!("read bandwidth {:.1} GB/s, measured just now; `of wall` is GB/s over that\n", bandwidth / 1e9);
    }
    for (name, phase) in [("prompt", &trace.prompt), ("generation", &trace.generation)] {
        if phase.runs > 0 {
            text += &rows(name, phase, bandwidth);
        }
    }
    text.trim_end().to_owned()
}

fn rows(name: &str, phase: &Phase, bandwidth: Option<f64>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let inside: Duration = phase.totals.values().map(|t| t.time).sum();
    let mut text = format!(
        "{name}: {} step(s), {} token(s), {:.2} ms a step, {:.2} of them in ops\n{:<18} {:<18} {:>7} {:>10} {:>6} {:>10} {:>10} {:>8} {:>8} {:>7}\n",
        phase.runs,
        phase.tokens,
        ms(phase.wall) / phase.runs as f64,
        ms(inside) / phase.runs as f64,
        "op",
        "kernel",
        "calls",
        "ms",
        "share",
        "MB",
        "MFLOP",
        "GB/s",
        "GFLOP/s",
        "of wall",
    );
    let mut totals: Vec<_> = phase.totals.iter().collect();
    totals.sort_by_key(|(_, total)| std::cmp::Reverse(total.time));
    for ((op, kernel), total) in totals {
        let seconds = total.time.as_secs_f64().max(1e-9);
        let read = total.cost.bytes as f64 / seconds;
        let wall = bandwidth.filter(|b| *b > 0.0).map(|b| format!("{:.0} %", read / b * 100.0)).unwrap_or_default();
        text += &format!(
            "{:<18} {:<18} {:>7} {:>10.3} {:>4.1} % {:>10.2} {:>10.1} {:>8.2} {:>8.2} {:>7}\n",
            op,
            kernel,
            total.calls,
            ms(total.time),
            seconds / inside.as_secs_f64().max(1e-9) * 100.0,
            total.cost.bytes as f64 / 1e6,
            total.cost.flops as f64 / 1e6,
            read / 1e9,
            total.cost.flops as f64 / seconds / 1e9,
            wall,
        );
    }
    text
}

/// The last steps as Chrome's trace events: a row for the steps of the model, one for the calls of kernels.
fn events(device: &str, trace: &Trace, plan: &Plan) -> Value {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let named = |what: &str, tid: u32, name: &str| json!({ "name": what, "ph": "M", "pid": 1, "tid": tid, "args": { "name": name } });
    let mut all = vec![
        named("process_name", 0, device),
        named("thread_name", 0, "steps"),
        named("thread_name", 1, trace.clock.describe()),
    ];
    for run in &trace.last {
        all.push(json!({
            "name": format!("{} token(s)", run.tokens),
            "ph": "X",
            "ts": us(run.start),
            "dur": us(run.wall),
            "pid": 1,
            "tid": 0,
            "args": { "tokens": run.tokens },
        }));
        for call in &run.calls {
            let stage = call.stage.map(|i| &plan.stages[i]);
            all.push(json!({
                "name": if call.kernel.is_empty() { &call.op } else { call.kernel },
                "ph": "X",
                "ts": us(run.start + call.start),
                "dur": us(call.time),
                "pid": 1,
                "tid": 1,
                "args": {
                    "op": &*call.op,
                    "step": stage.map(|s| s.name.as_str()),
                    "bytes": call.cost.bytes,
                    "flops": call.cost.flops,
                },
            }));
        }
    }
    Value::Array(all)
}

#[cfg(test)]
mod tests {
    use super::file;

    #[test]
    fn models_are_not_overwritten() {
        assert!(file("").is_ok_and(|f| f.0.is_none()));
        assert!(file("a/b.json").is_ok_and(|f| f.0.is_some()));
        assert!(file("smollm2").is_err() && file("model.gguf").is_err());
    }
}
