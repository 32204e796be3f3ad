//! Decides which stages of a model run on the GPU.

use handmill_runtime::{
    BackendError,
    gpu::{Gpu, GpuBackend, GpuBackendOptions, GpuError},
    graph::{Device, Graph, GraphError, Node, Plan, StageKind},
};

use super::EngineOptions;
use crate::{Error, Model};

/// Plans `graph`, with its hidden state as a result where `hidden`, and with its last `gpu_layers` layers on the GPU, and with them the head, which is read whole for every
/// token. The embedding goes with the first layer: it only looks rows up. So a step crosses once each way.
/// With `experts_on_cpu` the CPU runs the experts of these layers all the same.
pub(super) fn plan(graph: &Graph, gpu_layers: usize, experts_on_cpu: bool, hidden: bool) -> Result<Plan, GraphError> {
    let first = graph.n_layers().saturating_sub(gpu_layers);
    // Stages outside of layers run where the stage before them runs.
    let mut device = if first == 0 { Device::Gpu } else { Device::Cpu };
    let place = |_: &_, node: &Node, kind: &StageKind| {
        if let Some(layer) = node.layer {
            device = if layer >= first { Device::Gpu } else { Device::Cpu };
        }
        let expert = experts_on_cpu && matches!(kind, StageKind::Experts(_));
        Ok(if expert { Device::Cpu } else { device })
    };
    if hidden { Plan::with_hidden(graph.clone(), place) } else { Plan::new(graph.clone(), place) }
}

/// Adds to an error of memory how many layers would fit. `before` are the bytes in use before the engine was made.
pub(super) fn explain(
    error: BackendError,
    model: &Model,
    gpu: &Gpu,
    options: &GpuBackendOptions,
    engine: &EngineOptions,
    before: u64,
) -> Error {
    let BackendError::Gpu(GpuError::OutOfMemory { in_use, .. }) = &error else { return error.into() };
    let most = gpu.caps().max_memory.unwrap_or(*in_use).saturating_sub(before);
    let layers = model.graph().n_layers();
    let fits = |n: &usize| {
        plan(model.graph(), *n, engine.experts_on_cpu, engine.hidden)
            .is_ok_and(|p| GpuBackend::memory_needed(gpu, &p, options).is_ok_and(|bytes| bytes <= most))
    };
    let fit = (1..layers).rev().find(fits).unwrap_or(0);
    Error::DeviceMemory { layers, fit, n_ctx: options.max_cached_tokens, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use handmill_runtime::{
        format::Tensor,
        graph::{Device, Graph, GraphBuilder, GraphError},
    };

    use super::plan;

    /// An embedding, three layers of a linear each, and a linear in no layer. No name begins with `layer.`.
    fn graph() -> Result<Graph, GraphError> {
        let mut b = GraphBuilder::new();
        let matrix = Tensor::from_f32(vec![16, 16], &[1.0; 256]).expect("a matrix");
        let matrix = b.weight("matrix", matrix);
        let mut x = b.embed("embed", matrix, 1.0)?;
        for i in 0..3 {
            x = b.scoped("tower", |b| b.layer(i, |b| b.linear("only", x, matrix, None)))?;
        }
        let x = b.linear("layer.0.last", x, matrix, None)?;
        Ok(b.finish(x))
    }

    #[test]
    fn layers_are_placed_whatever_their_nodes_are_called() {
        let graph = graph().expect("a graph");
        for (gpu_layers, on_gpu) in [(0, 0), (1, 2), (2, 3), (3, 4), (usize::MAX, 4)] {
            let plan = plan(&graph, gpu_layers, false, false).expect("a plan");
            let devices: Vec<Device> = plan.stages.iter().map(|s| s.device).collect();
            let mut expected = vec![Device::Cpu; 4 - on_gpu];
            expected.resize(4, Device::Gpu);
            assert_eq!(devices, expected, "{gpu_layers} layers");
        }
    }
}
