//! What the tests of kernels share: every adapter of the machine, and smaller ones pretended.

use std::{io::Write, sync::OnceLock};

use super::{CapsOverride, Gpu, GpuError, GpuOptions};
pub(crate) use crate::quant::testing::{Random, random_weights};

/// All devices to test on: each adapter with and without injected checks, and the first one with the least limits that
/// WebGPU guarantees. Empty, with a visible line, where there is no adapter.
pub(crate) fn gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let adapters = Gpu::adapters(None);
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
