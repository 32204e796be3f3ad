//! FP8 E4M3: see [`crate::quant::F8E4M3`].

use super::{declared, floats::float};
use crate::cpu::arch::{Simd, SimdBytes};
use crate::cpu::ops::linear::mat_vec_float::FloatWeight;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants};
use crate::quant::F8E4M3;

pub(in super::super) struct F8_E4M3;

impl Loader for F8_E4M3 {
    declared!(F8_E4M3, mat_vec_float);
    float!();
}

/// Halves with the same digits are 2⁸ times too small.
const FACTOR: f32 = 256.0;

impl FloatWeight for F8_E4M3 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: as the trait says.
        unsafe { Self::load_partial(s, p, S::LANES) }
    }
    #[inline(always)]
    unsafe fn load_partial<S: Simd>(s: S, p: *const u8, n: usize) -> S::F {
        let mut halves = [0u16; 16];
        // SAFETY: as the trait says; no instruction set has more than 16 lanes. The loop becomes a few vector operations.
        unsafe {
            for (i, half) in halves.iter_mut().enumerate().take(n.min(S::LANES)) {
                *half = F8E4M3(*p.add(i)).to_f16_bits();
            }
            s.mul(s.load_f16(halves.as_ptr()), s.splat(FACTOR))
        }
    }
}
