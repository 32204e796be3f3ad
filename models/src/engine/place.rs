//! Decides which stages of a model run on the GPU.

use handmill_runtime::{
    BackendError,
    gpu::{Gpu, GpuBackend, GpuBackendOptions, GpuError},
    graph::{Device, Plan, StageKind},
};

use crate::{Error, Model};

/// Plans `model` with its last `gpu_layers` layers on the GPU, and with them the head, which is read whole for every
/// token. The embedding goes with the first layer: it only looks rows up. So a step crosses once each way.
/// With `experts_on_cpu` the CPU runs the experts of these layers all the same.
pub(super) fn plan(model: &Model, gpu_layers: usize, experts_on_cpu: bool) -> Result<Plan, Error> {
    let first = model.info().n_layers.saturating_sub(gpu_layers);
    // Stages outside of layers run where the stage before them runs.
    let mut device = if first == 0 { Device::Gpu } else { Device::Cpu };
    let place = |_: &_, name: &str, kind: &StageKind| {
        if let Some(layer) = layer_of(name) {
            device = if layer >= first { Device::Gpu } else { Device::Cpu };
        }
        let expert = experts_on_cpu && matches!(kind, StageKind::Experts(_));
        Ok(if expert { Device::Cpu } else { device })
    };
    Ok(Plan::new(model.graph().clone(), place)?)
}

/// The layer of a stage, from the name `layer.N.…` that families give.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("layer.")?.split('.').next()?.parse().ok()
}

/// Adds to an error of memory how many layers would fit. `before` are the bytes in use before the engine was made.
pub(super) fn explain(
    error: BackendError,
    model: &Model,
    gpu: &Gpu,
    options: &GpuBackendOptions,
    experts_on_cpu: bool,
    before: u64,
) -> Error {
    let BackendError::Gpu(GpuError::OutOfMemory { in_use, .. }) = &error else { return error.into() };
    let most = gpu.caps().max_memory.unwrap_or(*in_use).saturating_sub(before);
    let layers = model.info().n_layers;
    let fits = |n: &usize| {
        plan(model, *n, experts_on_cpu)
            .is_ok_and(|p| GpuBackend::memory_needed(gpu, &p, options).is_ok_and(|bytes| bytes <= most))
    };
    let fit = (1..layers).rev().find(fits).unwrap_or(0);
    Error::DeviceMemory { layers, fit, n_ctx: options.max_cached_tokens, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::layer_of;

    #[test]
    fn layers_are_told_by_name() {
        assert_eq!(layer_of("layer.12.attention"), Some(12));
        assert_eq!(layer_of("layer.3"), Some(3));
        for other in ["head", "layer.x.q", "layers.1.q", ""] {
            assert_eq!(layer_of(other), None, "{other}");
        }
    }
}
