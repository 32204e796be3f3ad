//! One plan on two devices: each stage runs where the plan puts it.
//!
//! Both backends know the whole plan and lay its values out alike; each has the weights, and the keys and values, of
//! its own stages only. The book of pages and the rows of a step exist once and go from one to the other. A *stretch*
//! is a run of stages on one device. Before a stretch, the values that its stages read and the other device has
//! computed are copied over, each once. A model whose last layers run on a GPU has two stretches, and a step crosses
//! once each way: with the residual stream in two parts (the layer's input, and what the layer adds to it), and with
//! the logits.

use std::{
    collections::HashSet,
    mem::swap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Backend, BackendError, Observed, StepOutput,
    cpu::{CpuBackend, CpuOptions, Finished, Logits, choose::Choices},
    gpu::{Gpu, GpuBackend, GpuBackendOptions},
    graph::{Device, Plan, ValueId},
    profile::{Clock, RawCall, Trace},
    step::{GpuStats, Pages, SequenceKv, SequenceStep, StepError, Ticket, UnderWay, check_results},
};

/// A plan ready to run on the CPU and a GPU.
pub struct SplitBackend {
    cpu: CpuBackend,
    gpu: GpuBackend,
    stretches: Arc<[Stretch]>,
    /// Device that has the book of pages and the rows of the step.
    state: Device,
    /// Output rows and hidden states of the step that runs, then those that were collected last.
    results: [Vec<f32>; 2],
    /// Steps that have run and are not collected yet.
    under_way: UnderWay<Finished>,
    /// The trace and its start, while tracing is on.
    tracing: Option<Box<(Trace, Instant)>>,
}

/// Consecutive stages on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    device: Device,
    stages: Range<usize>,
    /// Values of the other device that no earlier stretch here has read.
    needs: Vec<ValueId>,
}

impl Stretch {
    fn all(plan: &Plan) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut there: HashSet<(ValueId, Device)> = HashSet::new();
        for (i, stage) in plan.stages.iter().enumerate() {
            let device = stage.device;
            let (reads, writes) = stage.kind.reads_and_writes();
            there.extend(writes.into_iter().map(|v| (v, device)));
            let needs = reads.into_iter().filter(|v| there.insert((*v, device)));
            match all.last_mut() {
                Some(last) if last.device == device => {
                    last.stages.end = i + 1;
                    last.needs.extend(needs);
                }
                _ => all.push(Self { device, stages: i..i + 1, needs: needs.collect() }),
            }
        }
        all
    }
}

/// Runs the stages of a stretch, whose inputs are there.
type Each<'a> = dyn FnMut(&mut SplitBackend, &[&SequenceKv], &Stretch) -> Result<(), BackendError> + 'a;

impl SplitBackend {
    /// Prepares both devices for their stages of `plan`. `progress` hears of bytes of weights uploaded and bytes in
    /// all.
    ///
    /// # Errors
    /// As [`GpuBackend::new`] and [`CpuBackend::new`].
    pub fn new(
        gpu: Arc<Gpu>,
        plan: Plan,
        gpu_options: &GpuBackendOptions,
        cpu_options: &CpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, BackendError> {
        let gpu = GpuBackend::new(gpu, plan.clone(), gpu_options, progress)?;
        let stretches = Stretch::all(&plan).into();
        let mut cpu = CpuBackend::new(plan, cpu_options)?;
        // Steps are admitted to the CPU's book.
        GpuBackend::bound_pages(gpu.gpu(), gpu.plan(), cpu.step_state().0);
        Ok(Self {
            cpu,
            gpu,
            stretches,
            state: Device::Cpu,
            results: Default::default(),
            under_way: UnderWay::default(),
            tracing: None,
        })
    }

    /// Costs of all steps so far on the host's side of the GPU.
    pub fn gpu_stats(&self) -> GpuStats {
        self.gpu.stats()
    }

    /// Bytes of weights copied to the GPU, and bytes that it reads where they lie in host memory.
    pub fn gpu_weight_bytes(&self) -> (u64, u64) {
        self.gpu.weight_bytes()
    }

    /// Brings the book of pages and the rows of the step to `device`.
    fn hand_over(&mut self, device: Device) {
        if self.state != device {
            let ((book, batch), (other_book, other_batch)) = (self.cpu.step_state(), self.gpu.step_state());
            swap(book, other_book);
            swap(batch, other_batch);
            self.state = device;
        }
    }

    /// Runs one step of the model; `each` runs the stages of a stretch, whose inputs are there.
    fn run(&mut self, steps: &mut [SequenceStep<'_>], each: &mut Each<'_>) -> Result<(), BackendError> {
        let (rows, limit) = (steps.iter().map(SequenceStep::n_outputs).sum(), self.gpu.max_outputs());
        if rows > limit {
            return Err(StepError::TooManyOutputs { rows, limit }.into());
        }
        let (tokens, limit) = (steps.iter().map(|s| s.tokens.len()).sum(), self.max_step_tokens());
        if tokens > limit {
            return Err(StepError::TooLong { tokens, limit }.into());
        }
        self.under_way.check(steps)?;
        let tokens = self.under_way.tokens(steps);
        self.results.iter_mut().for_each(Vec::clear);
        check_results(steps, self.plan())?;
        self.cpu.begin_parts(steps, &tokens)?;
        let result = self.run_stretches(steps, each);
        // Also after an error: callers read the CPU's book.
        self.hand_over(Device::Cpu);
        let (book, batch) = self.cpu.step_state();
        batch.finish(book, steps, result)
    }

    /// Makes the choices of the step that has run, from its output rows on the host.
    fn finish(&mut self, steps: &[SequenceStep<'_>]) -> Ticket {
        let (_, batch) = self.cpu.step_state();
        let choices = Choices::of(batch, steps, &self.under_way);
        let all = batch.wants_all();
        let wanted = batch.wanted.clone();
        let width = self.cpu.plan().slot(self.cpu.plan().output).width;
        let [rows, hidden] = std::mem::take(&mut self.results);
        let chosen = self.cpu.choose(choices, &rows, width);
        let logits = match all {
            true => rows,
            false => wanted.into_iter().flat_map(|row| &rows[row as usize * width..][..width]).copied().collect(),
        };
        self.under_way.push(steps, Finished { chosen, logits: Logits::Apart(logits), hidden })
    }

    fn run_stretches(&mut self, steps: &[SequenceStep<'_>], each: &mut Each<'_>) -> Result<(), BackendError> {
        if steps.iter().all(|s| s.tokens.is_empty()) {
            return Ok(());
        }
        self.hand_over(Device::Gpu);
        let stretches = self.stretches.clone();
        let crossings = stretches.iter().filter(|s| s.device == Device::Cpu).map(|s| s.needs.clone());
        let output = self.gpu.plan().output;
        let results = [Some(output), self.gpu.plan().hidden].into_iter().flatten().map(|value| vec![value]);
        self.gpu.begin_parts(steps, crossings.chain(results))?;
        let kvs: Vec<&SequenceKv> = steps.iter().map(|s| &*s.kv).collect();
        let end = self.gpu.step_state().1.stages(self.cpu.plan());
        for stretch in stretches.iter().filter(|s| s.stages.start < end) {
            if stretch.device == Device::Cpu && !stretch.needs.is_empty() {
                // The rows of the step are read on both sides.
                let mut crossing: Vec<(ValueId, Vec<f32>)> = Vec::new();
                self.hand_over(Device::Gpu);
                self.gpu.read_values(&stretch.needs, |value, rows| crossing.push((value, rows.to_vec())))?;
                self.hand_over(Device::Cpu);
                for (value, rows) in crossing {
                    self.cpu.value_mut(value).copy_from_slice(&rows);
                }
            }
            if stretch.device == Device::Gpu && !stretch.needs.is_empty() {
                self.hand_over(Device::Cpu);
                let rows: Vec<Vec<f32>> = stretch.needs.iter().map(|v| self.cpu.value_mut(*v).to_vec()).collect();
                self.hand_over(Device::Gpu);
                for (value, rows) in stretch.needs.iter().zip(rows) {
                    self.gpu.write_value(*value, &rows);
                }
            }
            self.hand_over(stretch.device);
            let stages = stretch.stages.start..stretch.stages.end.min(end);
            each(self, &kvs, &Stretch { stages, ..stretch.clone() })?;
        }
        self.collect_results()
    }

    /// Copies the output rows, and the hidden states that are handed out, to the host.
    fn collect_results(&mut self) -> Result<(), BackendError> {
        self.hand_over(Device::Gpu);
        let batch = self.gpu.step_state().1;
        let (wanted, end) = (batch.hidden.clone(), batch.stages(self.cpu.plan()));
        let (all, before_head) = (self.stretches.clone(), self.cpu.plan().stages_before_head());
        let device_of = |stage: usize| all.iter().find(|s| s.stages.contains(&stage)).map(|s| s.device);
        let (output, hidden) = (self.plan().output, self.plan().hidden);
        if end == self.plan().stages.len()
            && let Some(device) = device_of(end.saturating_sub(1))
        {
            self.results[0] = self.rows_of(device, output)?;
        }
        if let (Some(hidden), Some(device)) = (hidden, device_of(before_head.saturating_sub(1)))
            && !wanted.is_empty()
        {
            let width = self.plan().slot(hidden).width;
            let rows = self.rows_of(device, hidden)?;
            self.results[1] =
                wanted.into_iter().flat_map(|row| &rows[row as usize * width..][..width]).copied().collect();
        }
        Ok(())
    }

    /// All rows of a value that `device` has computed.
    fn rows_of(&mut self, device: Device, value: ValueId) -> Result<Vec<f32>, BackendError> {
        let slot = self.plan().slot(value);
        self.hand_over(device);
        let mut results = Vec::new();
        let mut keep = |rows: &[f32]| {
            results.extend(rows.chunks_exact(slot.stride).flat_map(|row| &row[..slot.width]));
        };
        match device {
            Device::Cpu => keep(self.cpu.value_mut(value)),
            Device::Gpu => self.gpu.read_values(&[value], |_, rows| keep(rows))?,
        }
        Ok(results)
    }
}

/// Runs all stages of a stretch at once.
fn plainly(b: &mut SplitBackend, kvs: &[&SequenceKv], stretch: &Stretch) -> Result<(), BackendError> {
    match stretch.device {
        Device::Cpu => b.cpu.run_part(kvs, stretch.stages.clone()),
        Device::Gpu => b.gpu.run_part(stretch.stages.clone()),
    }
    Ok(())
}

/// Runs one stage of the plan and waits for it.
fn alone(b: &mut SplitBackend, kvs: &[&SequenceKv], device: Device, i: usize) -> Result<(), BackendError> {
    match device {
        Device::Cpu => b.cpu.run_part(kvs, i..i + 1),
        Device::Gpu => {
            b.gpu.run_part(i..i + 1);
            b.gpu.gpu().wait()?;
        }
    }
    Ok(())
}

impl Backend for SplitBackend {
    fn submit(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<Ticket, BackendError> {
        if self.tracing.is_none() {
            self.run(steps, &mut plainly)?;
            return Ok(self.finish(steps));
        }
        let start = Instant::now();
        let mut calls: Vec<RawCall> = Vec::new();
        self.run(steps, &mut |b, kvs, stretch| {
            for i in stretch.stages.clone() {
                let begun = Instant::now();
                alone(b, kvs, stretch.device, i)?;
                calls.push((Some(i), "", begun - start, begun.elapsed()));
            }
            Ok(())
        })?;
        let wall: Duration = start.elapsed();
        let (book, batch) = self.cpu.step_state();
        let load = batch.load(book.kv_type());
        if let Some((trace, since)) = self.tracing.as_deref_mut() {
            trace.add(self.cpu.plan(), &load, (start - *since, wall), &calls);
        }
        Ok(self.finish(steps))
    }

    fn is_done(&mut self, ticket: Ticket) -> Result<bool, BackendError> {
        self.under_way.get(ticket).map(|_| true).ok_or(StepError::NotUnderWay.into())
    }

    fn wait(&mut self, ticket: Ticket) -> Result<(), BackendError> {
        self.is_done(ticket).map(drop)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, BackendError> {
        let Finished { chosen, logits, hidden } = self.under_way.take(ticket)?;
        if let Logits::Apart(rows) = logits {
            self.results = [rows, hidden];
        }
        Ok(StepOutput { logits: &self.results[0], hidden: &self.results[1], chosen })
    }

    fn steps_ahead(&self) -> usize {
        1
    }

    fn pages(&mut self) -> Pages<'_> {
        Pages(self.cpu.step_state().0)
    }

    fn max_step_tokens(&self) -> usize {
        self.cpu.max_step_tokens().min(self.gpu.max_step_tokens())
    }

    fn step_tokens(&self, cached: usize) -> usize {
        self.cpu.max_step_tokens().min(self.gpu.step_tokens(cached))
    }

    fn max_outputs(&self) -> usize {
        self.gpu.max_outputs()
    }

    fn describe(&self) -> String {
        let stages = &self.plan().stages;
        let on_gpu = stages.iter().filter(|s| s.device == Device::Gpu).count();
        format!(
            "{} for {on_gpu} of {} steps, {} for the others",
            self.gpu.describe(),
            stages.len(),
            self.cpu.describe()
        )
    }

    fn plan(&self) -> &Plan {
        self.cpu.plan()
    }

    fn set_tracing(&mut self, on: bool) -> Result<(), BackendError> {
        self.tracing = on.then(|| Box::new((Trace::new(Clock::Runs, self.cpu.plan()), Instant::now())));
        Ok(())
    }

    fn trace(&self) -> Option<&Trace> {
        self.tracing.as_ref().map(|t| &t.0)
    }

    fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), BackendError> {
        self.run(steps, &mut |b, kvs, stretch| {
            for i in stretch.stages.clone() {
                alone(b, kvs, stretch.device, i)?;
                match stretch.device {
                    Device::Cpu => b.cpu.observe(i, look),
                    Device::Gpu => b.gpu.observe(i, look)?,
                }
            }
            Ok(())
        })
    }
}
