//! Opening a model and an engine for it, as the common options say.

#[cfg(feature = "gpu")]
use crate::{args::Backend, auto};
use crate::{
    args::Global,
    error::CliError,
    fetch::{self, note},
};
use handmill_models::{Engine, EngineOptions, KvChoice, Model, engine::DeviceChoice};
use std::time::Instant;

/// Opens what the user calls a model and makes an engine with the context of `--ctx`.
pub fn open(global: &Global, name: &str, kv: KvChoice) -> Result<(Model, Engine), CliError> {
    with_ctx(global, name, kv, global.ctx.map(usize::from))
}

/// The same with a context of `n_ctx` tokens, whatever `--ctx` says.
pub fn with_ctx(global: &Global, name: &str, kv: KvChoice, n_ctx: Option<usize>) -> Result<(Model, Engine), CliError> {
    let model = model(name)?;
    let engine = engine(global, &model, kv, n_ctx)?;
    Ok((model, engine))
}

/// What the user calls a model.
pub fn model(name: &str) -> Result<Model, CliError> {
    let path = fetch::locate(name)?;
    Model::open(&path).map_err(|e| CliError::because("could not open the model", e))
}

/// An engine for the model, with a context of `n_ctx` tokens.
pub fn engine(global: &Global, model: &Model, kv: KvChoice, n_ctx: Option<usize>) -> Result<Engine, CliError> {
    let device = device(global)?;
    let on_gpu = !matches!(device, DeviceChoice::Cpu);
    let threads = global.threads.map(usize::from);
    let options = EngineOptions { device, threads, n_ctx, kv, ..EngineOptions::default() };
    let start = Instant::now();
    let mut engine = Engine::new(model, &options).map_err(|e| CliError::because("could not set the model up", e))?;
    if on_gpu {
        note(&format!(
            "running on {}, ready after {:.1} s",
            engine.backend().describe(),
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(engine)
}

#[cfg(not(feature = "gpu"))]
fn device(_: &Global) -> Result<DeviceChoice, CliError> {
    Ok(DeviceChoice::Cpu)
}

/// The device of `--backend` and `--device`. By itself, a GPU is taken where its memory is read faster than the CPU
/// reads its own: generation, where most time goes, is bound by that.
#[cfg(feature = "gpu")]
fn device(global: &Global) -> Result<DeviceChoice, CliError> {
    use handmill_runtime::gpu::{CapsOverride, Gpu, GpuOptions};
    let caps = CapsOverride::from_env().map_err(|name| {
        CliError::Usage(format!(
            "HANDMILL_GPU_WITHOUT names `{name}`; it may name f16, subgroups, cooperative and host-import"
        ))
    })?;
    let options = GpuOptions { device: global.device.clone(), caps, ..GpuOptions::default() };
    let open = || Gpu::open(&options).map(|gpu| DeviceChoice::Gpu(gpu.into()));
    match global.backend {
        Backend::Cpu => Ok(DeviceChoice::Cpu),
        Backend::Gpu => open().map_err(|e| CliError::because("could not open the GPU", e)),
        Backend::Auto if global.device.is_some() => open().map_err(|e| CliError::because("could not open the GPU", e)),
        Backend::Auto => Ok(auto::choose()),
    }
}
