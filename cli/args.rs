//! The options that mean the same in all subcommands.

use crate::{error::CliError, terminal::note};
use clap::{Args, ValueEnum};
use handmill_runtime::cpu::Pool;
use std::num::NonZeroUsize;

/// Options that mean the same in every subcommand.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Where to compute
    #[arg(long, global = true, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// GPU to use: its number in `handmill devices`, or part of its name and API (`dx12`) [default: the best]
    #[arg(long, global = true, value_name = "GPU")]
    pub device: Option<String>,
    /// Layers that run on the GPU, the last ones and the head with them; the CPU runs the rest [default: all]
    #[arg(long, global = true, value_name = "N")]
    pub gpu_layers: Option<usize>,
    /// Leave the experts of a mixture to the CPU, whatever else runs on the GPU
    #[arg(long, global = true)]
    pub experts_on_cpu: bool,
    /// CPU threads [default: the physical cores this process may use]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Context length in tokens [default: what the model was made for, within 4096 to 32768; perplexity: 512]
    #[arg(long, global = true, value_name = "N")]
    pub ctx: Option<NonZeroUsize>,
    /// Where the page cache holds the model in small pages, as after a copy: read it anew, leave it, or copy it to memory
    #[arg(long, global = true, value_name = "HOW", value_enum, default_value_t = HugePages::Auto)]
    pub huge_pages: HugePages,
    /// Results as JSON
    #[arg(long, global = true)]
    pub json: bool,
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

impl Global {
    /// Refuses what this build cannot do, and takes no more threads than can help.
    pub fn check(&mut self) -> Result<(), CliError> {
        let most = most_threads(Pool::hardware_threads());
        if let Some(asked) = self.threads.filter(|asked| *asked > most) {
            note(&format!("--threads {asked} is more than can help here; using {most}"));
            self.threads = Some(most);
        }
        if self.backend == Backend::Cpu && self.gpu_layers.is_some_and(|n| n > 0) {
            return Err(CliError::Usage("--gpu-layers does not go with --backend cpu".to_owned()));
        }
        if cfg!(feature = "gpu")
            || (self.backend != Backend::Gpu && self.device.is_none() && self.gpu_layers.is_none_or(|n| n == 0))
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
    use super::most_threads;

    #[test]
    fn threads_are_capped_at_what_can_help() {
        assert_eq!([0, 1, 2, 96, usize::MAX].map(|n| most_threads(n).get()), [2, 2, 4, 192, usize::MAX]);
    }
}
