//! Graphs of tensor ops, and the plans that backends execute.
//!
//! A [`Graph`] says what is computed: ops at transformer grain over values whose leading dimension is "one row per
//! token of the step". It is built once per model and serves one token, a prompt of any length and a batch of
//! sequences alike, because nothing in it depends on how many rows a step has.
//!
//! A [`Plan`] says how: row-wise ops fused around linears and attention, values laid out in one arena by liveness,
//! and a device for every stage.

mod attention;
mod builder;
#[cfg(test)]
mod builder_tests;
mod cost;
mod dump;
mod error;
mod experts;
mod op;
mod plan;
mod recurrent;
mod rope;
mod streams;

pub use attention::{AttentionOp, CacheSpec, HeadLinearOp, PoolOp, SelectOp};
pub use builder::{Graph, GraphBuilder, Node};
pub use cost::{Cost, Load, StageCost};
pub use error::GraphError;
pub use experts::{ExpertLinearOp, GroupScore, RouteGroups, RouteOp, RouteScore, RouteWeight};
pub use op::{
    Act, CacheId, NormKind, NormOp, Op, PositionScale, RopeId, Rows, StateId, StateSpec, Value, ValueId, WeightId,
};
#[cfg(feature = "gpu")]
pub(crate) use plan::ResidualSum;
pub use plan::{
    AttentionStage, Device, ExpertPart, ExpertStage, HeadOp, LinearPart, LinearStage, Plan, PoolStage, RowInstr, RowOp,
    RowProgram, SelectStage, Slot, Src, Stage, StageKind,
};
pub use recurrent::{GatedDeltaOp, GatedDeltaStage, ShortConvOp, ShortConvStage};
pub use rope::{RopeFreqs, RopeLayout, RopeSpec};
pub use streams::{HyperOp, StreamOp};
