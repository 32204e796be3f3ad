//! Building blocks that families share.

pub mod attention;
pub mod compressed;
pub mod decoder;
pub mod delta_net;
pub mod hyper;
pub mod loader;
pub mod mla;
pub mod mlp;
pub mod moe;
pub mod per_layer;
pub mod project;
pub mod rope;
pub mod shared_kv;

pub use attention::{Attention, QkNorm, attention};
pub use decoder::{Decoder, Head, Norms, layer, logits};
pub use delta_net::{DeltaNet, DeltaProjections, delta_net};
pub use hyper::HyperConnections;
pub use loader::Loader;
pub use mla::{Indexer, LatentAttention, latent_attention};
pub use mlp::{gated_mlp, gated_mlp_named, mlp};
pub use moe::{Experts, Moe, Shared, moe, routed};
pub use per_layer::PerLayer;
pub use project::project;
pub use shared_kv::{SharedAttention, shared_attention};
