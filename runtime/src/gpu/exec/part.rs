//! A backend that runs part of a plan: another device runs the rest, and values cross between them.

use std::{ops::Range, time::Instant};

use super::GpuBackend;
use crate::{
    backend::Observed,
    gpu::GpuError,
    graph::{Rows, ValueId},
    step::{Batch, PageBook, SequenceStep},
};

impl GpuBackend {
    /// The book of pages and the rows of the step under way: the device that runs a part of the step must have them.
    pub(crate) fn step_state(&mut self) -> (&mut PageBook, &mut Batch) {
        (&mut self.book, &mut self.batch)
    }

    /// Makes room for the results of each list of values that will be read, so that no part fails for want of it once
    /// kernels have run; then writes the admitted step's rows to the device.
    pub(crate) fn begin_parts(
        &mut self,
        steps: &[SequenceStep<'_>],
        reads: impl Iterator<Item = Vec<ValueId>>,
    ) -> Result<(), GpuError> {
        let start = Instant::now();
        let bytes = |values: Vec<ValueId>| values.iter().map(|v| self.len_of(*v)).sum::<u64>();
        let most = reads.map(bytes).max().unwrap_or(0);
        self.memory.reserve_results(&self.gpu, most)?;
        self.records.clear();
        self.upload(steps, 0)?;
        self.batch.begin();
        self.stats.steps += 1;
        self.stats.host += start.elapsed();
        Ok(())
    }

    /// Submits the stages `range` of the plan over the rows written last.
    pub(crate) fn run_part(&mut self, range: Range<usize>) {
        let start = Instant::now();
        let encoder = self.encode(range, &[]);
        self.gpu.queue.submit([encoder.finish()]);
        self.stats.submits += 1;
        self.stats.host += start.elapsed();
    }

    /// Shows `look` the values of stage `i` and writes its changes back.
    pub(crate) fn observe(&mut self, i: usize, look: &mut dyn FnMut(&mut Observed)) -> Result<(), GpuError> {
        self.look_at(i, look)
    }

    /// Waits for `values` of the step under way and hands each one's rows, padded to its slot's stride, to `each`.
    pub(crate) fn read_values(
        &mut self,
        values: &[ValueId],
        mut each: impl FnMut(ValueId, &[f32]),
    ) -> Result<(), GpuError> {
        let ranges: Vec<Range<u64>> = values.iter().map(|v| self.bytes_of(*v)).collect();
        let total: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        if total == 0 {
            return self.gpu.check();
        }
        self.memory.reserve_results(&self.gpu, total)?;
        let (arena, staging) = (&self.memory.arena, &self.memory.staging);
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut at = 0;
        for range in &ranges {
            let bytes = range.end - range.start;
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(arena, range.start, staging, at, Some(bytes));
            }
            at += bytes;
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.stats.submits += 1;
        staging.map_async(wgpu::MapMode::Read, ..total, |_| {});
        self.gpu.wait()?;
        let view = staging.get_mapped_range(..total).map_err(|e| self.gpu.failed(&e))?;
        let mut at = 0;
        for (value, range) in values.iter().zip(&ranges) {
            let bytes = (range.end - range.start) as usize;
            each(*value, bytemuck::cast_slice(&view[at..at + bytes]));
            at += bytes;
        }
        drop(view);
        staging.unmap();
        Ok(())
    }

    /// Writes all rows of a value of the step under way, each padded to the slot's stride.
    pub(crate) fn write_value(&mut self, value: ValueId, rows: &[f32]) {
        if !rows.is_empty() {
            let bytes = bytemuck::cast_slice(rows);
            self.gpu.queue.write_buffer(&self.memory.arena, self.bytes_of(value).start, bytes);
            self.stats.uploaded += bytes.len() as u64;
        }
    }

    /// Bytes of all rows of a value of the step under way.
    fn len_of(&self, value: ValueId) -> u64 {
        let range = self.bytes_of(value);
        range.end - range.start
    }

    /// Bytes of the arena in which all rows of a value of the step under way lie.
    pub(super) fn bytes_of(&self, value: ValueId) -> Range<u64> {
        let slot = self.plan.slot(value);
        let rows = self.batch.count(slot.rows);
        let base = match slot.rows {
            Rows::Token => 0,
            Rows::Output => self.layout.output_base(),
        };
        let first = base + slot.offset * rows;
        first as u64 * 4..(first + slot.stride * rows) as u64 * 4
    }
}
