//! What families share.

pub mod attention;
pub mod decoder;
pub mod loader;
pub mod mlp;
pub mod rope;

pub use attention::{Attention, QkNorm, attention};
pub use decoder::{Decoder, Head, Norms, layer, logits};
pub use loader::Loader;
pub use mlp::{gated_mlp, mlp};
