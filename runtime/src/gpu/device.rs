//! Adapters and opened devices.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    AdapterSummary, Caps, CapsOverride, GpuError,
    adapters::{self, Listed},
    cache::PipelineCache,
    import,
    kernel::{Kernel, Pipeline},
    ready::ready,
};

/// Options of opening a device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Number in the list of adapters, or part of a name with its API behind it (`GeForce`, `dx12`); by default the
    /// best.
    pub device: Option<String>,
    /// Microsoft's dxcompiler.dll, for DX12 to compile kernels with. Without it the system's FXC does, which is slow
    /// and knows shader model 5.1 only: neither f16 nor subgroups nor products of bytes.
    pub dxc: Option<PathBuf>,
    /// Limits to pretend, for tests and for avoiding a driver's bugs.
    pub caps: CapsOverride,
    /// Folder for compiled pipelines, so that later processes need not compile them; none keeps none.
    pub cache_dir: Option<PathBuf>,
    /// Injects bounds checks and loop bounding into every kernel. Tests run both ways.
    pub checked: bool,
}

/// An opened device.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    caps: Caps,
    name: String,
    summary: AdapterSummary,
    api_choice: ApiChoice,
    checked: bool,
    pipelines: Mutex<HashMap<Kernel, Arc<Pipeline>>>,
    cache: Option<PipelineCache>,
    /// The first error that arrived outside of any wait.
    failure: Arc<Mutex<Option<Failure>>>,
}

/// How a device that several APIs list came to be opened through one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiChoice {
    /// Further APIs that the options left open.
    pub others: Vec<OtherApi>,
    /// Preferred APIs that could not open the device, each with the reason.
    pub failed: Vec<(OtherApi, String)>,
}

/// An adapter of the same device that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherApi {
    /// Its number in the list of adapters.
    pub index: usize,
    /// Its API.
    pub api: String,
}

enum Failure {
    Lost(String),
    OutOfMemory(String),
    Other(String),
}

impl Gpu {
    /// All adapters, best first: discrete, integrated, virtual, software. A device that several APIs list (Vulkan and
    /// DX12) comes once for each, the preferred one first. `dxc` is as in [`GpuOptions::dxc`].
    ///
    /// It blocks; [`Gpu::adapters_async`] does not.
    pub fn adapters(dxc: Option<&Path>) -> Vec<AdapterSummary> {
        pollster::block_on(Self::adapters_async(dxc))
    }

    /// As [`Gpu::adapters`].
    pub async fn adapters_async(dxc: Option<&Path>) -> Vec<AdapterSummary> {
        let all = adapters::list(dxc).await.into_iter().enumerate();
        all.map(|(i, a)| adapters::summary(i, &a, &CapsOverride::default())).collect()
    }

    /// Opens an adapter with all the limits that it has. Where the options leave open through which API, and the
    /// preferred one fails, the next one is tried.
    ///
    /// It blocks; [`Gpu::open_async`] does not.
    ///
    /// # Errors
    /// No adapter, none that matches, or a driver that refuses.
    pub fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        pollster::block_on(Self::open_async(options))
    }

    /// As [`Gpu::open`].
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub async fn open_async(options: &GpuOptions) -> Result<Self, GpuError> {
        let adapters = adapters::list(options.dxc.as_deref()).await;
        let candidates = adapters::candidates(&adapters, options.device.as_deref())?;
        let other =
            |(index, listed): (usize, &Listed)| OtherApi { index, api: listed.adapter.get_info().backend.to_string() };
        let open = async |(index, listed)| Self::open_listed(index, listed, options).await;
        let (gpu, api_choice) = adapters::open_first(&candidates, other, open).await?;
        Ok(Self { api_choice, ..gpu })
    }

    async fn open_listed(index: usize, listed: &Listed, options: &GpuOptions) -> Result<Self, GpuError> {
        let adapter = &listed.adapter;
        let summary = adapters::summary(index, listed, &options.caps);
        let name = summary.name.clone();
        let caps = summary.caps.clone();
        let (device, queue) =
            request(adapter, &caps).await.map_err(|reason| GpuError::Open { adapter: name.clone(), reason })?;
        let failure = Arc::new(Mutex::new(None));
        let keep = |slot: &Mutex<Option<Failure>>, f: Failure| {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            // A lost device is the cause of all other errors, so it replaces them.
            if slot.is_none() || matches!(f, Failure::Lost(_)) {
                *slot = Some(f);
            }
        };
        let slot = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep(
                &slot,
                match error {
                    wgpu::Error::OutOfMemory { .. } => Failure::OutOfMemory(error.to_string()),
                    _ => Failure::Other(error.to_string()),
                },
            );
        }));
        let slot = failure.clone();
        device.set_device_lost_callback(move |_, message| keep(&slot, Failure::Lost(message)));
        let cache = options.cache_dir.as_deref().filter(|_| caps.pipeline_cache);
        let cache = cache.and_then(|dir| PipelineCache::open(&device, &adapter.get_info(), dir));
        Ok(Self {
            device,
            queue,
            caps,
            name,
            summary,
            api_choice: ApiChoice::default(),
            checked: options.checked,
            pipelines: Mutex::default(),
            cache,
            failure,
        })
    }

    /// The capabilities that kernels may use.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The adapter as [`Gpu::adapters`] lists it.
    pub fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// The other APIs through which the device could have been opened.
    pub fn api_choice(&self) -> &ApiChoice {
        &self.api_choice
    }

    /// Gives the device up, and its memory at once. Whatever is asked of it later fails with [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// The compiled kernel; it is compiled at the first call and cached.
    ///
    /// # Errors
    /// A shader that cannot be composed or that the driver refuses.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Result<Arc<Pipeline>, GpuError> {
        let cached = |map: &HashMap<Kernel, Arc<Pipeline>>| map.get(kernel).cloned();
        if let Some(p) = cached(&self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(p);
        }
        // Compiles without the lock: several threads compile at once.
        let compiled = Arc::new(Pipeline::new(self, kernel, self.checked)?);
        let mut map = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.entry(kernel.clone()).or_insert(compiled).clone())
    }

    /// The driver's cache of compiled pipelines, where one is kept.
    pub(super) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.cache.as_ref().map(|c| &c.cache)
    }

    /// Writes the pipelines compiled so far to the cache folder, if there is one. A failure is ignored.
    pub fn save_pipelines(&self) {
        if let Some(cache) = &self.cache {
            cache.save();
        }
    }

    /// A buffer of `bytes` zeros (at least 16, a multiple of 4).
    ///
    /// # Errors
    /// A device without the memory, or a size above its limit.
    pub(crate) fn buffer(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, GpuError> {
        let size = bytes.next_multiple_of(4).max(16);
        let out_of_memory = || GpuError::OutOfMemory {
            adapter: self.name.clone(),
            what: what.to_owned(),
            bytes: size,
            in_use: self.memory_in_use(),
        };
        if size > self.caps.max_buffer {
            return Err(out_of_memory());
        }
        if let Some(buffer) = self.try_buffer(what, size, usage) {
            return Ok(buffer);
        }
        // Work under way holds on to buffers that were dropped.
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.try_buffer(what, size, usage).ok_or_else(out_of_memory)
    }

    /// The buffer, unless memory runs out.
    fn try_buffer(&self, what: &str, size: u64, usage: wgpu::BufferUsages) -> Option<wgpu::Buffer> {
        if let Some(most) = self.caps.max_memory {
            // The device frees dropped buffers only when it is polled.
            let _ = self.device.poll(wgpu::PollType::Poll);
            if self.memory_in_use().saturating_add(size) > most {
                return None;
            }
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage,
            mapped_at_creation: false,
        });
        ready(scope.pop()).flatten().is_none().then_some(buffer)
    }

    /// Bytes of device memory in buffers; 0 where the API does not report them.
    pub fn memory_in_use(&self) -> u64 {
        self.device.generate_allocator_report().map_or(0, |report| report.total_allocated_bytes)
    }

    /// Waits until all submitted work is done, and returns the error that occurred since the last call, if any.
    ///
    /// # Errors
    /// A lost device, memory that ran out, validation errors.
    pub fn wait(&self) -> Result<(), GpuError> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled.map(|_| ()).map_err(|e| self.failed(&e))
    }

    /// An error of the device, in the driver's words.
    pub(super) fn failed(&self, reason: &dyn std::fmt::Display) -> GpuError {
        self.explained(GpuError::Device { adapter: self.name.clone(), reason: reason.to_string() })
    }

    /// `error`, or the loss of the device where it is lost, which is the cause of all other errors.
    pub(super) fn explained(&self, error: GpuError) -> GpuError {
        // The device reports its loss only when it is polled.
        let _ = self.device.poll(wgpu::PollType::Poll);
        match self.check() {
            Err(lost @ GpuError::Lost { .. }) => lost,
            _ => error,
        }
    }

    /// The error that occurred since the last call, if any.
    ///
    /// # Errors
    /// As [`Gpu::wait`].
    pub fn check(&self) -> Result<(), GpuError> {
        let mut slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let adapter = self.name.clone();
        match &*slot {
            None => Ok(()),
            // A lost device stays lost, so the failure stays.
            Some(Failure::Lost(reason)) => Err(GpuError::Lost { adapter, reason: reason.clone() }),
            Some(_) => Err(match slot.take() {
                Some(Failure::OutOfMemory(what)) => {
                    GpuError::OutOfMemory { adapter, what, bytes: 0, in_use: self.memory_in_use() }
                }
                Some(Failure::Other(reason) | Failure::Lost(reason)) => GpuError::Device { adapter, reason },
                None => return Ok(()),
            }),
        }
    }
}

async fn request(adapter: &wgpu::Adapter, caps: &Caps) -> Result<(wgpu::Device, wgpu::Queue), String> {
    use wgpu::Features as F;
    let mut features = F::empty();
    features.set(F::SHADER_F16, caps.f16);
    features.set(F::SUBGROUP, caps.subgroups.is_some());
    features.set(F::EXPERIMENTAL_COOPERATIVE_MATRIX, caps.cooperative);
    features.set(F::TIMESTAMP_QUERY | F::TIMESTAMP_QUERY_INSIDE_PASSES, caps.timestamps);
    features.set(F::PIPELINE_CACHE, caps.pipeline_cache);
    let mut limits = adapter.limits();
    limits.max_storage_buffer_binding_size = caps.max_binding;
    limits.max_compute_invocations_per_workgroup = caps.max_invocations;
    limits.max_compute_workgroup_size_x = caps.max_invocations.min(limits.max_compute_workgroup_size_x);
    limits.max_compute_workgroup_size_y = caps.max_invocations.min(limits.max_compute_workgroup_size_y);
    limits.max_storage_buffers_per_shader_stage = caps.max_storage_buffers;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("handmill"),
        required_features: features,
        required_limits: limits,
        experimental_features: if caps.cooperative {
            // SAFETY: the only experimental feature in use is cooperative matrices, in kernels of our own that are
            // validated and run by the tests.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        },
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        trace: wgpu::Trace::Off,
    };
    if caps.host_import
        && let Some(opened) = import::open(adapter, &descriptor)
    {
        return opened;
    }
    adapter.request_device(&descriptor).await.map_err(|e| e.to_string())
}
