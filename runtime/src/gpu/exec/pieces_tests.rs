//! Weights that no binding or no buffer holds, imported and copied in small parts, and steps that are submitted in parts:
//! against f64.

use crate::Backend;
use std::{io::Write, sync::Arc};

use crate::{
    Precision,
    cases::random,
    format::{Bytes, Mapping, Tensor},
    gpu::{Caps, CapsOverride, Gpu, GpuBackend, GpuBackendOptions, GpuOptions},
    graph::{Device, GraphBuilder, Op, Plan, WeightId},
    quant::DType,
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

const WIDTH: usize = 64;
const VOCAB: usize = 1000;

/// Embeddings, a matrix, and the embeddings again as the head.
struct Model {
    plan: Plan,
    /// `[VOCAB, WIDTH]` and `[WIDTH, WIDTH]`
    table: Vec<f64>,
    matrix: Vec<f64>,
    bytes: u64,
    _file: tempfile::NamedTempFile,
}

fn model(dtype: DType) -> Model {
    let mut file = Vec::new();
    let mut encode = |seed: u64, rows: usize| {
        let start = file.len();
        random(seed, rows * WIDTH).chunks(WIDTH).for_each(|row| dtype.encode_row(row, &mut file).unwrap());
        let mut values = vec![0.0; rows * WIDTH];
        dtype.decode_row(&file[start..], &mut values).unwrap();
        let range = start..file.len();
        file.resize(file.len().next_multiple_of(32), 0);
        (range, values.into_iter().map(f64::from).collect::<Vec<f64>>())
    };
    let ((matrix_at, matrix), (table_at, table)) = (encode(1, WIDTH), encode(2, VOCAB));
    let temp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temp.path(), &file).unwrap();
    let map = Mapping::open(temp.path()).unwrap();
    let bytes = (matrix_at.len() + table_at.len()) as u64;
    let mut b = GraphBuilder::new();
    let mut weight = |name: &str, rows: usize, at| {
        let bytes = Bytes::mapped(&map, at).unwrap();
        b.weight(name, Tensor::new(dtype, vec![rows, WIDTH], bytes).unwrap())
    };
    let (table_id, matrix_id) = (weight("table", VOCAB, table_at), weight("matrix", WIDTH, matrix_at));
    let x = b.embed("x", table_id, 1.0).unwrap();
    let x = b.linear("matrix", x, matrix_id, None).unwrap();
    let x = b.op("select", Op::SelectOutputs, &[x]).unwrap();
    let y = b.linear("head", x, table_id, None).unwrap();
    let mut plan = Plan::new(b.finish(y), |_, _, _| Ok(Device::Cpu)).unwrap();
    plan.stages.iter_mut().for_each(|stage| stage.device = Device::Gpu);
    Model { plan, table, matrix, bytes, _file: temp }
}

impl Model {
    /// How far `out` is from the logits of `tokens`, relative to them.
    fn error(&self, out: &[f32], tokens: &[u32]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (mut wrong, mut right) = (0.0, 0.0);
        for (&token, out) in tokens.iter().zip(out.chunks(VOCAB)) {
            let x = &self.table[token as usize * WIDTH..][..WIDTH];
            let x: Vec<f64> = self.matrix.chunks(WIDTH).map(|row| dot(row, x)).collect();
            for (row, got) in self.table.chunks(WIDTH).zip(out) {
                let want = dot(row, &x);
                (wrong, right) = (wrong + (f64::from(*got) - want).powi(2), right + want * want);
            }
        }
        (wrong / right).sqrt()
    }
}

/// The first adapter, pretending; none where there is none.
fn device(caps: CapsOverride) -> Option<Arc<Gpu>> {
    Some(open(Gpu::adapters(None).first()?.index, caps))
}

fn open(index: usize, caps: CapsOverride) -> Arc<Gpu> {
    let options = GpuOptions { device: Some(index.to_string()), caps, checked: true, ..GpuOptions::default() };
    Arc::new(Gpu::open(&options).unwrap())
}

fn backend(gpu: &Arc<Gpu>, model: &Model, progress: &mut dyn FnMut(u64, u64)) -> GpuBackend {
    let options = GpuBackendOptions {
        kv_type: KvType::F32,
        precision: Precision::Exact,
        max_cached_tokens: 64,
        max_step_tokens: 16,
    };
    GpuBackend::new(gpu.clone(), model.plan.clone(), &options, progress).unwrap()
}

fn check(backend: &mut GpuBackend, model: &Model, what: &str) {
    for n in [1, 5, 9] {
        let tokens: Vec<u32> = (0..n).map(|i| (i * 337 + 5) % VOCAB as u32).collect();
        let mut kv = SequenceKv::default();
        let step = SequenceStep::new(&mut kv, &tokens, Outputs::All);
        let out = backend.forward(&mut [step]).unwrap().to_vec();
        assert_eq!(out.len(), n as usize * VOCAB, "{what}");
        let error = model.error(&out, &tokens);
        assert!(error < 1e-5, "{what}, {n} tokens: {error:e}");
    }
}

#[test]
fn weights_larger_than_bindings_and_buffers() {
    let binding = CapsOverride { max_binding: Some(48 << 10), ..CapsOverride::default() };
    let buffer = CapsOverride { max_binding: Some(64 << 10), max_buffer: Some(72 << 10), ..binding };
    for dtype in [DType::F32, DType::Q8_0] {
        let model = model(dtype);
        for limits in [binding, buffer] {
            for (hardware, copied) in [(false, false), (false, true), (true, true)] {
                let caps = CapsOverride { pretend_hardware: hardware, no_host_import: copied, ..limits };
                let Some(gpu) = device(caps) else { return };
                let what = format!("{dtype} on {} with {caps:?}", gpu.name());
                let mut heard = Vec::new();
                let mut backend = backend(&gpu, &model, &mut |done, all| heard.push((done, all)));
                let pieces = backend.weights.places(WeightId(0)).len();
                let whole = limits.max_buffer.is_none() || dtype == DType::Q8_0 && model.bytes < 64 << 10;
                assert_eq!(pieces > 1, !whole, "{what}: the table lies in {pieces} buffers");
                let Caps { host_import, unified_memory, .. } = *gpu.caps();
                if host_import && unified_memory {
                    assert_eq!(backend.weight_bytes(), (0, model.bytes), "{what}: bytes copied and imported");
                    assert!(heard.is_empty(), "{what}: {heard:?}");
                } else {
                    assert_eq!(backend.weight_bytes(), (model.bytes, 0), "{what}: bytes copied and imported");
                    assert!(
                        heard.is_sorted() && heard.last() == Some(&(model.bytes, model.bytes)),
                        "{what}: {heard:?}"
                    );
                }
                check(&mut backend, &model, &what);
            }
        }
    }
}

/// Gives the device enough to do that it gets to nothing else for a while, if it works behind the host's back at all.
/// The buffers that it works on.
fn keep_busy(gpu: &Gpu) -> [wgpu::Buffer; 2] {
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let [a, b] = [(); 2].map(|()| gpu.buffer("busy", 16 << 20, usage).unwrap());
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for _ in 0..32 {
        encoder.copy_buffer_to_buffer(&a, 0, &b, 0, None);
        encoder.copy_buffer_to_buffer(&b, 0, &a, 0, None);
    }
    gpu.queue.submit([encoder.finish()]);
    [a, b]
}

/// As the device's allocator counts them, not as the code under test does.
#[test]
fn few_bytes_are_on_their_way_at_a_time() {
    let model = model(DType::F32);
    for adapter in Gpu::adapters(None) {
        // A seventeenth of the model, a quarter, and more than all of it.
        for most in [16 << 10, 64 << 10, 1 << 20] {
            let caps = CapsOverride { no_host_import: true, max_staging: Some(most), ..CapsOverride::default() };
            let gpu = open(adapter.index, caps);
            // What opening the device has written waits for a first submit, and its staging buffer with it.
            gpu.queue.submit([]);
            gpu.wait().unwrap();
            let before = gpu.memory_in_use();
            let small = gpu.buffer("small", 4, wgpu::BufferUsages::COPY_DST).unwrap();
            // Drivers round every buffer up: Direct3D 12 to 64 KiB.
            let rounding = (gpu.memory_in_use() - before).max(1);
            drop(small);
            let busy = keep_busy(&gpu);
            if gpu.memory_in_use() == 0 {
                let why = format!("{} does not count memory", gpu.name());
                let _ = writeln!(std::io::stderr(), "SKIPPED (hardware): bytes of weights on their way: {why}");
                continue;
            }
            let mut seen = Vec::new();
            let mut backend = backend(&gpu, &model, &mut |_, _| seen.push(gpu.memory_in_use()));
            let [buffer] = &backend.weights.buffers[..] else { panic!("{} buffers", backend.weights.buffers.len()) };
            let others = before + buffer.size() + busy.iter().map(wgpu::Buffer::size).sum::<u64>();
            let peak = seen.iter().max().unwrap();
            assert!(*peak >= others, "{seen:?} beside {before} before and {} of weights", buffer.size());
            let peak = peak - others;
            let what = format!("at most {peak} bytes on their way to {}, {most} being allowed", gpu.name());
            println!("{what}");
            // Four buffers on their way, and the one of the weights.
            let allowed = 4 * (most / 4).next_multiple_of(rounding) + rounding + most / 64;
            assert!(peak <= allowed && seen.len() as u64 >= model.bytes / (most / 4), "{what}");
            drop(busy);
            check(&mut backend, &model, &what);
        }
    }
}

#[test]
fn long_steps_are_submitted_in_parts() {
    let model = model(DType::F32);
    for submit_flops in [None, Some(1)] {
        let Some(gpu) = device(CapsOverride { submit_flops, ..CapsOverride::default() }) else { return };
        let mut backend = backend(&gpu, &model, &mut |_, _| {});
        check(&mut backend, &model, "submits");
        let stats = backend.stats();
        assert_eq!(stats.steps, 3);
        match submit_flops {
            None => assert_eq!(stats.submits, 3),
            Some(_) => assert!(stats.submits >= 6, "{} submits", stats.submits),
        }
    }
}
