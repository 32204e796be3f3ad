//! Compares one device with another, stage by stage of a model's plan.

use std::{collections::HashMap, time::Duration};

use handmill_runtime::{
    Observed,
    cpu::{Isa, ops::op_kernels},
    graph::{Plan, StageKind, ValueId},
    profile::Trace,
    quant::DType,
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

use super::{Engine, finite::Found};
use crate::Error;

/// The comparison of one stage of the plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StageCheck {
    /// Its name.
    pub name: String,
    /// The stage's kind with the formats of its weights.
    pub op: String,
    /// Its rows.
    pub rows: usize,
    /// The error of the value that comes nearest to its bound, or exceeds it most; see [`compare`].
    pub error: f64,
    /// The bound of the error.
    pub bound: f64,
    /// Values that are not finite here but are finite in `exact`.
    pub not_finite: usize,
}

impl StageCheck {
    /// Whether the stage is within its bound and has no new value that is not finite.
    pub fn passed(&self) -> bool {
        self.not_finite == 0 && self.error <= self.bound
    }
}

/// Runs `tokens` on the engines: all but the last as a prompt, then the last by itself. All engines get the inputs of
/// every stage from `exact`, so that errors do not add up. Returns the checks of both.
///
/// `exact` rounds nothing: the CPU with [`PrecisionChoice::Exact`](super::PrecisionChoice::Exact) and
/// [`KvChoice::F32`](super::KvChoice::F32). Where `other` rounds nothing either,
/// `rounded` is none, and every element of a linear's result must be right up to the order of sums. Else `rounded` is
/// an engine that rounds as `other` should: a linear of `other` may then differ from the exact one by twice the
/// difference of `rounded`. A linear's error is the largest difference of an element, relative to the root of the mean
/// square of all: a norm would hide the single output that a wrong bit of a weight changes. Other stages are compared
/// with those of `rounded`, by the norm of all their results. Where a device makes a residual sum in the stage's
/// kernel, errors are measured by the stage's own addend, because the stage computes only that.
///
/// # Errors
/// As [`Engine::step`]; [`Error::NotFinite`] where `exact` computes a value that is not finite.
pub fn compare(
    exact: &mut Engine,
    rounded: Option<&mut Engine>,
    other: &mut Engine,
    tokens: &[u32],
) -> Result<[Vec<StageCheck>; 2], Error> {
    let Some((last, prompt)) = tokens.split_last() else { return Err(Error::EmptyPrompt) };
    let parts = [prompt, std::slice::from_ref(last)];
    let mut checks = [Vec::new(), Vec::new()];
    let mut engines = (Observer::new(exact), rounded.map(Observer::new), Observer::new(other));
    for (checks, tokens) in checks.iter_mut().zip(parts).filter(|(_, tokens)| !tokens.is_empty()) {
        *checks = compare_step(&mut engines, tokens)?;
    }
    Ok(checks)
}

/// Values by id; a plan writes each once.
type Values = HashMap<ValueId, Vec<f32>>;

/// An engine and the sequence that it runs.
struct Observer<'a> {
    engine: &'a mut Engine,
    kv: SequenceKv,
}

impl<'a> Observer<'a> {
    fn new(engine: &'a mut Engine) -> Self {
        Self { engine, kv: SequenceKv::default() }
    }

    fn run(&mut self, tokens: &[u32], look: &mut dyn FnMut(&mut Observed)) -> Result<(), Error> {
        let step = SequenceStep::new(&mut self.kv, tokens, Outputs::Last);
        Ok(self.engine.backend.forward_observed(&mut [step], look)?)
    }
}

fn compare_step(
    (exact, rounded, other): &mut (Observer<'_>, Option<Observer<'_>>, Observer<'_>),
    tokens: &[u32],
) -> Result<Vec<StageCheck>, Error> {
    let (mut right, mut near) = (Values::new(), Values::new());
    let mut broken = None;
    exact.run(tokens, &mut |seen| {
        if broken.is_none() && !seen.data.iter().all(|x| x.is_finite()) {
            broken = Some(Found { stage: seen.stage, value: seen.value });
        }
        right.insert(seen.value, seen.data.clone());
    })?;
    if let Some(found) = broken {
        return Err(exact.engine.not_finite_in(found));
    }
    let rounds = rounded.is_some();
    if let Some(rounded) = rounded {
        rounded.run(tokens, &mut |seen| {
            let Some(right) = right.get(&seen.value) else { return };
            near.insert(seen.value, std::mem::replace(&mut seen.data, right.clone()));
        })?;
    }
    let kv = other.engine.backend.pages().kv_type();
    let plan = exact.engine.backend.plan();
    let mut checks: Vec<StageCheck> = (0..plan.stages.len())
        .map(|i| StageCheck {
            name: plan.stages[i].name.clone(),
            op: plan.op_label(i),
            rows: 0,
            error: 0.0,
            bound: 0.0,
            not_finite: 0,
        })
        .collect();
    other.run(tokens, &mut |seen| {
        let Some(check) = checks.get_mut(seen.stage) else { return };
        let want = wanted(seen, &right);
        let near = if rounds { wanted(seen, &near) } else { want.clone() };
        let (error, bound, not_finite) = match multiplies(plan, seen) {
            Some(dtype) => {
                let (error, odd) = largest_difference(&seen.data, &want.value, &want.scale);
                let (rounding, _) = largest_difference(&near.scale, &want.scale, &want.scale);
                (error, if rounds { of_rounding(dtype, rounding) } else { EXACT }, odd)
            }
            None => {
                let (error, odd) = difference(&seen.data, &near.value, &near.scale);
                (error, of_stage(plan, seen, kv), odd)
            }
        };
        check.rows = seen.rows;
        check.not_finite += not_finite;
        if check.bound == 0.0 || error / bound > check.error / check.bound {
            (check.error, check.bound) = (error, bound);
        }
        seen.data = want.value;
    })?;
    Ok(checks)
}

/// The right value, and the scale of its error.
#[derive(Clone, Default)]
struct Wanted {
    value: Vec<f32>,
    scale: Vec<f32>,
}

/// The values of `values` that correspond to `seen` of another engine.
fn wanted(seen: &Observed, values: &Values) -> Wanted {
    let of = |value: ValueId| values.get(&value).cloned().unwrap_or_default();
    let mut value = of(seen.value);
    if let Some((act, up)) = seen.gated {
        let (gate, up) = (value, of(up));
        value = vec![0.0; gate.len()];
        (op_kernels(Isa::detect()).gated_act)(act, &gate, &up, &mut value);
    }
    let scale = seen.addend.map_or_else(|| value.clone(), of);
    Wanted { value, scale }
}

/// ‖got − want‖ / ‖scale‖, and the number of values that are not finite in `got` alone. Only finite values count for
/// the norms.
fn difference(got: &[f32], want: &[f32], scale: &[f32]) -> (f64, usize) {
    if got.len() != want.len() || want.len() != scale.len() {
        return (f64::INFINITY, 0);
    }
    let (mut off, mut all, mut not_finite) = (0.0, 0.0, 0);
    for ((g, w), s) in got.iter().zip(want).zip(scale) {
        if g.is_finite() && w.is_finite() {
            off += f64::from(g - w).powi(2);
            all += if s.is_finite() { f64::from(*s).powi(2) } else { 0.0 };
        } else if w.is_finite() {
            not_finite += 1;
        }
    }
    (if off == 0.0 { 0.0 } else { (off / all).sqrt() }, not_finite)
}

/// The largest of |got − want| relative to the root of the mean square of `scale`, and the number of values that are
/// not finite in `got` alone. Rounding of `want` itself does not count: beside a large residual its last bits exceed
/// the stage's addend.
fn largest_difference(got: &[f32], want: &[f32], scale: &[f32]) -> (f64, usize) {
    if got.len() != want.len() || want.len() != scale.len() {
        return (f64::INFINITY, 0);
    }
    let square = scale.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / scale.len().max(1) as f64;
    let off = |(g, w): (&f32, &f32)| f64::from((g - w).abs() - 2.0 * f32::EPSILON * w.abs()).max(0.0);
    let off = got.iter().zip(want).filter(|(g, _)| g.is_finite()).map(off).fold(0.0, f64::max);
    let not_finite = got.iter().filter(|g| !g.is_finite()).count();
    (if off == 0.0 { 0.0 } else { off / square.sqrt() }, not_finite)
}

/// Bound of a linear's largest difference where only the order of sums differs.
const EXACT: f64 = 2e-4;

/// The format of the matrix whose products were seen, directly or in a gated activation or a sum.
fn multiplies(plan: &Plan, seen: &Observed) -> Option<DType> {
    let output = seen.addend.unwrap_or(seen.value);
    let weight = match &plan.stages[seen.stage].kind {
        StageKind::Linear(linear) => linear.parts.iter().find(|p| p.output == output).map(|p| p.weight),
        StageKind::Experts(experts) => experts.parts.iter().find(|p| p.output == output).map(|p| p.op.experts[0]),
        _ => None,
    };
    weight.map(|w| plan.graph.weight(w).dtype())
}

/// Bound of a linear's largest difference where the CPU's results are `rounding` from the exact ones: devices round
/// floats to halves as well. Where the CPU keeps activations in f32, the effect of 8 bits on these inputs is unknown.
fn of_rounding(dtype: DType, rounding: f64) -> f64 {
    let beyond = match rounding {
        _ if dtype.is_float() => 5e-3,
        r if r < 1e-3 => 5e-2,
        _ => 1e-2,
    };
    beyond + 2.0 * rounding
}

/// Bound of the error of a value that no matrix makes: rounding, with room to spare.
fn of_stage(plan: &Plan, seen: &Observed, kv: KvType) -> f64 {
    match &plan.stages[seen.stage].kind {
        StageKind::Attention(_) if kv != KvType::F32 => 5e-3,
        _ => 1e-3,
    }
}

/// The time of each stage of the plan, for all but the last of `tokens` as a prompt, and for the last by itself. The
/// engine has run such steps before, so no cost of a first run is timed.
///
/// # Errors
/// As [`Engine::step`].
pub fn times(engine: &mut Engine, tokens: &[u32]) -> Result<[Vec<Duration>; 2], Error> {
    let backend = &mut *engine.backend;
    let Some((last, prompt)) = tokens.split_last() else { return Err(Error::EmptyPrompt) };
    let parts = [prompt, std::slice::from_ref(last)];
    let mut sequence = SequenceKv::default();
    let mut times = [Vec::new(), Vec::new()];
    for (times, tokens) in times.iter_mut().zip(parts).filter(|(_, tokens)| !tokens.is_empty()) {
        backend.set_tracing(true)?;
        backend.forward(&mut [SequenceStep::new(&mut sequence, tokens, Outputs::Last)])?;
        *times = vec![Duration::ZERO; backend.plan().stages.len()];
        let calls = backend.trace().and_then(|t: &Trace| t.last.back()).map_or(&[][..], |run| &run.calls);
        for call in calls {
            if let Some(stage) = call.stage {
                times[stage] += call.time;
            }
        }
    }
    backend.set_tracing(false)?;
    Ok(times)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
