//! One device against another, step by step of a model's plan.

use std::{collections::HashMap, time::Duration};

use handmill_runtime::{
    Observed,
    cpu::{Isa, ops::op_kernels},
    graph::{Plan, StepKind, ValueId},
    profile::Trace,
    quant::DType,
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

use super::Engine;
use crate::Error;

/// How one step of the plan compares.
#[derive(Clone, Debug)]
pub struct StepCheck {
    /// Its name.
    pub name: String,
    /// What it does, with the format of its weights.
    pub op: String,
    /// Its rows.
    pub rows: usize,
    /// ‖theirs − ours‖ / ‖ours‖ of the value that comes nearest to its bound, or exceeds it most. Where that is a residual
    /// sum, by the norm of what the step adds: little beside the sum, and all that the step computes.
    pub error: f64,
    /// What that may be.
    pub bound: f64,
    /// Values that are not finite there but are here.
    pub not_finite: usize,
    /// On the reference.
    pub reference_time: Duration,
    /// On the other device.
    pub time: Duration,
}

impl StepCheck {
    /// Whether the step computes what it should.
    pub fn passed(&self) -> bool {
        self.not_finite == 0 && self.error <= self.bound
    }
}

/// Runs `tokens` on both engines: all but the last as a prompt, then the last by itself. The engine `other` gets the
/// inputs of every step from `reference`, so that errors do not add up. Returns the checks of both.
///
/// # Errors
/// As [`Engine::step`].
pub fn compare(reference: &mut Engine, other: &mut Engine, tokens: &[u32]) -> Result<[Vec<StepCheck>; 2], Error> {
    let Some((last, prompt)) = tokens.split_last() else { return Err(Error::EmptyPrompt) };
    let mut sequences = [SequenceKv::default(), SequenceKv::default()];
    let parts = [prompt, std::slice::from_ref(last)];
    let mut checks = [Vec::new(), Vec::new()];
    for (checks, tokens) in checks.iter_mut().zip(parts).filter(|(_, tokens)| !tokens.is_empty()) {
        *checks = compare_step(reference, other, &mut sequences, tokens)?;
    }
    let [ours, theirs] = sequences;
    reference.backend.pages().release(ours);
    other.backend.pages().release(theirs);
    let ours = times(reference, parts)?;
    let theirs = times(other, parts)?;
    for ((checks, ours), theirs) in checks.iter_mut().zip(ours).zip(theirs) {
        for (check, (ours, theirs)) in checks.iter_mut().zip(ours.into_iter().zip(theirs)) {
            (check.reference_time, check.time) = (ours, theirs);
        }
    }
    Ok(checks)
}

fn compare_step(
    reference: &mut Engine,
    other: &mut Engine,
    [ours, theirs]: &mut [SequenceKv; 2],
    tokens: &[u32],
) -> Result<Vec<StepCheck>, Error> {
    let mut want: HashMap<ValueId, Vec<f32>> = HashMap::new();
    let mut steps = [SequenceStep { kv: ours, tokens, outputs: Outputs::Last }];
    // A plan writes every value once.
    reference.backend.forward_observed(&mut steps, &mut |seen| {
        want.insert(seen.value, std::mem::take(&mut seen.data));
    })?;
    let kv = other.backend.pages().kv_type();
    let plan = reference.backend.plan();
    let mut checks: Vec<StepCheck> = (0..plan.steps.len())
        .map(|i| StepCheck {
            name: plan.steps[i].name.clone(),
            op: plan.op_label(i),
            rows: 0,
            error: 0.0,
            bound: 0.0,
            not_finite: 0,
            reference_time: Duration::ZERO,
            time: Duration::ZERO,
        })
        .collect();
    let mut steps = [SequenceStep { kv: theirs, tokens, outputs: Outputs::Last }];
    other.backend.forward_observed(&mut steps, &mut |seen| {
        if seen.step >= checks.len() {
            return;
        }
        let mut right = want.remove(&seen.value).unwrap_or_default();
        if let Some((act, up)) = seen.gated {
            let gate = std::mem::take(&mut right);
            let up = want.remove(&up).unwrap_or_default();
            right.resize(gate.len(), 0.0);
            (op_kernels(Isa::detect()).gated_act)(act, &gate, &up, &mut right);
        }
        let addend = seen.addend.and_then(|value| want.remove(&value));
        let (error, not_finite) = difference(&seen.data, &right, addend.as_deref().unwrap_or(&right));
        let bound = bound(plan, seen, kv);
        let check = &mut checks[seen.step];
        check.rows = seen.rows;
        check.not_finite += not_finite;
        if check.bound == 0.0 || error / bound > check.error / check.bound {
            (check.error, check.bound) = (error, bound);
        }
        seen.data = right;
    })?;
    Ok(checks)
}

/// ‖got − want‖ / ‖scale‖, and how many values are not finite in `got` alone. Only finite values count for the norms.
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

/// What the error of a value may be: what rounding alone explains, with room to spare. Devices differ in how they round
/// the inputs of a matrix product: quantised formats are multiplied with inputs rounded to 8 bits on CPUs and on some
/// GPUs, and the formats of 256 elements share one scale among more of them. Where a kernel reads wrong numbers, errors
/// are near 1.
fn bound(plan: &Plan, seen: &Observed, kv: KvType) -> f64 {
    let of_format = |dtype: DType| dtype.format().device_error;
    match &plan.steps[seen.step].kind {
        StepKind::Linear(linear) => {
            let part = linear.parts.iter().find(|p| p.output == seen.addend.unwrap_or(seen.value));
            // A gated activation multiplies the results of two.
            let factor = if seen.gated.is_some() { 2.0 } else { 1.0 };
            part.map_or(1e-3, |p| factor * of_format(plan.graph.weight(p.weight).dtype()))
        }
        StepKind::Experts(experts) => {
            let part = experts.parts.iter().find(|p| p.output == seen.value);
            part.map_or(1e-3, |p| of_format(plan.graph.weight(p.op.experts[0]).dtype()))
        }
        StepKind::Attention(_) if kv == KvType::F16 => 5e-3,
        StepKind::Rows(_) | StepKind::Select(_) | StepKind::Pool(_) | StepKind::Attention(_) => 1e-3,
        StepKind::ShortConv(_) | StepKind::GatedDelta(_) => 1e-3,
    }
}

/// The time of each step of the plan, for each of `parts` in turn, on an engine that has run them before.
fn times(engine: &mut Engine, parts: [&[u32]; 2]) -> Result<[Vec<Duration>; 2], Error> {
    let backend = &mut *engine.backend;
    let mut sequence = SequenceKv::default();
    let mut times = [Vec::new(), Vec::new()];
    for (times, tokens) in times.iter_mut().zip(parts).filter(|(_, tokens)| !tokens.is_empty()) {
        backend.set_tracing(true)?;
        backend.forward(&mut [SequenceStep { kv: &mut sequence, tokens, outputs: Outputs::Last }])?;
        *times = vec![Duration::ZERO; backend.plan().steps.len()];
        let calls = backend.trace().and_then(|t: &Trace| t.last.back()).map_or(&[][..], |run| &run.calls);
        for call in calls {
            if let Some(step) = call.step {
                times[step] += call.time;
            }
        }
    }
    backend.set_tracing(false)?;
    backend.pages().release(sequence);
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn differences_are_relative_and_see_what_is_not_finite() {
        let of = |got: &[f32], want: &[f32]| difference(got, want, want);
        assert_eq!(of(&[1.0, 2.0], &[1.0, 2.0]), (0.0, 0));
        assert_eq!(of(&[3.0, 0.0], &[2.0, 0.0]), (0.5, 0));
        assert_eq!(of(&[f32::NAN, 1.0, f32::INFINITY], &[1.0, 1.0, f32::INFINITY]), (0.0, 1));
        assert_eq!(of(&[1.0], &[0.0]).0, f64::INFINITY);
        assert_eq!(of(&[1.0], &[]).0, f64::INFINITY);
        assert_eq!(difference(&[9.0, 8.0], &[8.0, 8.0], &[0.0, 2.0]), (0.5, 0));
    }
}
