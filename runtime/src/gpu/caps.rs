//! Capabilities and limits of an adapter that kernels depend on.

/// Capabilities by which kernels are chosen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Caps {
    /// `f16` in shaders and storage.
    pub f16: bool,
    /// Subgroup operations, with the least and greatest size of a subgroup.
    pub subgroups: Option<(u32, u32)>,
    /// Cooperative matrices: products of 16×16 matrices of f16, summed in f32.
    pub cooperative: bool,
    /// Products of four bytes at once, in hardware: as a Vulkan driver reports it, from shader model 6.4 on through DX12,
    /// never through Metal.
    pub int8_dot: bool,
    /// Timestamps inside a pass.
    pub timestamps: bool,
    /// Whether compiled pipelines can be kept on disk.
    pub pipeline_cache: bool,
    /// Whether host memory can be imported as a buffer.
    pub host_import: bool,
    /// Alignment of imported memory.
    pub host_import_alignment: u64,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Bytes of one buffer.
    pub max_buffer: u64,
    /// Operations of one submit: few enough for a driver with a time-out of one or two seconds.
    pub submit_flops: u64,
    /// Bytes of weights on their way to the device at a time.
    pub max_staging: u64,
    /// Invocations of a workgroup (also the limit of its x size).
    pub max_invocations: u32,
    /// Storage buffers of one kernel.
    pub max_storage_buffers: u32,
    /// Bytes of workgroup memory.
    pub max_workgroup_memory: u32,
    /// Workgroups in one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Alignment of a storage binding's offset in bytes.
    pub storage_alignment: u64,
    /// Alignment of a uniform binding's offset in bytes.
    pub uniform_alignment: u64,
    /// Whether the "GPU" is a CPU: lanes are vector lanes, and workgroup memory and barriers cost more than they save.
    /// Not where FXC compiles, on DX12 without subgroups: it takes minutes for the kernels made for CPUs.
    pub software: bool,
    /// Whether device memory is host memory.
    pub unified_memory: bool,
    /// Bytes that all buffers together may have, where an option limits them.
    pub max_memory: Option<u64>,
}

/// Limits to pretend, for tests of smaller adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapsOverride {
    /// Pretends that there is no f16.
    pub no_f16: bool,
    /// Pretends that there are no subgroup operations.
    pub no_subgroups: bool,
    /// Pretends that there are no cooperative matrices.
    pub no_cooperative: bool,
    /// Pretends that there are no products of four bytes.
    pub no_int8: bool,
    /// Pretends that there are no timestamps.
    pub no_timestamps: bool,
    /// Copies weights instead of importing them.
    pub no_host_import: bool,
    /// Bytes of one storage binding.
    pub max_binding: Option<u64>,
    /// Bytes of one buffer.
    pub max_buffer: Option<u64>,
    /// Operations of one submit.
    pub submit_flops: Option<u64>,
    /// Bytes of weights on their way to the device at a time.
    pub max_staging: Option<u64>,
    /// Invocations of a workgroup.
    pub max_invocations: Option<u32>,
    /// Storage buffers of one kernel.
    pub max_storage_buffers: Option<u32>,
    /// Takes a software device for a hardware one.
    pub pretend_hardware: bool,
    /// Bytes that all buffers together may have.
    pub max_memory: Option<u64>,
}

/// One adapter for a list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AdapterSummary {
    /// Number by which it can be asked for.
    pub index: usize,
    /// The adapter's name.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// `vulkan`, `metal`, `dx12`.
    pub api: String,
    /// The compiler of its kernels where there are two, on DX12: `DXC` or `FXC`.
    pub compiler: Option<&'static str>,
    /// Driver and version in its own words.
    pub driver: String,
    /// Its capabilities.
    pub caps: Caps,
}

impl CapsOverride {
    /// The features that `HANDMILL_GPU_WITHOUT` turns off, by commas: `f16`, `subgroups`, `cooperative`, `int8`,
    /// `host-import`. It shows how much a feature gains, and avoids a driver's bug.
    ///
    /// # Errors
    /// The first name that is not one of these.
    pub fn from_env() -> Result<Self, String> {
        let mut caps = Self::default();
        let Ok(list) = std::env::var("HANDMILL_GPU_WITHOUT") else { return Ok(caps) };
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            match name {
                "f16" => caps.no_f16 = true,
                "subgroups" => caps.no_subgroups = true,
                "cooperative" => caps.no_cooperative = true,
                "int8" => caps.no_int8 = true,
                "host-import" => caps.no_host_import = true,
                other => return Err(other.to_owned()),
            }
        }
        Ok(caps)
    }
}

/// Enough to keep any bus busy, and little beside the weights of any model that must be copied.
const MAX_STAGING: u64 = 64 << 20;

/// Half a second of a device that does 200 GFLOP/s with our kernels, as the slowest integrated ones do; for a discrete
/// device, of one that does 2 TFLOP/s.
fn submit_flops(kind: wgpu::DeviceType) -> u64 {
    if kind == wgpu::DeviceType::DiscreteGpu { 1_000_000_000_000 } else { 100_000_000_000 }
}

/// Whether FXC compiles the adapter's kernels: on DX12 it is the compiler without subgroups.
pub(super) fn is_compiled_by_fxc(adapter: &wgpu::Adapter) -> bool {
    adapter.get_info().backend == wgpu::Backend::Dx12 && !adapter.features().contains(wgpu::Features::SUBGROUP)
}

impl Caps {
    /// Reads an adapter. `host_import` is the alignment of memory that its driver imports; `byte_products` says whether
    /// it multiplies four bytes at once.
    pub(super) fn new(
        adapter: &wgpu::Adapter,
        host_import: Option<u64>,
        byte_products: bool,
        o: &CapsOverride,
    ) -> Self {
        let (features, limits, info) = (adapter.features(), adapter.limits(), adapter.get_info());
        let has = |f: wgpu::Features| features.contains(f);
        let software = info.device_type == wgpu::DeviceType::Cpu;
        Self {
            f16: has(wgpu::Features::SHADER_F16) && !o.no_f16,
            subgroups: (has(wgpu::Features::SUBGROUP) && !o.no_subgroups)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            cooperative: !o.no_cooperative
                && has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
                && adapter.cooperative_matrix_properties().iter().any(|p| {
                    use wgpu::CooperativeScalarType as T;
                    let square = [p.m_size, p.n_size, p.k_size] == [16; 3];
                    square && p.ab_type == T::F16 && p.cr_type == T::F32
                }),
            int8_dot: byte_products && !o.no_int8,
            timestamps: has(wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
                && !o.no_timestamps,
            pipeline_cache: has(wgpu::Features::PIPELINE_CACHE),
            host_import: host_import.is_some() && !o.no_host_import,
            host_import_alignment: host_import.unwrap_or(4096),
            max_binding: o.max_binding.unwrap_or(u64::MAX).min(limits.max_storage_buffer_binding_size),
            max_buffer: o.max_buffer.unwrap_or(u64::MAX).min(limits.max_buffer_size),
            submit_flops: o.submit_flops.unwrap_or(submit_flops(info.device_type)),
            max_staging: o.max_staging.unwrap_or(MAX_STAGING),
            max_invocations: o
                .max_invocations
                .unwrap_or(u32::MAX)
                .min(limits.max_compute_invocations_per_workgroup)
                .min(limits.max_compute_workgroup_size_x),
            max_storage_buffers: o
                .max_storage_buffers
                .unwrap_or(u32::MAX)
                .min(limits.max_storage_buffers_per_shader_stage),
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            storage_alignment: limits.min_storage_buffer_offset_alignment.into(),
            uniform_alignment: limits.min_uniform_buffer_offset_alignment.into(),
            software: software && !o.pretend_hardware && !is_compiled_by_fxc(adapter),
            unified_memory: software || info.device_type == wgpu::DeviceType::IntegratedGpu,
            max_memory: o.max_memory,
        }
    }
}
