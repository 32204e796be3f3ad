//! Observation of a step: the time of each call, and the values that stages compute.
//!
//! A timestamp behind each kernel gives the kernel's time: it waits for all commands recorded before it, so the
//! difference of two is the kernel between them. Where a device has no timestamps, each kernel is submitted and awaited
//! by itself. In both cases the host waits for the end of every step, and no step runs ahead.

use std::time::{Duration, Instant};

use super::{Call, GpuBackend, Tail};
use crate::{
    backend::Observed,
    gpu::{Gpu, GpuError},
    graph::{LinearStage, StageKind},
    profile::{Clock, RawCall, Trace},
    step::SequenceStep,
};

/// Timestamps of one step of a model. Calls beyond the last of them go untimed; no model here has so many.
const TIMESTAMPS: u32 = wgpu::QUERY_SET_MAX_QUERIES;

/// A trace, and the clock that its times are taken with.
pub(super) struct Tracing {
    trace: Trace,
    since: Instant,
    queries: Option<Queries>,
    /// The calls of the step under way, in the order of their timestamps; none at the start of a pass.
    marks: Vec<Option<Mark>>,
    /// The calls with their times, where the host takes the times.
    timed: Vec<RawCall>,
}

/// Stage of the plan and kernel.
type Mark = (Option<usize>, &'static str);

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds a tick.
    period: f64,
}

impl Queries {
    fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        use wgpu::BufferUsages as U;
        let bytes = u64::from(TIMESTAMPS) * 8;
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: TIMESTAMPS,
        });
        Ok(Self {
            set,
            resolved: gpu.buffer("timestamps", bytes, U::QUERY_RESOLVE | U::COPY_SRC)?,
            staging: gpu.buffer("timestamps", bytes, U::MAP_READ | U::COPY_DST)?,
            period: f64::from(gpu.queue.get_timestamp_period()),
        })
    }

    fn read(&self, gpu: &Gpu, n: usize) -> Result<Vec<u64>, GpuError> {
        let bytes = n as u64 * 8;
        self.staging.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        gpu.wait()?;
        let view = self.staging.get_mapped_range(..bytes).map_err(|e| gpu.failed(&e))?;
        let ticks = bytemuck::pod_collect_to_vec(&view[..]);
        drop(view);
        self.staging.unmap();
        Ok(ticks)
    }
}

impl Tracing {
    /// Writes a timestamp after a call, or before the first call of a pass.
    pub fn stamp(&mut self, pass: &mut wgpu::ComputePass<'_>, mark: Option<Mark>) {
        let Some(queries) = &self.queries else { return };
        if self.marks.len() < TIMESTAMPS as usize {
            pass.write_timestamp(&queries.set, self.marks.len() as u32);
            self.marks.push(mark);
        }
    }

    /// Copies the timestamps to a buffer that the host can read.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let n = self.marks.len() as u32;
        if let Some(queries) = self.queries.as_ref().filter(|_| n > 0) {
            encoder.resolve_query_set(&queries.set, 0..n, &queries.resolved, 0);
            encoder.copy_buffer_to_buffer(&queries.resolved, 0, &queries.staging, 0, Some(u64::from(n) * 8));
        }
    }

    /// Whether the host takes the times.
    pub fn by_host(&self) -> bool {
        self.queries.is_none()
    }

    fn calls(&mut self, gpu: &Gpu) -> Result<Vec<RawCall>, GpuError> {
        let marks = std::mem::take(&mut self.marks);
        let Some(queries) = self.queries.as_ref().filter(|_| !marks.is_empty()) else {
            return Ok(std::mem::take(&mut self.timed));
        };
        let ticks = queries.read(gpu, marks.len())?;
        // A device may count from anywhere, and on some devices a later timestamp is sometimes smaller.
        let since = |from: u64, to: u64| Duration::from_nanos((to.saturating_sub(from) as f64 * queries.period) as u64);
        let calls = marks.iter().zip(&ticks).zip(&ticks[1..]).zip(&marks[1..]).filter_map(|(((_, from), to), mark)| {
            mark.map(|(stage, kernel)| (stage, kernel, since(ticks[0], *from), since(*from, *to)))
        });
        Ok(calls.collect())
    }
}

impl GpuBackend {
    /// Starts measuring where time goes, from zero, or stops it.
    ///
    /// # Errors
    /// No memory for timestamps.
    pub fn set_tracing(&mut self, on: bool) -> Result<(), GpuError> {
        self.tracing = None;
        if on {
            let queries = self.gpu.caps().timestamps.then(|| Queries::new(&self.gpu)).transpose()?;
            let clock = if queries.is_some() { Clock::Timestamps } else { Clock::Submits };
            let trace = Trace::new(clock, &self.plan);
            let tracing = Tracing { trace, since: Instant::now(), queries, marks: Vec::new(), timed: Vec::new() };
            self.tracing = Some(Box::new(tracing));
        }
        Ok(())
    }

    /// The measurements since tracing began.
    pub fn trace(&self) -> Option<&Trace> {
        self.tracing.as_ref().map(|t| &t.trace)
    }

    /// Waits for the step that began at `start` and adds its times, while tracing is on.
    pub(super) fn finish_trace(&mut self, start: Instant) -> Result<(), GpuError> {
        let Some(tracing) = &mut self.tracing else { return Ok(()) };
        self.gpu.wait()?;
        let wall = start.elapsed();
        let calls = tracing.calls(&self.gpu)?;
        let load = self.batch.load(self.book.kv_type());
        tracing.trace.add(&self.plan, &load, (start - tracing.since, wall), &calls);
        Ok(())
    }

    /// Runs all calls of a step one by one and takes their times.
    pub(super) fn run_timed(&mut self, start: Instant, tail: &[Tail]) -> Result<(), GpuError> {
        // Waits for the writes of the step, which are part of no kernel.
        self.gpu.wait()?;
        let mut timed = Vec::new();
        let mut run = |mark: Mark, pipeline: &wgpu::ComputePipeline, group: &wgpu::BindGroup, grid: [u32; 3]| {
            let begun = Instant::now();
            submit(&self.gpu, |pass| dispatch(pass, pipeline, group, grid), |_| {});
            self.stats.dispatches += 1;
            self.stats.submits += 1;
            self.gpu.wait()?;
            timed.push((mark.0, mark.1, begun - start, begun.elapsed()));
            Ok::<(), GpuError>(())
        };
        let stages = self.stages.iter().enumerate().take(self.batch.stages(&self.plan));
        for (i, stage) in stages.filter(|(_, s)| self.shape.count(s.rows) > 0) {
            for call in stage.calls(&self.shape) {
                let grid = call.grid.map(|dim| self.shape.workgroups(dim, call.rows));
                run((Some(i), call.pipeline.name), &call.pipeline.pipeline, &call.group, grid)?;
            }
        }
        for (pipeline, group, grid) in tail {
            run((None, pipeline.name), &pipeline.pipeline, group, *grid)?;
        }
        if let Some(tracing) = &mut self.tracing {
            tracing.timed = timed;
        }
        Ok(())
    }

    /// As [`GpuBackend::submit`], but one stage of the plan after the other. `look` sees each value that a stage has
    /// computed, and may change it: later stages read the changed rows.
    ///
    /// # Errors
    /// As [`GpuBackend::submit`].
    pub fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), GpuError> {
        self.prepare(steps)?;
        let done = self.observe_admitted(steps, look);
        self.batch.finish(&mut self.book, steps, done)
    }

    fn observe_admitted(
        &mut self,
        steps: &[SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), GpuError> {
        self.records.clear();
        // Nothing is chosen: the part that the choices would go to does not matter.
        let grown = self.upload(steps, 0)?;
        if let Some(choosing) = &mut self.choosing {
            choosing.prepare(&self.gpu, &self.memory, &self.weights, &self.records, false, grown)?;
        }
        self.batch.begin();
        for i in 0..self.stages.len() {
            let stage = &self.stages[i];
            if self.shape.count(stage.rows) == 0 {
                continue;
            }
            let run = |pass: &mut wgpu::ComputePass<'_>| {
                stage.calls(&self.shape).for_each(|call: &Call| {
                    let grid = call.grid.map(|dim| self.shape.workgroups(dim, call.rows));
                    dispatch(pass, &call.pipeline.pipeline, &call.group, grid);
                });
            };
            submit(&self.gpu, run, |_| {});
            self.gpu.wait()?;
            self.look_at(i, look)?;
        }
        Ok(())
    }

    /// Reads the values of stage `i`, shows them to `look`, and writes its changes back.
    pub(super) fn look_at(&mut self, i: usize, look: &mut dyn FnMut(&mut Observed)) -> Result<(), GpuError> {
        let (gated, sum) = (self.stages[i].gated, self.stages[i].sum);
        let pair = match (&self.plan.stages[i].kind, gated) {
            (StageKind::Linear(LinearStage { parts, .. }), Some(act)) => Some((act, parts[0].output, parts[1].output)),
            _ => None,
        };
        let made_before = i.checked_sub(1).and_then(|before| self.stages[before].sum);
        // A sum replaces the output that it is made of, and the next stage does not make it again.
        let (values, addend) = match (sum, &self.plan.stages[i].kind) {
            (Some(sum), StageKind::Linear(LinearStage { parts, .. })) => (vec![sum], Some(parts[0].output)),
            _ => (Observed::of_stage(&self.plan, i), None),
        };
        for value in values.into_iter().filter(|v| Some(*v) != made_before) {
            // The other factor of a gated activation is never stored.
            if pair.is_some_and(|(_, _, up)| up == value) {
                continue;
            }
            let slot = self.plan.slot(value);
            let rows = self.batch.count(slot.rows);
            if rows == 0 {
                continue;
            }
            let first = self.bytes_of(value).start;
            let mut all = Vec::new();
            self.read_values(&[value], |_, rows| all = rows.to_vec())?;
            let data = all.chunks_exact(slot.stride).flat_map(|row| &row[..slot.width]).copied().collect();
            let gated = pair.filter(|(_, gate, _)| *gate == value).map(|(act, _, up)| (act, up));
            let mut seen = Observed { stage: i, value, rows, width: slot.width, gated, addend, data };
            look(&mut seen);
            for (row, new) in all.chunks_exact_mut(slot.stride).zip(seen.data.chunks_exact(slot.width)) {
                row[..slot.width].copy_from_slice(new);
            }
            self.gpu.queue.write_buffer(&self.memory.arena, first, bytemuck::cast_slice(&all));
        }
        Ok(())
    }
}

fn dispatch(
    pass: &mut wgpu::ComputePass<'_>,
    pipeline: &wgpu::ComputePipeline,
    group: &wgpu::BindGroup,
    [x, y, z]: [u32; 3],
) {
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, group, &[]);
    pass.dispatch_workgroups(x, y, z);
}

/// Submits a pass and what follows it.
fn submit(gpu: &Gpu, pass: impl FnOnce(&mut wgpu::ComputePass<'_>), then: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    pass(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    then(&mut encoder);
    gpu.queue.submit([encoder.finish()]);
}
