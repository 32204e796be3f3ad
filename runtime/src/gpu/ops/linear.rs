//! stub
use super::*;
use crate::{gpu::{Caps,GpuError}, quant::DType};
pub const MAX_PARTS: usize = 4;
pub struct LinearPart { pub dtype: DType, pub rows: u32, pub out: Place, pub out_first: u32, pub bias: Option<u32>, pub weight_byte: u64, pub row_bytes: u64 }
pub struct LinearCall { pub input: Place, pub k: u32, pub parts: Vec<LinearPart>, pub rows: Rows }
pub struct Variant { pub max_rows: u32, pub dispatches: Vec<Dispatch> }
pub fn dispatches(_: &Caps, _: &LinearCall, _: Option<Place>) -> Result<Vec<Variant>, GpuError> { todo!() }
pub fn scratch_stride(_: &Caps, _: &LinearCall) -> u32 { 0 }
pub fn max_scratch_stride(_: usize) -> usize { 0 }
