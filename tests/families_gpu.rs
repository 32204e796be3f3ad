//! Every family fixture on every GPU that the machine has, software ones included, and with the least limits that
//! WebGPU guarantees: logits as transformers computed them, however the prompt is cut and whatever else is in the batch.
#![cfg(feature = "gpu")]

mod support;

use std::{
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use handmill_runtime::gpu::{CapsOverride, Gpu, GpuOptions};
use support::{
    DeviceChoice, FAMILIES, Fixture, KvChoice, Matrix, NOT_IN_GGUF, NOT_ON_GPU, Options, PrecisionChoice, Session,
    argmax, assert_close, full, is_full, no_adapter, why_not, write_gguf,
};

/// Largest |Δlogit| allowed with f32 weights and f32 keys and values.
const TOLERANCE: f32 = 1e-3;
/// With f16 keys and values.
const F16_TOLERANCE: f32 = 0.02;

/// Families that run where pipelines compile slowly: dense ones in every spelling, and one with most other ops.
const ON_SLOW: [&str; 11] = [
    "llama2",
    "llama3",
    "llama3-bf16",
    "llama-dynamic",
    "llama-linear",
    "qwen2",
    "qwen3",
    "qwen3-sharded",
    "gemma3",
    "mm-gemma3",
    "deepseek-v4",
];

/// Families that together touch every op: those that run where every step takes long, unless all are asked for.
const TOUCHING_EVERY_OP: [&str; 11] = [
    "llama3",
    "qwen3",
    "gemma3",
    "ministral3",
    "phi2",
    "gemma2",
    "smollm3",
    "qwen3_5",
    "mixtral",
    "deepseek-v3.2",
    "deepseek-v4",
];

struct Device {
    name: String,
    options: GpuOptions,
    /// Pipelines compile slowly there, so only a few families run.
    slow: bool,
    /// Kernels for hardware have their parameters in uniform buffers, whose values lavapipe compiles into them anew for
    /// each dispatch: few steps then.
    pretended: bool,
}

impl Device {
    /// The device, opened anew.
    fn open(&self) -> Arc<Gpu> {
        Arc::new(Gpu::open(&self.options).expect("a device"))
    }
}

/// Each adapter, and the first fast one pretending to have little.
fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let mut all = Vec::new();
        let slow = |name: &str| name.contains("SwiftShader");
        let adapters = Gpu::adapters(None);
        let first = adapters.iter().find(|a| !slow(&a.name)).map(|a| a.index);
        for adapter in adapters {
            let slow = slow(&adapter.name);
            let options = |caps: CapsOverride, checked: bool| GpuOptions {
                device: Some(adapter.index.to_string()),
                caps,
                checked,
                ..GpuOptions::default()
            };
            all.push(Device {
                name: adapter.name.clone(),
                options: options(CapsOverride::default(), false),
                slow,
                pretended: false,
            });
            if Some(adapter.index) == first {
                let hardware = CapsOverride { pretend_hardware: true, ..CapsOverride::default() };
                let name = format!("{} with kernels for hardware", adapter.name);
                all.push(Device { name, options: options(hardware, true), slow: false, pretended: true });
                if is_full() {
                    let apple = CapsOverride {
                        no_cooperative: true,
                        no_int8: true,
                        no_timestamps: true,
                        no_host_import: true,
                        max_invocations: Some(1024),
                        max_storage_buffers: Some(29),
                        ..hardware
                    };
                    let name = format!("{} with what Apple's devices have", adapter.name);
                    all.push(Device { name, options: options(apple, true), slow: false, pretended: true });
                }
                let least = CapsOverride {
                    no_f16: true,
                    no_subgroups: true,
                    no_cooperative: true,
                    no_timestamps: false,
                    no_int8: true,
                    no_host_import: true,
                    max_binding: Some(4 << 20),
                    max_buffer: None,
                    submit_flops: Some(200_000),
                    max_staging: Some(4 << 10),
                    max_invocations: Some(256),
                    max_storage_buffers: Some(8),
                    pretend_hardware: true,
                    max_memory: None,
                };
                let name = format!("{} with the least limits", adapter.name);
                all.push(Device { name, options: options(least, true), slow: false, pretended: true });
            }
        }
        all
    })
}

fn on_each(test: &str, check: impl Fn(&Device)) {
    if devices().is_empty() {
        return no_adapter(test);
    }
    devices().iter().for_each(check);
}

fn options(gpu: &Arc<Gpu>) -> Options {
    Options { device: DeviceChoice::Gpu(gpu.clone()), ..Options::default() }
}

/// HANDMILL_FAMILIES=a,b: these alone. Without it a few at a time, in processes of their own: the kernels that lavapipe
/// compiles for all of them do not fit one.
#[test]
fn logits_of_every_family() {
    let Ok(only) = std::env::var("HANDMILL_FAMILIES") else {
        // Two at a time: a driver in software compiles on one core.
        let parts: Vec<_> = FAMILIES.chunks(6).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(few) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut test = Command::new(std::env::current_exe().expect("this program"));
                        test.args(["--exact", "logits_of_every_family", "--nocapture"]);
                        test.env("HANDMILL_FAMILIES", few.join(","));
                        assert!(test.status().expect("a process").success(), "of {few:?}");
                    }
                });
            }
        });
        return;
    };
    on_each("families_gpu::logits_of_every_family", |device| {
        // Pipelines or steps take long there.
        let every = !device.slow && !device.pretended || full("families_gpu::logits_of_every_family");
        for name in FAMILIES {
            if !only.split(',').any(|o| o == *name) || why_not(NOT_ON_GPU, name).is_some() {
                continue;
            }
            let touching = TOUCHING_EVERY_OP.contains(name);
            if !every && !(if device.slow { ON_SLOW.contains(name) } else { touching }) {
                continue;
            }
            let chunks = match (device.slow, device.pretended) {
                (true, _) => *name == "gemma3",
                (_, true) => touching,
                _ => true,
            };
            let (fixture, gpu) = (Fixture::load(name), device.open());
            let mut session = Session::open(&fixture.dir, options(&gpu));
            let what = |part: &str| format!("{name}, {part} on {}", device.name);
            assert_close(&what("prompt"), &session.feed(&fixture.prompt_ids), &fixture.logits, TOLERANCE);
            if std::ptr::eq(device, &devices()[0]) {
                check_gguf(&fixture, &gpu, &what("prompt from GGUF"));
            }
            if fixture.length_dependent_rope {
                continue;
            }
            if chunks {
                check_chunks_and_batches(&fixture, device, &gpu);
            }
            let mut steps = fixture.logits.row(fixture.prompt_ids.len() - 1).to_vec();
            let n = if device.pretended { 6 } else { fixture.gen_ids.len() };
            for &id in &fixture.gen_ids[..n - 1] {
                steps.extend(session.feed(&[id]).data);
            }
            let steps = Matrix::new(fixture.logits.cols, steps);
            assert_close(&what("generation"), &steps, &fixture.gen_step_logits.slice(0..n), TOLERANCE);
            for (k, (&id, &margin)) in fixture.gen_ids.iter().zip(&fixture.gen_margins).take(n).enumerate() {
                if margin > 2.0 * TOLERANCE {
                    assert_eq!(argmax(steps.row(k)) as u32, id, "{}: token {k}, margin {margin}", what("greedy"));
                }
            }
        }
    });
}

/// The prompt's logits from the fixture's GGUF twin, where it can have one.
fn check_gguf(fixture: &Fixture, gpu: &Arc<Gpu>, what: &str) {
    let temp = tempfile::TempDir::new().expect("temporary folder");
    let path = temp.path().join("model.gguf");
    if why_not(NOT_IN_GGUF, fixture.name).is_none() {
        write_gguf(fixture, &path).unwrap_or_else(|e| panic!("{what}: {e}"));
        let logits = Session::open(&path, options(gpu)).feed(&fixture.prompt_ids);
        assert_close(what, &logits, &fixture.logits, TOLERANCE);
    }
}

/// The prompt in chunks, after a forked prefix, and in batches with others.
fn check_chunks_and_batches(fixture: &Fixture, device: &Device, gpu: &Arc<Gpu>) {
    let (name, ids) = (fixture.name, &fixture.prompt_ids);
    let what = |part: String| format!("{name}, {part} on {}", device.name);
    let sizes: &[usize] = if device.pretended { &[7, 16] } else { &[1, 3, 16] };
    for &size in sizes {
        let mut session = Session::open(&fixture.dir, options(gpu));
        let rows = ids.chunks(size).flat_map(|chunk| session.feed(chunk).data).collect();
        let chunked = Matrix::new(fixture.logits.cols, rows);
        assert_close(&what(format!("chunks of {size}")), &chunked, &fixture.logits, TOLERANCE);
    }
    let mut session = Session::open(&fixture.dir, options(gpu));
    session.feed(&ids[..21]);
    session.feed_fork(&ids[..19]);
    let forked = session.feed_fork(&ids[21..]);
    assert_close(&what("a forked prefix".to_owned()), &forked, &fixture.logits.slice(21..ids.len()), TOLERANCE);
    let prompts: [&[u32]; 3] = [&ids[..5], ids, &ids[..1]];
    for (prompt, logits) in prompts.iter().zip(session.feed_batch(&prompts)) {
        let what = what(format!("{} tokens in a batch", prompt.len()));
        assert_close(&what, &logits, &fixture.logits.slice(0..prompt.len()), TOLERANCE);
    }
}

/// As on the CPU: with one layer, a sequence that grows past the length of the short factors is as a new one.
#[test]
fn crossing_the_original_length() {
    on_each("families_gpu::crossing_the_original_length", |device| {
        if device.slow && !full("families_gpu::crossing_the_original_length") {
            return;
        }
        let (fixture, gpu) = (Fixture::load("phi4-mini"), device.open());
        let ids = &fixture.prompt_ids;
        let original = fixture.config["original_max_position_embeddings"].as_u64().expect("a length") as usize;
        let folder = fixture.cut(1);
        let whole = |n: usize| Session::open(folder.path(), Options::default()).feed(&ids[..n]);
        let mut session = Session::open(folder.path(), options(&gpu));
        let mut at = 0;
        for n in [original - 1, 1, 1, 7, 1] {
            let got = session.feed(&ids[at..at + n]);
            at += n;
            let what = format!("{n} tokens up to {at} on {}", device.name);
            assert_close(&what, &got, &whole(at).slice(at - n..at), TOLERANCE);
        }
        let prompts: [&[u32]; 3] = [&ids[..original], ids, &ids[..3]];
        for (prompt, got) in prompts.iter().zip(session.feed_batch(&prompts)) {
            let what = format!("{} tokens in a batch on {}", prompt.len(), device.name);
            assert_close(&what, &got, &whole(prompt.len()), TOLERANCE);
        }
    });
}

#[test]
fn half_precision_keys_and_values() {
    on_each("families_gpu::half_precision_keys_and_values", |device| {
        let (fixture, gpu) = (Fixture::load("llama3"), device.open());
        let mut session = Session::open(
            &fixture.dir,
            Options { kv: KvChoice::F16, precision: PrecisionChoice::Fast, ..options(&gpu) },
        );
        assert_close(&device.name, &session.feed(&fixture.prompt_ids), &fixture.logits, F16_TOLERANCE);
    });
}
