//! stub
use super::*;
use crate::{gpu::{Caps,GpuError}, graph::*};
pub struct RowDispatch { pub dispatch: Dispatch, pub table: Option<WeightId> }
pub fn lower(_: &Caps, _: &Plan, _: &RowProgram, _: &dyn Fn(Src)->Place, _: &dyn Fn(WeightId)->u32) -> Result<Vec<RowDispatch>, GpuError> { todo!() }
pub fn embed_window(_: &Dispatch, _: std::ops::Range<u32>, _: u64) -> Dispatch { todo!() }
