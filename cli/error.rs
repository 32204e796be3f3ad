//! Reasons that end a command early, each with its exit code and its line.

use crate::{fetch::FetchError, terminal::harmless_line};
use handmill_models::Error;
#[cfg(feature = "gpu")]
use handmill_runtime::gpu::GpuError;
use handmill_runtime::{BackendError, step::StepError};

/// Reasons why a command ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments do not fit together; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The model named on the command line could not be brought here.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Something failed while the command worked; exit code 1.
    #[error("{what}")]
    Failed {
        /// The action, in words that name the file or option.
        what: String,
        /// The error underneath.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The reader of standard output went away (`handmill … | head`): no error, and no more output.
    #[error("standard output was closed")]
    ClosedPipe,
    /// Ctrl-C; exit code 130 as shells expect.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// A failure without a deeper cause.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), source: None }
    }

    /// A failure that `source` caused.
    pub fn because(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed { what: what.into(), source: Some(source.into()) }
    }

    /// The same error after Ctrl-C.
    pub fn or_interrupted(self) -> Self {
        match self {
            Self::Fetch(FetchError::Interrupted { .. }) => self,
            _ => Self::Interrupted,
        }
    }

    /// The process's exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::ClosedPipe => 0,
            Self::Interrupted | Self::Fetch(FetchError::Interrupted { .. }) => 130,
            Self::Fetch(FetchError::Spelling { .. }) => 2,
            Self::Fetch(_) | Self::Failed { .. } => 1,
        }
    }
}

/// The error and its causes in one line, with the options that may help.
pub fn explain(error: &CliError) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(hint) = hint(inner) {
            return format!("{} ({hint})", one_line(error));
        }
        cause = inner.source();
    }
    one_line(error)
}

/// The options that may help against an error. The libraries know of no options.
fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
            Error::ContextFull { .. } | Error::TextTooShort { .. } => Some("--ctx".to_owned()),
            Error::NotFinite { beyond_f16: true, .. } => Some("--kv-type f32 may help".to_owned()),
            Error::Backend(BackendError::Step(StepError::CacheRows { .. })) => Some("--kv-type f16".to_owned()),
            Error::DeviceMemory { fit: 0, .. } => Some("--backend cpu".to_owned()),
            Error::DeviceMemory { fit, .. } => Some(format!("--gpu-layers {fit}")),
            #[cfg(feature = "gpu")]
            Error::Backend(BackendError::Gpu(error)) => gpu_hint(error),
            _ => None,
        };
    }
    #[cfg(feature = "gpu")]
    if let Some(error) = error.downcast_ref::<GpuError>() {
        return gpu_hint(error);
    }
    None
}

#[cfg(feature = "gpu")]
fn gpu_hint(error: &GpuError) -> Option<String> {
    let options = match error {
        GpuError::NoAdapter | GpuError::Limit { .. } | GpuError::Unsupported { .. } => "--backend cpu",
        GpuError::Cache { .. } => "--ctx, --gpu-layers, --backend cpu",
        GpuError::OutOfMemory { .. } => "--ctx, --gpu-layers",
        _ => return None,
    };
    Some(options.to_owned())
}

/// The error and its causes in one line, each cause once, with text from files made harmless for a terminal.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Many errors repeat their cause in their own text.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    harmless_line(&line.replace('\n', " ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_adds_the_option_that_helps() {
        let memory = |fit| {
            let source: Box<handmill_runtime::BackendError> =
                Box::new(handmill_runtime::cpu::CpuError::OutOfMemory { what: "weights", bytes: 1 }.into());
            Error::DeviceMemory { layers: 3, fit, n_ctx: 64, source }
        };
        for (error, end) in [
            (Error::ContextFull { tokens: 9, n_ctx: 4 }, "ask for a longer one (--ctx)"),
            (Error::TextTooShort { tokens: 9, window: 16 }, "a smaller window (--ctx)"),
            (memory(2), "tokens (--gpu-layers 2)"),
            (memory(0), "use the CPU (--backend cpu)"),
            (Error::EmptyPrompt, "give at least one"),
        ] {
            let line = explain(&CliError::because("it failed", error));
            assert!(line.starts_with("it failed: ") && line.ends_with(end), "{line}");
        }
    }
}
