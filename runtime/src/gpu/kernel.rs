//! Kernels and their compiled pipelines.

use handmill_shaders::Defines;

use super::{Gpu, GpuError, ready::ready};

/// The access of a kernel to the buffer of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<uniform>`: parameters that stay the same from step to step. On software devices `var<storage, read>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A shader with its defines. Bindings are numbered from 0 in group 0, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// File in `shaders/wgsl` without its ending. Its entry point is `main`.
    pub name: &'static str,
    /// The defines that specialise it.
    pub defines: Defines,
    /// `override` constants by name.
    pub constants: Vec<(&'static str, u32)>,
    /// Its bindings.
    pub bindings: Vec<Access>,
}

/// A compiled kernel.
pub struct Pipeline {
    pub(super) name: &'static str,
    pub(super) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// A range of a buffer.
#[derive(Clone, Debug)]
pub struct Binding<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// First byte; a multiple of the device's alignment.
    pub offset: u64,
    /// Bytes; none for all bytes from `offset` on.
    pub size: Option<u64>,
}

impl<'a> From<&'a wgpu::Buffer> for Binding<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, offset: 0, size: None }
    }
}

impl Pipeline {
    pub(super) fn new(gpu: &Gpu, kernel: &Kernel, checked: bool) -> Result<Self, GpuError> {
        let mut source = handmill_shaders::compose(kernel.name, &kernel.defines)?;
        if gpu.caps().software {
            // A software driver may compile the values of uniforms into the kernel, again for each dispatch. That took
            // most of a token's time.
            source = source.replace("var<uniform>", "var<storage, read>");
        }
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let module = if checked {
            gpu.device.create_shader_module(descriptor)
        } else {
            // SAFETY: the kernels are ours. They index within their buffers and end; the tests show it with the checked
            // build on the same cases.
            unsafe { gpu.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let entries: Vec<_> = kernel
            .bindings
            .iter()
            .enumerate()
            .map(|(i, access)| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match access {
                        Access::Uniform if !gpu.caps().software => wgpu::BufferBindingType::Uniform,
                        Access::Uniform => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = gpu
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries });
        let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let constants: Vec<(&str, f64)> = kernel.constants.iter().map(|(n, v)| (*n, f64::from(*v))).collect();
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every kernel writes workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: gpu.pipeline_cache(),
        });
        match ready(scope.pop()).flatten() {
            Some(error) => Err(gpu.explained(GpuError::Pipeline {
                adapter: gpu.name().to_owned(),
                kernel: format!("{} {:?}", kernel.name, kernel.defines),
                reason: error.to_string(),
            })),
            None => Ok(Self { name: kernel.name, pipeline, layout }),
        }
    }

    /// The pipeline for passes that others encode.
    #[cfg(feature = "unstable-wgpu")]
    pub fn raw(&self) -> &wgpu::ComputePipeline {
        &self.pipeline
    }

    /// A bind group of `bindings`, in the order of the kernel's.
    pub fn bind(&self, gpu: &Gpu, bindings: &[Binding<'_>]) -> wgpu::BindGroup {
        let entries: Vec<_> = bindings
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: b.buffer,
                    offset: b.offset,
                    size: b.size.and_then(std::num::NonZeroU64::new),
                }),
            })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.layout,
            entries: &entries,
        })
    }
}

#[cfg(any(test, feature = "unstable-wgpu"))]
impl Gpu {
    /// Runs `kernel` once over buffers made of `data`, in the order of its bindings, and returns the contents of the
    /// writable ones. The backend keeps its buffers.
    ///
    /// # Errors
    /// As [`Gpu::pipeline`], [`Gpu::buffer`] and [`Gpu::wait`].
    pub(crate) fn dispatch_once(
        &self,
        kernel: &Kernel,
        data: &[&[u8]],
        grid: [u32; 3],
    ) -> Result<Vec<Vec<u8>>, GpuError> {
        use wgpu::BufferUsages as U;
        let pipeline = self.pipeline(kernel)?;
        let mut buffers = Vec::new();
        for (access, bytes) in kernel.bindings.iter().zip(data) {
            let usage = if *access == Access::Uniform { U::UNIFORM | U::STORAGE } else { U::STORAGE };
            let buffer = self.buffer(kernel.name, bytes.len() as u64, usage | U::COPY_DST | U::COPY_SRC)?;
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            self.queue.write_buffer(&buffer, 0, &padded);
            buffers.push(buffer);
        }
        let bindings: Vec<Binding<'_>> = buffers.iter().map(Binding::from).collect();
        let group = pipeline.bind(self, &bindings);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
        let mut copies = Vec::new();
        for ((access, bytes), buffer) in kernel.bindings.iter().zip(data).zip(&buffers) {
            if *access == Access::ReadWrite {
                let copy = self.buffer("read-back", bytes.len() as u64, U::MAP_READ | U::COPY_DST)?;
                encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, Some(buffer.size().min(copy.size())));
                copies.push((copy, bytes.len()));
            }
        }
        self.queue.submit([encoder.finish()]);
        copies.iter().for_each(|(copy, _)| copy.map_async(wgpu::MapMode::Read, .., |_| {}));
        self.wait()?;
        let read = |(copy, len): &(wgpu::Buffer, usize)| match copy.get_mapped_range(..) {
            Ok(view) => Ok(view[..*len].to_vec()),
            Err(e) => Err(self.failed(&e)),
        };
        copies.iter().map(read).collect()
    }
}
