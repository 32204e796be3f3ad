//! The options that several subcommands have. They mean the same in all that have them; a subcommand refuses those that it
//! has no use for.

use crate::{
    error::CliError,
    terminal::{Level, note},
};
use clap::{Args, ValueEnum};
use handmill_models::{KvChoice, Model, PrecisionChoice};
use handmill_runtime::cpu::Pool;
use std::num::NonZeroUsize;

/// The heading of these options in the help.
pub const COMMON: &str = "Common options";

/// How results and messages are shown.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = COMMON)]
pub struct Output {
    /// Results as JSON
    #[arg(long)]
    pub json: bool,
    /// How much standard error says
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// How much standard error says.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = COMMON)]
pub struct Verbosity {
    /// Nothing on standard error but errors, so no reasoning either
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Also say on standard error what is decided and how long it takes: device, kernels, threads, pages, sampling
    #[arg(short, long)]
    verbose: bool,
}

impl Verbosity {
    /// The level of it.
    pub fn level(self) -> Level {
        match self {
            Self { quiet: true, .. } => Level::Errors,
            Self { verbose: true, .. } => Level::Details,
            _ => Level::Notes,
        }
    }
}

/// Where a model runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = COMMON)]
pub struct Compute {
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// How to compute there
    #[command(flatten)]
    pub machine: Machine,
}

/// How a model uses the machine.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = COMMON)]
pub struct Machine {
    /// GPU to use: its number in `handmill devices`, or part of its name and API (`dx12`) [default: the best]
    #[arg(long, value_name = "GPU")]
    pub device: Option<String>,
    /// Layers that run on the GPU, the last ones and the head with them; the CPU runs the rest [default: all]
    #[arg(long, value_name = "N")]
    pub gpu_layers: Option<usize>,
    /// Leave the experts of a mixture to the CPU, whatever else runs on the GPU
    #[arg(long)]
    pub experts_on_cpu: bool,
    /// CPU threads [default: the physical cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where the page cache holds the model in small pages, as after a copy: read it anew, leave it, or copy it to memory
    #[arg(long, value_name = "HOW", value_enum, default_value_t = HugePages::Auto)]
    pub huge_pages: HugePages,
}

/// The value of `--ctx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ctx {
    /// So many tokens.
    Tokens(NonZeroUsize),
    /// As long a context as the model was made for.
    Model,
}

impl Ctx {
    /// Reads a number or `model`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "model" => Ok(Self::Model),
            _ => text.parse().map(Self::Tokens).map_err(|_| "give a number above 0, or model".to_owned()),
        }
    }

    /// Its tokens for that model.
    pub fn tokens(self, model: &Model) -> usize {
        match self {
            Self::Tokens(n) => n.get(),
            Self::Model => model.info().context,
        }
    }
}

/// Values of `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The fastest device there is.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU.
    Gpu,
}

/// Values of `--huge-pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HugePages {
    /// Read the file anew where that takes less than half a second a GB and nobody else uses it.
    Auto,
    /// Leave it.
    Off,
    /// Copy it into huge pages of its own, which takes as much memory as the file.
    Copy,
}

impl From<HugePages> for handmill_runtime::format::HugePages {
    fn from(how: HugePages) -> Self {
        match how {
            HugePages::Auto => Self::Auto,
            HugePages::Off => Self::Off,
            HugePages::Copy => Self::Copy,
        }
    }
}

/// Values of `--kv-type`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KvType {
    /// f32 for models stored as f32, else f16.
    Auto,
    /// 16 bits.
    F16,
    /// 32 bits.
    F32,
    /// 8 bits and a scale for each 32 elements, on the CPU: about half the memory of f16.
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<KvType> for KvChoice {
    fn from(kv: KvType) -> Self {
        match kv {
            KvType::Auto => Self::Auto,
            KvType::F16 => Self::F16,
            KvType::F32 => Self::F32,
            KvType::Q8_0 => Self::Q8_0,
        }
    }
}

/// Values of `--precision`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Precision {
    /// Exact for models stored as f32, else fast.
    Auto,
    /// Linears may round their inputs.
    Fast,
    /// Linears round nothing: slower where weights are in blocks.
    Exact,
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Auto => Self::Auto,
            Precision::Fast => Self::Fast,
            Precision::Exact => Self::Exact,
        }
    }
}

/// What is rounded, and to what.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Rounding {
    /// How cached keys and values are stored
    #[arg(long, value_enum, default_value_t = KvType::Auto)]
    kv_type: KvType,
    /// How exactly linears are computed
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    precision: Precision,
}

impl Rounding {
    /// As the model's files suggest.
    pub const AUTO: Self = Self { kv_type: KvType::Auto, precision: Precision::Auto };
    /// Nothing but sums.
    pub const NONE: Self = Self { kv_type: KvType::F32, precision: Precision::Exact };

    pub fn new(kv_type: KvType, precision: Precision) -> Self {
        Self { kv_type, precision }
    }

    pub fn kv(self) -> KvChoice {
        self.kv_type.into()
    }

    pub fn precision(self) -> PrecisionChoice {
        self.precision.into()
    }
}

impl Machine {
    /// Refuses what this build cannot do on `backend`, and takes no more threads than can help.
    pub fn check(&mut self, backend: Backend) -> Result<(), CliError> {
        let most = most_threads(Pool::hardware_threads());
        if let Some(asked) = self.threads.filter(|asked| *asked > most) {
            note(&format!("--threads {asked} is more than can help here; using {most}"));
            self.threads = Some(most);
        }
        if backend == Backend::Cpu && self.gpu_layers.is_some_and(|n| n > 0) {
            return Err(CliError::Usage("--gpu-layers does not go with --backend cpu".to_owned()));
        }
        if cfg!(feature = "gpu")
            || (backend != Backend::Gpu && self.device.is_none() && self.gpu_layers.is_none_or(|n| n == 0))
        {
            return Ok(());
        }
        Err(CliError::failed(
            "this build has no GPU backend (it was built without the feature `gpu`); use --backend cpu",
        ))
    }
}

/// The most threads that help where `logical` can run at once. Twice as many cover all threads that wait for memory or
/// for another process.
fn most_threads(logical: usize) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(logical.saturating_mul(2).max(2) - 1)
}

#[cfg(test)]
mod tests {
    use super::{Ctx, most_threads};

    #[test]
    fn threads_are_capped_at_what_can_help() {
        assert_eq!([0, 1, 2, 96, usize::MAX].map(|n| most_threads(n).get()), [2, 2, 4, 192, usize::MAX]);
    }

    #[test]
    fn contexts_are_numbers_or_the_models_own() {
        assert_eq!(Ctx::parse("4096"), Ok(Ctx::Tokens(4096.try_into().unwrap())));
        assert_eq!(Ctx::parse("model"), Ok(Ctx::Model));
        for wrong in ["0", "-1", "", "4k", "Model"] {
            assert!(Ctx::parse(wrong).is_err(), "{wrong}");
        }
    }
}
