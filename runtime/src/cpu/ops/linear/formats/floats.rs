//! F32, F16 and BF16: see [`crate::quant`].

use super::declared;
use crate::cpu::arch::{Simd, SimdBytes};
use crate::cpu::ops::linear::mat_vec_float::FloatWeight;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants};

/// The methods of a [`Loader`] of floats.
macro_rules! float {
    () => {
        // Never called: floats have no quants.
        #[inline(always)]
        unsafe fn to_quants<S: SimdBytes>(_: S, _: *const u8, _: &mut Quants) {}
        // Never called: floats are not multiplied as bytes.
        #[inline(always)]
        unsafe fn to_panel<S: SimdBytes>(_: S, _: RowBlocks, _: PanelBlock) {}

        #[inline(always)]
        unsafe fn to_f32<S: SimdBytes>(s: S, p: *const u8, n: usize, out: *mut f32) {
            let mut i = 0;
            // SAFETY: n elements are read and written.
            unsafe {
                while i + S::LANES <= n {
                    s.store(out.add(i), Self::load(s, p.add(i * Self::BYTES)));
                    i += S::LANES;
                }
                if i < n {
                    s.store_partial(out.add(i), n - i, Self::load_partial(s, p.add(i * Self::BYTES), n - i));
                }
            }
        }
    };
}
pub(super) use float;

pub(in super::super) struct F32;

impl Loader for F32 {
    declared!(F32, mat_vec_float);
    float!();
}

impl FloatWeight for F32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: as the trait says.
        unsafe { s.load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_partial<S: Simd>(s: S, p: *const u8, n: usize) -> S::F {
        // SAFETY: as the trait says.
        unsafe { s.load_partial(p.cast(), n) }
    }
}

pub(in super::super) struct F16;

impl Loader for F16 {
    declared!(F16, mat_vec_float);
    float!();
}

impl FloatWeight for F16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: as the trait says.
        unsafe { s.load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_partial<S: Simd>(s: S, p: *const u8, n: usize) -> S::F {
        // SAFETY: as the trait says.
        unsafe { s.load_f16_partial(p.cast(), n) }
    }
}

pub(in super::super) struct BF16;

impl Loader for BF16 {
    declared!(BF16, mat_vec_float);
    float!();
}

impl FloatWeight for BF16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: as the trait says.
        unsafe { s.load_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_partial<S: Simd>(s: S, p: *const u8, n: usize) -> S::F {
        // SAFETY: as the trait says.
        unsafe { s.load_bf16_partial(p.cast(), n) }
    }
}
