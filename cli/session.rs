//! Opens a model and an engine for it, by the common options.

#[cfg(feature = "gpu")]
use crate::{
    args::Backend,
    auto,
    error::one_line,
    fetch::{Cache, Progress},
};
use crate::{
    args::{Compute, Ctx, Machine, Rounding},
    error::CliError,
    fetch, interrupt, licences,
    terminal::{detail, human_bytes, note},
};
#[cfg(feature = "gpu")]
use handmill_models::Error;
use handmill_models::{Engine, EngineOptions, Model, engine::DeviceChoice};
use handmill_runtime::format::{Paging, WhySmall};
use std::{
    ffi::OsStr,
    time::{Duration, Instant},
};

/// Opens the model of that name and makes an engine with the context of `--ctx`.
pub fn open(
    compute: &Compute,
    name: &OsStr,
    rounding: Rounding,
    ctx: Option<Ctx>,
) -> Result<(Model, Engine), CliError> {
    let model = model(name)?;
    let engine = engine(compute, &model, rounding, ctx.map(|ctx| ctx.tokens(&model)))?;
    Ok((model, engine))
}

/// Opens the model of that name: a path, a hub name or an alias.
pub fn model(name: &OsStr) -> Result<Model, CliError> {
    let path = fetch::locate(name)?;
    let start = Instant::now();
    let model = Model::open(&path).map_err(|e| CliError::because("could not open the model", e))?;
    detail(|| format!("licence: {}", licences::of(model.checkpoint())));
    let info = model.info();
    detail(|| {
        format!(
            "opened {} in {}: {}, {} layers of width {}, made for {} tokens",
            path.display(),
            millis(start),
            info.architecture,
            info.n_layers,
            info.width,
            info.context
        )
    });
    Ok(model)
}

/// An engine for the model, with a context of `n_ctx` tokens.
pub fn engine(compute: &Compute, model: &Model, rounding: Rounding, n_ctx: Option<usize>) -> Result<Engine, CliError> {
    // Ctrl-C breaks off what it does.
    let options = EngineOptions { n_ctx, cancel: Some(interrupt::flag()), ..EngineOptions::default() };
    engine_with(compute, model, rounding, options, 1)
}

/// An engine for the model with these options, where the common ones do not say otherwise. Where they do not say how many
/// tokens the cache holds, it is so many contexts on the CPU, where memory grows with use, and one on a GPU.
pub fn engine_with(
    compute: &Compute,
    model: &Model,
    rounding: Rounding,
    mut options: EngineOptions,
    contexts: usize,
) -> Result<Engine, CliError> {
    let device = device(compute)?;
    let on_gpu = !matches!(device, DeviceChoice::Cpu);
    let Machine { gpu_layers, experts_on_cpu, threads, huge_pages, .. } = compute.machine;
    let (threads, huge_pages) = (threads.map(usize::from), huge_pages.into());
    if !on_gpu && options.cache_tokens.is_none() {
        let own = model.info().context.clamp(EngineOptions::MIN_CTX, EngineOptions::MAX_CTX);
        options.cache_tokens = Some(options.n_ctx.unwrap_or(own).saturating_mul(contexts));
    }
    let options = EngineOptions {
        device,
        gpu_layers,
        experts_on_cpu,
        threads,
        kv: rounding.kv(),
        precision: rounding.precision(),
        huge_pages,
        ..options
    };
    let start = Instant::now();
    #[cfg(feature = "gpu")]
    let engine = {
        let make = |options: &EngineOptions| watched(|progress| Engine::with_progress(model, options, progress));
        if auto::is_free(compute) { or_on_cpu(options, make) } else { make(&options) }
    };
    #[cfg(not(feature = "gpu"))]
    let engine = Engine::new(model, &options);
    let mut engine = engine.map_err(|e| CliError::because("could not set the model up", e))?;
    for paging in engine.paging() {
        match (about_pages(paging), paging) {
            (Some(line), _) => note(&line),
            (None, Paging::Small(_)) => {
                detail(|| "the model lies in small pages: the file system has no others".to_owned())
            }
            (None, _) => detail(|| "the pages that the model lies in stay as they are".to_owned()),
        }
    }
    let describe = engine.backend().describe();
    if on_gpu {
        note(&format!("running on {describe}, ready after {:.1} s", start.elapsed().as_secs_f64()));
    } else {
        detail(|| format!("running on {describe}, ready after {}", millis(start)));
    }
    detail(|| {
        let (kv, precision) = (rounding.kv(), rounding.precision());
        format!("context of {} tokens, keys and values: {kv:?}, precision: {precision:?}", engine.n_ctx())
    });
    Ok(engine)
}

/// Time since then.
pub fn millis(start: Instant) -> String {
    format!("{:.1} ms", start.elapsed().as_secs_f64() * 1e3)
}

/// A line about the pages of one of the model's files, where it mattered.
fn about_pages(paging: &Paging) -> Option<String> {
    let size = |bytes: u64, took: Duration| format!("{} in {:.1} s", human_bytes(bytes), took.as_secs_f64());
    match *paging {
        Paging::ReadAnew { bytes, took, huge } => Some(format!(
            "the model lay in small pages, as after a copy; read {} anew, {:.0} % lies in huge pages now (--huge-pages off \
             leaves it)",
            size(bytes, took),
            100.0 * huge
        )),
        Paging::Copied { bytes, took } => {
            let pages = if cfg!(target_os = "linux") { "huge pages" } else { "memory of its own" };
            Some(format!("copied {} into {pages}", size(bytes, took)))
        }
        Paging::Small(WhySmall::InUse) => Some(
            "the model lies in small pages and another process uses it, so generation is slower (--huge-pages copy helps)"
                .to_owned(),
        ),
        Paging::Small(WhySmall::SlowDisk) => Some(
            "the model lies in small pages and the disk is slow, so generation is slower (--huge-pages copy helps)"
                .to_owned(),
        ),
        // Most file systems have no large folios: nobody can change that, and a line at every start would not help.
        _ => None,
    }
}

/// The result of `make`; on the CPU where the GPU was chosen by default and cannot run the model.
#[cfg(feature = "gpu")]
fn or_on_cpu<T>(
    mut options: EngineOptions,
    mut make: impl FnMut(&EngineOptions) -> Result<T, Error>,
) -> Result<T, Error> {
    match make(&options) {
        Err(e) if cannot_run(&e) => {
            note(&format!("using the CPU: {}", one_line(&e)));
            options.device = DeviceChoice::Cpu;
            make(&options)
        }
        done => done,
    }
}

/// Whether the model is too much for the device: its memory, its limits, its driver's compiler.
#[cfg(feature = "gpu")]
fn cannot_run(error: &Error) -> bool {
    use handmill_runtime::{BackendError, gpu::GpuError as E};
    match error {
        Error::DeviceMemory { .. } => true,
        Error::Backend(BackendError::Gpu(e)) => {
            matches!(e, E::Limit { .. } | E::Cache { .. } | E::Unsupported { .. } | E::Pipeline { .. })
        }
        _ => false,
    }
}

/// Shows the progress of copying weights to a device on a terminal, where it takes long.
#[cfg(feature = "gpu")]
fn watched<T>(make: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    const SHORT: std::time::Duration = std::time::Duration::from_millis(500);
    let (start, terminal) = (Instant::now(), std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let mut bar = None;
    make(&mut |done, of| {
        if terminal && start.elapsed() > SHORT {
            bar.get_or_insert_with(|| Progress::new("copying", "the weights to the GPU", of)).set(done);
        }
    })
}

#[cfg(not(feature = "gpu"))]
fn device(_: &Compute) -> Result<DeviceChoice, CliError> {
    Ok(DeviceChoice::Cpu)
}

/// The device of `--backend`, `--device` and `--gpu-layers`. By default a GPU is taken where its memory is read faster
/// than the CPU reads its own, because that bounds generation, which takes most of the time.
#[cfg(feature = "gpu")]
fn device(compute: &Compute) -> Result<DeviceChoice, CliError> {
    use handmill_runtime::gpu::{CapsOverride, Gpu, GpuOptions};
    let caps = CapsOverride::from_env().map_err(|name| {
        CliError::Usage(format!(
            "HANDMILL_GPU_WITHOUT names `{name}`; it may name f16, subgroups, cooperative, int8 and host-import"
        ))
    })?;
    // Without a home folder pipelines are compiled at every start.
    let cache_dir = Cache::from_env().ok().map(|cache| cache.dir().join("pipelines"));
    let dxc = auto::dxcompiler();
    let options = GpuOptions { device: compute.machine.device.clone(), dxc, caps, cache_dir, ..GpuOptions::default() };
    let device = match compute.backend {
        Backend::Cpu => Ok(DeviceChoice::Cpu),
        Backend::Gpu => Gpu::open(&options).map(auto::taken),
        Backend::Auto => auto::choose(compute, &options),
    };
    device.map_err(|e| CliError::because("could not open the GPU", e))
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use handmill_runtime::{BackendError, gpu::GpuError};

    fn full() -> Error {
        let (adapter, what) = ("a GPU".to_owned(), "weights".to_owned());
        let source = BackendError::from(GpuError::OutOfMemory { adapter, what, bytes: 2, in_use: 1 });
        Error::DeviceMemory { layers: 3, fit: 1, n_ctx: 4096, source: source.into() }
    }

    #[test]
    fn models_that_do_not_fit_run_on_the_cpu() {
        let options = || EngineOptions { gpu_layers: Some(7), ..EngineOptions::default() };
        let cache = || BackendError::from(GpuError::Cache { adapter: "a GPU".to_owned(), asked: 2, most: 1 }).into();
        for why in [&full as &dyn Fn() -> Error, &cache] {
            let mut calls = 0;
            let made = or_on_cpu(options(), |options| {
                calls += 1;
                if calls == 1 { Err(why()) } else { Ok(options.gpu_layers) }
            });
            assert_eq!((made.ok(), calls), (Some(Some(7)), 2));
        }
        // Other errors stay what they are.
        let made = or_on_cpu(options(), |_| Err::<(), _>(Error::EmptyPrompt));
        assert!(matches!(made, Err(Error::EmptyPrompt)));
    }
}
