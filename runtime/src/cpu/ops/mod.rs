//! The ops: each computes over plain slices on the calling thread. The executor (`cpu/exec`) decides which rows it
//! gets.
//!
//! Every file has the kernels of one op, written once over [`Simd`](crate::cpu::arch::Simd). Cases and f64 references that
//! they are tested with are in `cases`. [`op_kernels`] gives the table of those compiled for one instruction set.

pub mod attention;
pub mod columns;
pub mod elementwise;
pub mod gated;
pub mod gated_delta;
pub mod linear;
pub mod norm;
pub mod rope;
pub mod route;
pub mod sample;
pub mod short_conv;
pub mod streams;
mod sums;

use std::sync::OnceLock;

use crate::{
    cpu::arch::Isa,
    graph::{Act, RopeLayout},
};

pub use linear::{ActForm, Gather, LinearKernels, ScaleRows, WeightRows, exact_linear_kernels, linear_kernels};
pub use rope::rope_cos_sin;

/// Runs `$body` for `0..$n`, a vector at a time: `$i` is the first element and `$m` the number of lanes in use. In all
/// turns but the last `$m` is the constant `LANES`, for which partial accesses compile to whole ones.
macro_rules! by_lanes {
    ($n:expr, $i:ident, $m:ident => $body:block) => {{
        let n: usize = $n;
        let mut $i = 0;
        while $i + S::LANES <= n {
            let $m = S::LANES;
            $body
            $i += S::LANES;
        }
        if $i < n {
            let $m = n - $i;
            $body
        }
    }};
}
pub(crate) use by_lanes;

/// The kernels for one instruction set; each field is documented at the function of its name.
#[allow(clippy::type_complexity)] // the fields' types say what their functions' docs say with names
pub struct OpKernels {
    /// [`norm::rms_norm`]
    pub rms_norm: fn(&[f32], Option<&[f32]>, f32, f32, &mut [f32]),
    /// [`norm::rms_norm_in_place`]
    pub rms_norm_in_place: fn(&mut [f32], Option<&[f32]>, f32, f32),
    /// [`norm::layer_norm`]
    pub layer_norm: fn(&[f32], Option<&[f32]>, f32, Option<&[f32]>, f32, &mut [f32]),
    /// [`elementwise::add_assign`]
    pub add_assign: fn(&mut [f32], &[f32]),
    /// [`elementwise::add_scaled`]
    pub add_scaled: fn(&mut [f32], &[f32], f32),
    /// [`elementwise::mul_assign`]
    pub mul_assign: fn(&mut [f32], &[f32]),
    /// [`elementwise::scale`]
    pub scale: fn(&mut [f32], f32),
    /// [`elementwise::softcap`]
    pub softcap: fn(&mut [f32], f32),
    /// [`elementwise::f32_to_f16`]
    pub f32_to_f16: fn(&[f32], &mut [u16]),
    /// [`elementwise::f16_to_f32`]
    pub f16_to_f32: fn(&[u16], &mut [f32]),
    /// [`elementwise::bf16_to_f32`]
    pub bf16_to_f32: fn(&[u16], &mut [f32]),
    /// [`gated::gated_act`]
    pub gated_act: fn(Act, &[f32], &[f32], &mut [f32]),
    /// [`short_conv::short_conv`]
    pub short_conv: unsafe fn(&short_conv::ShortConvItem),
    /// [`gated_delta::gated_delta`]
    pub gated_delta: unsafe fn(&gated_delta::GatedDeltaItem),
    /// [`gated::act`]
    pub act: fn(Act, &[f32], &mut [f32]),
    /// [`rope::rope_heads`]
    pub rope_heads: fn(&mut [f32], usize, usize, &[f32], &[f32], RopeLayout),
    /// [`sample::argmax`]
    pub argmax: fn(&[f32]) -> Option<usize>,
    /// [`attention::decode::attention_decode`]
    pub attention_decode: attention::DecodeKernel,
    /// [`attention::join::attention_merge`]
    pub attention_merge: attention::MergeKernel,
    /// [`attention::join::attention_join`]
    pub attention_join: attention::JoinKernel,
    /// [`attention::pool::pool_block`]
    pub pool_block: attention::PoolKernel,
    /// [`attention::select::select_scores`]
    pub select_scores: attention::SelectKernel,
    /// [`attention::prompt::attention_prompt`]
    pub attention_prompt: attention::PromptKernel,
    /// [`attention::rows::store_blocks`]
    pub store_blocks: fn(&[f32], &mut [u8]),
}

impl OpKernels {
    fn new(isa: Isa) -> Self {
        OpKernels {
            rms_norm: norm::rms_norm(isa),
            rms_norm_in_place: norm::rms_norm_in_place(isa),
            layer_norm: norm::layer_norm(isa),
            add_assign: elementwise::add_assign(isa),
            add_scaled: elementwise::add_scaled(isa),
            mul_assign: elementwise::mul_assign(isa),
            scale: elementwise::scale(isa),
            softcap: elementwise::softcap(isa),
            f32_to_f16: elementwise::f32_to_f16(isa),
            f16_to_f32: elementwise::f16_to_f32(isa),
            bf16_to_f32: elementwise::bf16_to_f32(isa),
            gated_act: gated::gated_act(isa),
            short_conv: short_conv::short_conv(isa),
            gated_delta: gated_delta::gated_delta(isa),
            act: gated::act(isa),
            rope_heads: rope::rope_heads(isa),
            argmax: sample::argmax(isa),
            attention_decode: attention::decode::attention_decode(isa),
            attention_merge: attention::join::attention_merge(isa),
            attention_join: attention::join::attention_join(isa),
            pool_block: attention::pool::pool_block(isa),
            select_scores: attention::select::select_scores(isa),
            attention_prompt: attention::prompt::attention_prompt(isa),
            store_blocks: attention::rows::store_blocks(isa),
        }
    }
}

/// The table for an instruction set; the generic table where this CPU lacks the set.
pub fn op_kernels(isa: Isa) -> &'static OpKernels {
    static TABLES: [OnceLock<OpKernels>; Isa::ALL.len()] = [const { OnceLock::new() }; Isa::ALL.len()];
    TABLES[isa as usize].get_or_init(|| OpKernels::new(isa))
}

#[cfg(test)]
mod case_tests;

/// What the tests of linears, which have cases of their own, share with the others.
#[cfg(test)]
pub(crate) mod testing {
    pub use crate::cases::relative_error;
    #[cfg(feature = "gpu")]
    pub use crate::cases::rows::act_f64;
}
