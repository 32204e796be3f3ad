//! Mixtures of experts on every device against f64: the same as on the CPU, whose graphs these are.

use std::sync::Arc;

use crate::{
    cpu::experts_tests::{Case, VOCAB, model},
    gpu::{CapsOverride, Gpu, GpuBackend, GpuBackendOptions, GpuOptions},
    graph::Device,
    quant::DType,
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

/// Each adapter but those that compile slowly, and the first one with kernels for hardware and small bindings.
fn devices() -> Vec<Arc<Gpu>> {
    let open = |index: usize, caps: CapsOverride| {
        Arc::new(
            Gpu::open(&GpuOptions { device: Some(index.to_string()), caps, checked: true, cache_dir: None }).unwrap(),
        )
    };
    let mut all = Vec::new();
    for adapter in Gpu::adapters().iter().filter(|a| !a.name.contains("SwiftShader")) {
        let hardware = CapsOverride { pretend_hardware: true, ..CapsOverride::default() };
        // Two experts a binding, or parts of one.
        let small = CapsOverride { max_binding: Some(16 << 10), ..hardware };
        all.extend([CapsOverride::default(), hardware, small].map(|caps| open(adapter.index, caps)));
    }
    all
}

#[test]
fn rows_go_through_their_experts() {
    let f32 = Case::new(DType::F32, 7, 3, 45, 30);
    let cases = [
        (f32, 1e-4),
        (Case { bias: true, scaled: true, ..f32 }, 1e-4),
        (Case { input_major: true, bias: true, ..f32 }, 1e-4),
        (Case { scaled: true, ..Case::new(DType::BF16, 5, 5, 64, 70) }, 1e-4),
        (Case::new(DType::F32, 1, 1, 16, 8), 1e-4),
        (Case { bias: true, ..Case::new(DType::Q8_0, 9, 2, 96, 64) }, 1e-4),
        (Case::new(DType::MXFP4, 6, 4, 96, 160), 1e-4),
    ];
    for gpu in devices() {
        for (case, tolerance) in cases {
            let model = model(case);
            let options = GpuBackendOptions { kv_type: KvType::F32, max_cached_tokens: 256, max_step_tokens: 150 };
            let mut plan = model.plan.clone();
            plan.steps.iter_mut().for_each(|step| step.device = Device::Gpu);
            let backend = GpuBackend::new(gpu.clone(), plan, &options, &mut |_, _| {});
            let mut backend = backend.unwrap_or_else(|error| panic!("{case:?} on {}: {error}", gpu.name()));
            for n in [1, 3, 8, 9, 70, 140] {
                let n = n.min(backend.max_step_tokens()).min(backend.max_outputs());
                let tokens: Vec<u32> = (0..n).map(|i| (i * 7 % VOCAB) as u32).collect();
                let mut kv = SequenceKv::default();
                let step = SequenceStep { kv: &mut kv, tokens: &tokens, outputs: Outputs::All };
                let out = backend.forward(&mut [step]).unwrap().to_vec();
                model.compare(&out, &tokens, tolerance, &format!("{} of {}", gpu.name(), gpu.caps().max_binding));
            }
        }
    }
}
