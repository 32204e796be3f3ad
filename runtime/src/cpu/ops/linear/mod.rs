//! Linear layers: out = W·x for weights in any format, straight from the file's bytes.
//!
//! Two kernels a format. *Mat-vec* (up to [`LinearKernels::MAT_VEC_TOKENS`] tokens) streams W once and is bound by
//! reading it. *Mat-mat* (prompts) unpacks a few rows of W at a time into a panel that stays in the cache and runs a
//! register-tiled product on it.
//!
//! Float weights take float activations. Block formats take activations quantised to int8 in blocks of 32 ([`act`]), or,
//! by the kernels of [`exact_linear_kernels`], floats: weights are then unpacked to floats for mat-vec too.
//!
//! A result depends on its own row of weights and its own token alone, bit by bit: not on the kernel, nor on how rows and
//! tokens are split over calls or threads, nor on the instruction set, as long as that has fused multiply-adds. Every
//! format has one arithmetic for this: exact integers a group of 16 or 32 elements, then one multiply-add into chain
//! `group mod 4` (`mat_vec_block`), or for floats into chain `element mod 16` (`mat_vec_float`); the chains are
//! joined in one order.

// Kernels walk several arrays by one index; iterators over one of them hide that.
#![allow(clippy::needless_range_loop)]

pub mod act;
mod chains;
mod formats;
mod gemm_f32;
mod gemm_i8;
mod job;
mod mat_vec_block;
mod mat_vec_float;
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
