//! What the tests of kernels share: every adapter of the machine, and smaller ones pretended.

use std::{io::Write, sync::OnceLock};

use super::{CapsOverride, Gpu, GpuError, GpuOptions};
use crate::quant::{DType, F8E4M3, f32_to_bf16, f32_to_f16};

/// All devices to test on: each adapter with and without injected checks, and the first one with the least limits that
/// WebGPU guarantees. Empty, with a visible line, where there is no adapter.
pub(crate) fn gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let adapters = Gpu::adapters();
        if adapters.is_empty() {
            // Past the harness, which keeps what passing tests print to itself.
            let why = "no Vulkan driver (on Debian: apt-get install mesa-vulkan-drivers)";
            let _ = writeln!(std::io::stderr(), "SKIPPED: GPU kernels: {why}");
        }
        let least = CapsOverride {
            no_f16: true,
            no_subgroups: true,
            no_cooperative: true,
            no_timestamps: false,
            no_int8: true,
            no_host_import: true,
            max_buffer: None,
            submit_flops: None,
            max_staging: None,
            max_binding: None,
            max_invocations: Some(256),
            max_storage_buffers: Some(8),
            pretend_hardware: false,
            max_memory: None,
        };
        let open = |index: usize, caps: CapsOverride, checked: bool| {
            Gpu::open(&GpuOptions { device: Some(index.to_string()), caps, checked, ..GpuOptions::default() }).unwrap()
        };
        let mut all = Vec::new();
        for a in &adapters {
            all.push(open(a.index, CapsOverride::default(), false));
            all.push(open(a.index, CapsOverride { pretend_hardware: true, ..CapsOverride::default() }, true));
        }
        if let Some(first) = adapters.first() {
            all.push(open(first.index, least, true));
            all.push(open(first.index, CapsOverride { pretend_hardware: true, ..least }, false));
        }
        all
    })
}

#[test]
fn devices_open_and_name_themselves() {
    for gpu in gpus() {
        assert!(!gpu.name().is_empty());
        assert!(gpu.caps().max_binding >= 1 << 27, "{:?}", gpu.caps());
        gpu.wait().unwrap();
    }
}

#[test]
fn what_validation_refuses_is_an_error_once() {
    let Some(first) = gpus().first() else { return };
    // A device of our own: others would see the error.
    let gpu = Gpu::open(&GpuOptions { device: Some(first.summary().index.to_string()), ..Default::default() }).unwrap();
    let small = gpu.buffer("a small one", 16, wgpu::BufferUsages::COPY_DST).unwrap();
    gpu.queue.write_buffer(&small, 1 << 20, &[0; 16]);
    let error = gpu.wait().unwrap_err();
    assert!(matches!(&error, GpuError::Device { adapter, .. } if adapter == gpu.name()), "{error}");
    gpu.wait().unwrap();
    assert!(gpu.read_bandwidth().unwrap() > 0.0);
}

/// A small generator (xorshift*): tests must not depend on a crate's stream.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Between −1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// `n` random elements in `dtype`, of plausible size in every format.
pub(crate) fn random_weights(random: &mut Random, dtype: DType, n: usize) -> Vec<u8> {
    // Where the halves of a block lie, and how large they should be.
    let halves: &[(usize, f32)] = match dtype {
        DType::Q4_0 | DType::Q5_0 => &[(0, 0.02)],
        DType::Q4_1 | DType::Q5_1 => &[(0, 0.02), (2, 0.1)],
        DType::Q8_0 => &[(0, 0.001)],
        DType::Q4_K | DType::Q5_K => &[(0, 0.0005), (2, 0.0003)],
        DType::Q6_K => &[(208, 0.00005)],
        DType::MXFP4 | DType::MXFP4_SPLIT => &[],
        DType::F32 => return (0..n).flat_map(|_| random.float().to_le_bytes()).collect(),
        DType::F16 => return (0..n).flat_map(|_| f32_to_f16(random.float()).to_le_bytes()).collect(),
        DType::F8_E4M3 => return (0..n).map(|_| F8E4M3::from_f32(random.float()).0).collect(),
        DType::BF16 => return (0..n).flat_map(|_| f32_to_bf16(random.float()).to_le_bytes()).collect(),
    };
    let mut bytes: Vec<u8> =
        (0..n / dtype.block_len() * dtype.block_bytes()).map(|_| (random.bits() >> 33) as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        if dtype == DType::MXFP4 {
            block[0] = 117 + block[0] % 8;
        }
        for &(at, size) in halves {
            block[at..at + 2].copy_from_slice(&f32_to_f16(random.float() * size).to_le_bytes());
        }
    }
    bytes
}
