//! The memory wall: the speed at which a device reads and copies its memory.

use std::time::Instant;

use handmill_shaders::Defines;

use super::{Access, Binding, Gpu, GpuError, Kernel};

impl Gpu {
    /// A kernel that only reads a buffer.
    pub(super) fn read_kernel() -> Kernel {
        Kernel {
            name: "read",
            defines: Defines::new(),
            constants: vec![("WORKGROUP", 256)],
            bindings: vec![Access::Read, Access::ReadWrite],
        }
    }

    /// Bytes a second that a kernel reads from device memory: the best of three runs over 256 MiB (64 on software
    /// devices), each of several dispatches in one submit.
    ///
    /// # Errors
    /// Too little memory on the device, and as [`Gpu::wait`].
    pub fn read_bandwidth(&self) -> Result<f64, GpuError> {
        use wgpu::BufferUsages as U;
        let pipeline = self.pipeline(&Self::read_kernel())?;
        let bytes = if self.caps().software { 64 << 20 } else { 256 << 20 }.min(self.caps().max_binding);
        let buffer = self.buffer("bandwidth", bytes, U::STORAGE | U::COPY_DST)?;
        let sums = self.buffer("bandwidth", 16, U::STORAGE)?;
        let group = pipeline.bind(self, &[Binding::from(&buffer), Binding::from(&sums)]);
        let repeats = if self.caps().software { 1 } else { 16 };
        let seconds = self.time_of_one(repeats, |encoder, n| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &group, &[]);
            (0..n).for_each(|_| pass.dispatch_workgroups(4096, 1, 1));
        })?;
        Ok(bytes as f64 / seconds)
    }

    /// Bytes a second (read and written, together) of a copy within device memory.
    ///
    /// # Errors
    /// As [`Gpu::read_bandwidth`].
    pub fn copy_bandwidth(&self) -> Result<f64, GpuError> {
        use wgpu::BufferUsages as U;
        let bytes = (if self.caps().software { 64 << 20 } else { 256 << 20 }).min(self.caps().max_buffer);
        let from = self.buffer("bandwidth", bytes, U::COPY_SRC | U::COPY_DST)?;
        let to = self.buffer("bandwidth", bytes, U::COPY_SRC | U::COPY_DST)?;
        let repeats = if self.caps().software { 2 } else { 16 };
        let seconds = self.time_of_one(repeats, |encoder, n| {
            (0..n).for_each(|_| encoder.copy_buffer_to_buffer(&from, 0, &to, 0, Some(bytes)));
        })?;
        Ok(2.0 * bytes as f64 / seconds)
    }

    /// Seconds that one repetition takes, the best of three; `record` records `n` repetitions into a submit.
    fn time_of_one(&self, repeats: u32, record: impl Fn(&mut wgpu::CommandEncoder, u32)) -> Result<f64, GpuError> {
        let run = |n: u32| {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(&mut encoder, n);
            let start = Instant::now();
            self.queue.submit([encoder.finish()]);
            self.wait().map(|()| start.elapsed().as_secs_f64())
        };
        run(1)?;
        // The difference of a long and a short submit cancels the submit's own cost.
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let (short, long) = (run(1)?, run(1 + repeats)?);
            best = best.min((long - short).max(long / f64::from(4 * (1 + repeats))) / f64::from(repeats));
        }
        Ok(best)
    }
}
