//! Where the time of a model's steps goes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::graph::{Cost, Load, Plan, StageCost};

/// How the times of a trace were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The device's own timestamps around each kernel.
    Timestamps,
    /// The host's clock around each kernel, submitted and awaited on its own: the submit's cost is in every figure.
    Submits,
    /// The host's clock around each stage of the plan on the CPU, started on its own: the row program before a linear
    /// counts with it.
    Runs,
}

impl Clock {
    /// The clock for people.
    pub fn describe(self) -> &'static str {
        match self {
            Clock::Timestamps => "device timestamps around each kernel",
            Clock::Submits => {
                "no device timestamps: each kernel submitted on its own and timed by the host, submits included"
            }
            Clock::Runs => "host clock, by stage of the plan; norms and the like count with the linear behind them",
        }
    }
}

/// A call of a kernel, or a stage of a plan where nothing finer is measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallTrace {
    /// The stage of the plan; none for calls behind the plan, such as sampling.
    pub stage: Option<usize>,
    /// The stage's kind with the formats of its weights.
    pub op: Arc<str>,
    /// The kernel; empty where the times are by stage.
    pub kernel: &'static str,
    /// From the start of the run.
    pub start: Duration,
    /// Time between its start and its end.
    pub time: Duration,
    /// Memory traffic and work, at least.
    pub cost: Cost,
}

/// One step of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunTrace {
    /// New tokens.
    pub tokens: usize,
    /// From the start of the trace.
    pub start: Duration,
    /// As the host saw it.
    pub wall: Duration,
    /// In order.
    pub calls: Vec<CallTrace>,
}

/// Sum over equal calls.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Total {
    /// How many.
    pub calls: u64,
    /// Their time together.
    pub time: Duration,
    /// Their cost together.
    pub cost: Cost,
}

/// Steps of one kind: prompts, or single tokens.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Phase {
    /// Steps.
    pub runs: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their time as the host saw it.
    pub wall: Duration,
    /// By op and kernel.
    pub totals: BTreeMap<(Arc<str>, &'static str), Total>,
}

/// Sums over all steps since tracing began, and the last ones in full.
#[derive(Clone, Debug)]
pub struct Trace {
    /// How times were taken.
    pub clock: Clock,
    /// Steps with several tokens a sequence.
    pub prompt: Phase,
    /// Steps with one token a sequence.
    pub generation: Phase,
    /// The last steps, the latest last.
    pub last: VecDeque<RunTrace>,
    labels: Vec<Arc<str>>,
}

/// Steps that are kept in full.
const KEPT: usize = 8;

/// A call as a backend measured it: stage of the plan, kernel, start, time.
pub(crate) type RawCall = (Option<usize>, &'static str, Duration, Duration);

impl Trace {
    pub(crate) fn new(clock: Clock, plan: &Plan) -> Self {
        Self {
            clock,
            prompt: Phase::default(),
            generation: Phase::default(),
            last: VecDeque::new(),
            labels: (0..plan.stages.len()).map(|i| plan.op_label(i).into()).collect(),
        }
    }

    /// Adds a step that began at `start`.
    pub(crate) fn add(&mut self, plan: &Plan, load: &Load, (start, wall): (Duration, Duration), raw: &[RawCall]) {
        let single = load.sequences.iter().all(|(_, new)| *new == 1);
        let phase = if single { &mut self.generation } else { &mut self.prompt };
        phase.runs += 1;
        phase.tokens += load.tokens as u64;
        phase.wall += wall;
        let mut calls = Vec::with_capacity(raw.len());
        for of_stage in raw.chunk_by(|a, b| a.0 == b.0) {
            let stage = of_stage[0].0;
            let cost = stage.map(|i| plan.cost(i, load)).unwrap_or_default();
            let count = |role: Role| of_stage.iter().filter(|(_, kernel, ..)| role_of(kernel) == role).count().max(1);
            let counts = [Role::Main, Role::Rows].map(|role| count(role) as u64);
            for &(stage, kernel, start, time) in of_stage {
                let role = role_of(kernel);
                let op = match stage {
                    Some(i) if role != Role::Rows => self.labels[i].clone(),
                    _ => kernel.into(),
                };
                let cost = share(&cost, role, counts);
                let total = phase.totals.entry((op.clone(), kernel)).or_default();
                total.calls += 1;
                total.time += time;
                total.cost = total.cost + cost;
                calls.push(CallTrace { stage, op, kernel, start, time, cost });
            }
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(RunTrace { tokens: load.tokens, start, wall, calls });
    }
}

/// The part of a stage's cost that a kernel has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// All of it: the stage has only one call.
    Whole,
    /// The part of linears, attention, and other ops that read weights or caches.
    Main,
    /// The part of the row program.
    Rows,
    /// None: the kernel exists because of how kernels divide the work.
    Extra,
}

fn role_of(kernel: &str) -> Role {
    match kernel {
        "" => Role::Whole,
        "attention_merge" | "select_keys" | "cache_rows" | "expert_sort" | "state_begin" => Role::Extra,
        "select_scores" | "pool" | "short_conv" | "gated_delta" => Role::Main,
        "expert_vec" | "expert_mat" | "expert_columns" => Role::Main,
        k if k.starts_with("linear") || k.starts_with("attention") => Role::Main,
        _ => Role::Rows,
    }
}

/// A call's share of its stage's cost; calls of one role share equally.
fn share(cost: &StageCost, role: Role, [mains, rows]: [u64; 2]) -> Cost {
    let part = |cost: Cost, n: u64| Cost { bytes: cost.bytes / n, flops: cost.flops / n };
    match role {
        Role::Whole => cost.rows + cost.main,
        Role::Main => part(cost.main, mains),
        Role::Rows => part(cost.rows, rows),
        Role::Extra => Cost::default(),
    }
}
