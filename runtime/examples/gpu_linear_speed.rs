//! How fast the GPU's linear kernels are, beside what the device copies.
//!
//! ```text
//! cargo run --release -p handmill-runtime --features unstable-wgpu --example gpu_linear_speed -- \
//!     [--device D] [--k 4096] [--rows 14336] [--tokens 1,8,512] [--json] [format ...]
//! ```
//!
//! For each format and number of tokens one line: time of a dispatch, GB/s of weights, GFLOP/s, and the share of the copy
//! bandwidth (bytes read and written by a copy of 64 MiB or more) that weights alone take. Weights are repeated in memory
//! until no cache holds them. Software adapters want `--k 576 --rows 1536`.

use std::{process::ExitCode, time::Instant};

use handmill_runtime::gpu::ops::linear::{LinearCall, LinearPart, dispatches};
use handmill_runtime::gpu::ops::{Dim, Place};
use handmill_runtime::gpu::raw::{Binding, Pipeline, wgpu};
use handmill_runtime::gpu::{Caps, Gpu, GpuError, GpuOptions};
use handmill_runtime::graph::Rows;
use handmill_runtime::quant::DType;
use wgpu::BufferUsages as U;

struct Options {
    device: Option<String>,
    k: u32,
    rows: u32,
    tokens: Vec<u32>,
    json: bool,
    formats: Vec<DType>,
}

fn main() -> ExitCode {
    let run = options().and_then(|o| {
        let gpu = Gpu::open(&GpuOptions { device: o.device.clone(), ..GpuOptions::default() })?;
        measure(&gpu, &o)
    });
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("gpu_linear_speed: {e}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn options() -> Result<Options, Failure> {
    let mut o =
        Options { device: None, k: 4096, rows: 14336, tokens: vec![1, 8, 512], json: false, formats: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} lacks its value"));
        match arg.as_str() {
            "--device" => o.device = Some(value()?),
            "--k" => o.k = value()?.parse()?,
            "--rows" => o.rows = value()?.parse()?,
            "--tokens" => o.tokens = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--json" => o.json = true,
            name => o.formats.push(
                DType::ALL.into_iter().find(|d| d.name() == name).ok_or(format!("`{name}` is no format or option"))?,
            ),
        }
    }
    if o.formats.is_empty() {
        o.formats = DType::ALL.to_vec();
    }
    Ok(o)
}

fn measure(gpu: &Gpu, o: &Options) -> Result<(), Failure> {
    let caps = gpu.caps();
    let copy = copy_rate(gpu)?;
    if !o.json {
        println!("{}: copies {:.1} GB/s, {} of {}", gpu.name(), copy / 1e9, o.rows, o.k);
        println!("format tokens kernel              ms    GB/s  of copy  GFLOP/s");
    }
    for &dtype in &o.formats {
        for &tokens in &o.tokens {
            // What the device has, then what others would run.
            let mut halves = caps.clone();
            (halves.cooperative, halves.int8_dot) = (false, false);
            let mut plain = halves.clone();
            plain.f16 = false;
            let mut kinds = vec![(caps.clone(), "")];
            if caps.f16 && halves != *caps {
                kinds.push((halves, ", f16"));
            }
            if !caps.software && plain != *caps {
                kinds.push((plain, ", f32"));
            }
            for (caps, kind) in kinds {
                let Some(row_bytes) = dtype.row_bytes(o.k as usize) else { continue };
                let (seconds, kernel) = linear_time(gpu, &caps, o, dtype, row_bytes as u64, tokens)?;
                let bytes = row_bytes as f64 * f64::from(o.rows) / seconds;
                let flops = 2.0 * f64::from(o.k) * f64::from(o.rows) * f64::from(tokens) / seconds;
                let (ms, gb, share, gflop) = (seconds * 1e3, bytes / 1e9, bytes / copy, flops / 1e9);
                let kernel = format!("{kernel}{kind}");
                if o.json {
                    println!(
                        "{{\"format\":\"{dtype}\",\"k\":{},\"rows\":{},\"tokens\":{tokens},\"kernel\":\"{kernel}\",\
                         \"ms\":{ms:.4},\"gb_per_s\":{gb:.3},\"of_copy\":{share:.4},\"gflop_per_s\":{gflop:.2}}}",
                        o.k, o.rows
                    );
                } else {
                    println!(
                        "{dtype:6} {tokens:6} {kernel:18}{ms:8.3}{gb:8.2}{:8.1} %{gflop:9.1}",
                        share * 100.0,
                        dtype = dtype.name()
                    );
                }
            }
        }
    }
    Ok(())
}

/// Bytes a second, read and written, of a plain copy.
fn copy_rate(gpu: &Gpu) -> Result<f64, GpuError> {
    let size = if gpu.caps().software { 64 << 20 } else { gpu.caps().max_buffer.min(1 << 30) };
    let from = gpu.raw().buffer("from", size, U::COPY_SRC)?;
    let to = gpu.raw().buffer("to", size, U::COPY_DST)?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let mut encoder = gpu.raw().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..4 {
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, Some(size));
        }
        gpu.raw().queue().submit([encoder.finish()]);
        gpu.wait()?;
        best = best.min(start.elapsed().as_secs_f64() / 4.0);
    }
    Ok(2.0 * size as f64 / best)
}

/// Bytes that are no denormal or infinite scales anywhere: 0x2X2X is a half of about 0.01.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0x20 | (state >> 24) as u8 & 0x8f
    };
    (0..bytes).map(|_| byte()).collect()
}

/// Seconds of one call and the name of its kernel.
fn linear_time(
    gpu: &Gpu,
    caps: &Caps,
    o: &Options,
    dtype: DType,
    row_bytes: u64,
    tokens: u32,
) -> Result<(f64, &'static str), GpuError> {
    let one = (row_bytes * u64::from(o.rows)).next_multiple_of(4);
    let most = caps.max_binding.min(caps.max_buffer).min(if caps.software { 128 << 20 } else { 1 << 30 });
    let copies = (most / one).clamp(1, 16);
    let weights = filled(gpu, "weights", one * copies)?;
    let arena = filled(gpu, "arena", 4 * (u64::from(o.k) + u64::from(o.rows)) * u64::from(tokens))?;
    let vectors = filled(gpu, "vectors", 64)?;
    let batch = gpu.raw().buffer("batch", 64, U::STORAGE | U::COPY_DST)?;
    gpu.raw().queue().write_buffer(&batch, 0, bytemuck::cast_slice(&[tokens, tokens, 1, 0]));
    let place = |base: u32, stride: u32| Place { base, offset: 0, stride, rows: Rows::Token };
    let mut calls: Vec<(std::sync::Arc<Pipeline>, wgpu::BindGroup, [u32; 3])> = Vec::new();
    let mut name = "";
    for copy in 0..copies {
        let part = LinearPart {
            dtype,
            rows: o.rows,
            out: place(o.k * tokens, o.rows),
            out_first: 0,
            bias: None,
            weight_byte: copy * one,
            row_bytes,
            scales: None,
        };
        let call = LinearCall {
            input: place(0, o.k),
            k: o.k,
            parts: vec![part],
            rows: Rows::Token,
            residual: None,
            gated: None,
            norm: None,
            heads: None,
        };
        let variants = dispatches(caps, &call)?;
        let Some(variant) = variants.iter().find(|v| v.max_rows >= tokens) else { continue };
        let d = &variant.dispatch;
        name = d.kernel.name;
        let pipeline = gpu.raw().pipeline(&d.kernel)?;
        let params = gpu.raw().buffer("params", d.params.len() as u64, U::UNIFORM | U::STORAGE | U::COPY_DST)?;
        gpu.raw().queue().write_buffer(&params, 0, &d.params);
        let bindings = [&params, &batch, &arena, &vectors, &weights].map(Binding::from);
        let grid = d.grid.map(|g| match g {
            Dim::Fixed(n) => n,
            Dim::RowsOver(n) => tokens.div_ceil(n),
            Dim::Sequences | Dim::Choices | Dim::Parts(_) | Dim::Entries { .. } => 1,
        });
        calls.push((pipeline.clone(), pipeline.bind(gpu, &bindings), grid));
    }
    // The first run compiles; then more and more calls until a run takes long enough to trust.
    timed(gpu, &calls, 1)?;
    let mut times = 1;
    while times < 1 << 12 && timed(gpu, &calls, times)? < 0.05 {
        times *= 4;
    }
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        best = best.min(timed(gpu, &calls, times)? / f64::from(times));
    }
    Ok((best, name))
}

/// A buffer of that size with the pattern in it.
fn filled(gpu: &Gpu, what: &str, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
    let size = bytes.next_multiple_of(16).max(64);
    let buffer = gpu.raw().buffer(what, size, U::STORAGE | U::COPY_DST)?;
    let pattern = pattern(1 << 20);
    for at in (0..size).step_by(pattern.len()) {
        let n = (size - at).min(pattern.len() as u64) as usize;
        gpu.raw().queue().write_buffer(&buffer, at, &pattern[..n]);
        gpu.raw().queue().submit([]);
    }
    gpu.wait()?;
    Ok(buffer)
}

/// Seconds that `times` calls take in one pass: by the device's clock where it has one.
fn timed(
    gpu: &Gpu,
    calls: &[(std::sync::Arc<Pipeline>, wgpu::BindGroup, [u32; 3])],
    times: u32,
) -> Result<f64, GpuError> {
    let device = gpu.raw().device();
    let clock = gpu.caps().timestamps.then(|| {
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let ticks = gpu.raw().buffer("ticks", 16, U::QUERY_RESOLVE | U::COPY_SRC);
        let copy = gpu.raw().buffer("ticks read", 16, U::MAP_READ | U::COPY_DST);
        (set, ticks, copy)
    });
    let clock = match clock {
        Some((set, ticks, copy)) => Some((set, ticks?, copy?)),
        None => None,
    };
    let start = Instant::now();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: clock.as_ref().map(|(set, ..)| wgpu::ComputePassTimestampWrites {
                query_set: set,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            }),
        });
        for (pipeline, group, grid) in calls.iter().cycle().take(times as usize) {
            pass.set_pipeline(pipeline.raw());
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
    }
    if let Some((set, ticks, copy)) = &clock {
        encoder.resolve_query_set(set, 0..2, ticks, 0);
        encoder.copy_buffer_to_buffer(ticks, 0, copy, 0, Some(16));
    }
    gpu.raw().queue().submit([encoder.finish()]);
    if let Some((_, _, copy)) = &clock {
        copy.map_async(wgpu::MapMode::Read, .., |_| {});
    }
    gpu.wait()?;
    let wall = start.elapsed().as_secs_f64();
    let Some((_, _, copy)) = &clock else { return Ok(wall) };
    let Ok(view) = copy.get_mapped_range(..) else { return Ok(wall) };
    let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
    let seconds = ticks[1].saturating_sub(ticks[0]) as f64 * f64::from(gpu.raw().queue().get_timestamp_period()) / 1e9;
    Ok(if seconds > 0.0 { seconds } else { wall })
}
