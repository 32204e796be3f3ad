//! Errors of building and planning a graph.

/// A graph that cannot be built or planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// An op got inputs whose shapes do not fit it.
    #[error("{op} `{name}`: {what}")]
    Shape {
        /// The op's kind.
        op: &'static str,
        /// The node's name.
        name: String,
        /// The shapes, and why they do not fit.
        what: String,
    },
    /// No device can run a stage.
    #[error("{op} `{name}` cannot run on the {device}: {what}")]
    Unsupported {
        /// The op's kind.
        op: &'static str,
        /// The node's name.
        name: String,
        /// The device that was asked for.
        device: &'static str,
        /// The type or limit in the way.
        what: String,
    },
}
