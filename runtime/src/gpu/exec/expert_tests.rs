//! Mixtures of experts and head linears on every device against f64.

use crate::Backend;
use std::{collections::BTreeSet, sync::Arc};

use crate::{
    Precision,
    cases::{
        experts::{ExpertsCase, experts},
        head_linear::{HeadLinearCase, head_linears},
        mapped_experts::MappedExperts,
    },
    gpu::{Caps, CapsOverride, Gpu, GpuBackend, GpuBackendOptions, GpuOptions},
    graph::{Device, Plan, StageKind, WeightId},
    quant::DType,
    step::{Outputs, SequenceKv, SequenceStep},
};

/// Each adapter but those that compile slowly, and the first one with kernels for hardware and small bindings.
fn devices() -> Vec<Arc<Gpu>> {
    let open = |index: usize, caps: CapsOverride| {
        Arc::new(
            Gpu::open(&GpuOptions { device: Some(index.to_string()), caps, checked: true, ..GpuOptions::default() })
                .unwrap(),
        )
    };
    let mut all = Vec::new();
    for adapter in Gpu::adapters(None).iter().filter(|a| !a.name.contains("SwiftShader")) {
        let hardware = CapsOverride { pretend_hardware: true, ..CapsOverride::default() };
        // Two experts a binding, or parts of one.
        let small = CapsOverride { max_binding: Some(16 << 10), ..hardware };
        all.extend([CapsOverride::default(), hardware, small].map(|caps| open(adapter.index, caps)));
    }
    all
}

#[test]
fn rows_go_through_their_experts() {
    for gpu in devices() {
        for case in experts().into_iter().filter(|case| !case.speed) {
            check(&gpu, case, |_, _| {});
        }
    }
}

#[test]
fn heads_go_through_their_matrices() {
    // The matrices of all heads must fit one binding, and are refused otherwise.
    for gpu in devices().into_iter().filter(|gpu| gpu.caps().max_binding > 1 << 20) {
        for case in head_linears().into_iter().filter(|case| !case.speed) {
            let model = case.model().unwrap();
            let (mut backend, what) = backend(&gpu, &model.plan, &format!("{case:?}"));
            for (n, out) in answers(&mut backend) {
                model.compare(&out, &HeadLinearCase::tokens(n), 1e-4, &what);
            }
        }
    }
}

/// A backend for the plan, and what it is called.
fn backend(gpu: &Arc<Gpu>, plan: &Plan, case: &str) -> (GpuBackend, String) {
    let options = GpuBackendOptions {
        precision: Precision::Exact,
        max_cached_tokens: 256,
        max_step_tokens: 150,
        ..GpuBackendOptions::default()
    };
    let mut plan = plan.clone();
    plan.stages.iter_mut().for_each(|step| step.device = Device::Gpu);
    let backend = GpuBackend::new(gpu.clone(), plan, &options, &mut |_, _| {});
    let what =
        format!("{} with buffers of {}, bindings of {}", gpu.name(), gpu.caps().max_buffer, gpu.caps().max_binding);
    (backend.unwrap_or_else(|error| panic!("{case} on {what}: {error}")), what)
}

/// All rows of steps with few and many.
fn answers(backend: &mut GpuBackend) -> Vec<(usize, Vec<f32>)> {
    let most = backend.max_step_tokens().min(backend.max_outputs());
    let mut rows = [1, 3, 8, 9, 70, 140].map(|n| n.min(most)).to_vec();
    rows.dedup();
    let answer = |n: usize| {
        let mut kv = SequenceKv::default();
        let tokens = ExpertsCase::tokens(n);
        let step = SequenceStep::new(&mut kv, &tokens, Outputs::All);
        (n, backend.forward(&mut [step]).unwrap().to_vec())
    };
    rows.into_iter().map(answer).collect()
}

/// Runs `case` on `gpu` with few and many rows, after `look` has seen the backend.
fn check(gpu: &Arc<Gpu>, case: ExpertsCase, look: impl Fn(&GpuBackend, &str)) {
    // A device gets all experts, whoever chooses them.
    let mapped = MappedExperts::new(ExpertsCase { never_from: case.n_experts, ..case });
    let model = &mapped.model;
    let (mut backend, what) = backend(gpu, &model.plan, &format!("{case:?}"));
    look(&backend, &format!("{case:?} on {what}"));
    for (n, out) in answers(&mut backend) {
        model.compare(&out, &ExpertsCase::tokens(n), 1e-4, &what);
    }
}

/// Stacks of experts that no buffer holds, and experts that none does. Rows of an odd number of blocks begin anywhere in
/// a word.
#[test]
fn experts_lie_in_several_buffers() {
    let limits = |binding: u64, buffer: u64| (Some(binding), Some(buffer));
    // Five experts fit a buffer, but not with the last one's end rounded up to where a binding may begin.
    let small = limits(24 << 10, 28_000);
    let middle = limits(64 << 10, 72 << 10);
    let large = limits(112 << 10, 120 << 10);
    let largest = limits(192 << 10, 200 << 10);
    let f32 = ExpertsCase { bias: true, ..ExpertsCase::new(DType::F32, 7, 3, 45, 30) };
    let columns = ExpertsCase { input_major: true, bias: true, ..ExpertsCase::new(DType::BF16, 12, 2, 70, 83) };
    let cases = [
        (f32, small, false),
        (columns, middle, false),
        (ExpertsCase { bias: true, scaled: true, ..ExpertsCase::new(DType::F32, 5, 2, 192, 256) }, large, true),
        (ExpertsCase::new(DType::Q8_0, 4, 1, 352, 416), large, true),
        (ExpertsCase::new(DType::MXFP4, 3, 1, 672, 736), largest, true),
    ];
    let adapters = Gpu::adapters(None);
    let Some(first) = adapters.iter().find(|a| !a.name.contains("SwiftShader")) else { return };
    for (case, (max_binding, max_buffer), cut) in cases {
        for (pretend_hardware, no_host_import) in [(false, false), (false, true), (true, false), (true, true)] {
            let caps = CapsOverride { pretend_hardware, no_host_import, max_binding, max_buffer, ..Default::default() };
            let device = Some(first.index.to_string());
            let gpu = Gpu::open(&GpuOptions { device, caps, checked: true, ..GpuOptions::default() }).unwrap();
            check(&Arc::new(gpu), case, |backend, what| {
                let (copied, imported) = backend.weight_bytes();
                let Caps { host_import, unified_memory, .. } = *backend.gpu().caps();
                // Embeddings and router are in memory of their own.
                assert_eq!(imported > copied, host_import && unified_memory, "{what}: {copied} bytes copied");
                let mut stacks = 0;
                for step in &backend.plan().stages {
                    let StageKind::Experts(step) = &step.kind else { continue };
                    for part in &step.parts {
                        let buffers = |id: &WeightId| -> BTreeSet<usize> {
                            backend.weights.places(*id).iter().map(|p| p.buffer).collect()
                        };
                        let all: BTreeSet<usize> = part.op.experts.iter().flat_map(buffers).collect();
                        assert!(all.len() > 1, "{what}: the stack lies in {all:?}");
                        assert!(part.op.experts.iter().all(|id| (buffers(id).len() > 1) == cut), "{what}: cut or not");
                        stacks += 1;
                    }
                }
                assert_eq!(stacks, 2, "{what}");
            });
        }
    }
}
