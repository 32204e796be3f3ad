//! Errors of the GPU backend.

/// Errors of the GPU backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No driver, or no adapter that the driver lists.
    #[error("no GPU was found: install a Vulkan driver (or Metal, DX12 where the system has them), or use the CPU")]
    NoAdapter,
    /// A name or number matches no adapter, or several.
    #[error("no GPU matches `{wanted}`; there are: {available}")]
    NoSuchAdapter {
        /// The name or number asked for.
        wanted: String,
        /// The names and numbers of all adapters.
        available: String,
    },
    /// The driver refused the device.
    #[error("cannot open {adapter}: {reason}")]
    Open {
        /// The adapter.
        adapter: String,
        /// In the driver's words.
        reason: String,
    },
    /// The adapter lacks something that the backend needs.
    #[error("{adapter} allows {what} of {has}, {op} needs {needs}; use the CPU")]
    Limit {
        /// The adapter.
        adapter: String,
        /// The limit.
        what: &'static str,
        /// Its value.
        has: u64,
        /// The op or buffer that needs more.
        op: String,
        /// The need.
        needs: u64,
    },
    /// More cached tokens than fit one binding of a layer's keys and values.
    #[error(
        "{adapter} shows kernels the keys and values of {most} tokens at most, not {asked}: use a shorter context, fewer layers on the GPU, or the CPU"
    )]
    Cache {
        /// The adapter.
        adapter: String,
        /// Tokens that were asked for.
        asked: usize,
        /// Tokens that fit.
        most: usize,
    },
    /// An op that the GPU backend does not run.
    #[error("the GPU backend cannot run {op} `{name}`: {why}; use the CPU")]
    Unsupported {
        /// The kind of op.
        op: &'static str,
        /// Its name in the graph.
        name: String,
        /// The reason.
        why: String,
    },
    /// Device memory ran out.
    #[error(
        "{adapter} is out of memory: {what} take(s) {bytes} bytes beside {in_use} in use (a shorter context or fewer layers on the GPU take less)"
    )]
    OutOfMemory {
        /// The adapter.
        adapter: String,
        /// The purpose of the memory.
        what: String,
        /// Its size.
        bytes: u64,
        /// Bytes that all buffers had by then.
        in_use: u64,
    },
    /// A shader could not be composed.
    #[error("shader: {0}")]
    Compose(#[from] handmill_shaders::ComposeError),
    /// The driver or wgpu refused a shader.
    #[error("{adapter} refuses the kernel `{kernel}`: {reason}")]
    Pipeline {
        /// The adapter.
        adapter: String,
        /// The kernel and its defines.
        kernel: String,
        /// In the driver's words.
        reason: String,
    },
    /// The device went away: unplugged, reset by a time-out, or crashed.
    #[error("{adapter} was lost: {reason}; a long prompt may have met the driver's time-out")]
    Lost {
        /// The adapter.
        adapter: String,
        /// In the driver's words.
        reason: String,
    },
    /// Any other error that the device reports.
    #[error("{adapter}: {reason}")]
    Device {
        /// The adapter.
        adapter: String,
        /// In the driver's words.
        reason: String,
    },
    /// A step that cannot run.
    #[error(transparent)]
    Step(#[from] crate::step::StepError),
    /// A weight whose bytes are not whole rows.
    #[error("a weight cannot be decoded: {0}")]
    Weight(#[from] crate::quant::RowError),
}
