//! What families share.

pub mod attention;
pub mod loader;
pub mod mlp;
pub mod rope;

pub use attention::{Attention, attention};
pub use loader::Loader;
pub use mlp::{gated_mlp, head, pre_norm_layer};
