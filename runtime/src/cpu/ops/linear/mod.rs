//! Linear layers: out = W·x for weights in any format, straight from the file's bytes.
//!
//! Two kernels a format. *Mat-vec* (up to [`LinearKernels::MAT_VEC_TOKENS`] tokens) streams W once and is bound by
//! reading it. *Mat-mat* (prompts) unpacks a few rows of W at a time into a panel that stays in the cache and runs a
//! register-tiled product on it.
//!
//! Float weights take float activations. Block formats take activations quantised to int8 in blocks of 32 ([`act`]), or,
//! by the kernels of [`exact_linear_kernels`], floats: weights are then unpacked to floats for mat-vec too.
//!
//! Results do not depend on how rows are split over calls or threads, nor on how many tokens share a call of the same
//! kernel. Mat-vec and mat-mat may differ in the last bits, as may different instruction sets.

// Kernels walk several arrays by one index; iterators over one of them hide that.
#![allow(clippy::needless_range_loop)]

pub mod act;
mod formats;
mod gemm_f32;
mod gemm_i8;
mod job;
mod mat_vec_block;
mod mat_vec_float;
mod mat_vec_scaled;
mod mat_vec_super;
mod mat_vec_unpacked;
mod panel;
mod table;
mod unpack;

pub use act::ActForm;
pub use job::{Gather, ScaleRows, WeightRows};
pub use table::{LinearKernels, exact_linear_kernels, linear_kernels};

#[cfg(test)]
mod tests;
