//! Vectors: one small trait, and one file per instruction set that implements it.
//!
//! Nothing here knows what a kernel computes. A kernel is written once over [`Simd`] and instantiated for every
//! instruction set by [`simd_dispatch!`](crate::simd_dispatch), which also makes the table that picks one.
//!
//! # How to add a kernel
//!
//! 1. Write the algorithm over the trait. It must be `#[inline(always)]`, as must every helper that it calls and that
//!    takes or returns vectors: only the outer shell made by the macro carries `target_feature`, and code is compiled
//!    for an instruction set only where it is inlined into that shell. The token `s` proves that the CPU has the
//!    instructions, so arithmetic is safe to call; loads and stores take pointers and are not.
//!
//!    ```
//!    use handmill_runtime::{cpu::arch::Simd, simd_dispatch};
//!
//!    /// out[i] = x[i] * scale
//!    #[inline(always)]
//!    fn scale_impl<S: Simd>(s: S, x: &[f32], scale: f32, out: &mut [f32]) {
//!        assert_eq!(x.len(), out.len());
//!        let k = s.splat(scale);
//!        let mut i = 0;
//!        while i + S::LANES <= x.len() {
//!            // SAFETY: i + LANES <= x.len() == out.len().
//!            unsafe { s.store(out.as_mut_ptr().add(i), s.mul(s.load(x.as_ptr().add(i)), k)) };
//!            i += S::LANES;
//!        }
//!        let rest = x.len() - i;
//!        // SAFETY: exactly `rest` elements are left, and partial accesses touch no others.
//!        unsafe { s.store_partial(out.as_mut_ptr().add(i), rest, s.mul(s.load_partial(x.as_ptr().add(i), rest), k)) };
//!    }
//!
//!    simd_dispatch!(pub fn scale(x: &[f32], scale: f32, out: &mut [f32]) = scale_impl);
//!
//!    let mut out = [0.0; 3];
//!    scale(handmill_runtime::cpu::arch::Isa::detect())(&[1.0, 2.0, 3.0], 2.0, &mut out);
//!    assert_eq!(out, [2.0, 4.0, 6.0]);
//!    ```
//!
//! 2. Instantiate it, as in the last lines above. This makes
//!    `pub fn scale(isa: Isa) -> fn(&[f32], f32, &mut [f32])`. Choose the pointer once and keep it.
//! 3. Test it by a loop over [`Isa::available`] against the scalar reference, with lengths that are no multiple of 16.
//!
//! A closure that is not inlined is compiled without the features: write loops instead.

mod bytes;
mod generic;
mod generic_bytes;
mod math;
mod prefetch;
mod simd;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_bytes;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bytes;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_bytes;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use bytes::SimdBytes;
pub use generic::Generic;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use prefetch::prefetch;
pub use simd::Simd;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain arrays that the compiler vectorises with what every CPU of the target has.
    Generic,
    /// x86-64: AVX2, FMA and F16C.
    Avx2,
    /// x86-64: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64: [`Isa::Avx512`] and the int8 dot products of VNNI.
    Avx512Vnni,
    /// aarch64: the baseline.
    Neon,
    /// aarch64: [`Isa::Neon`] and the int8 dot products (`sdot`).
    NeonDotprod,
    /// aarch64: [`Isa::NeonDotprod`] and the int8 matrix products (`smmla`).
    NeonI8mm,
}

/// Reasons why an instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// [`Isa::name`] gives no such name.
    #[error(
        "unknown instruction set {0:?}: use generic, avx2, avx512, avx512vnni, neon, dotprod or i8mm (HANDMILL_CPU)"
    )]
    Unknown(String),
    /// This CPU, or this build's target, lacks the instruction set.
    #[error("this CPU does not have {}: leave HANDMILL_CPU unset to take the best one, {}", .0.name(), Isa::detect().name())]
    Unavailable(Isa),
}

impl Isa {
    /// All instruction sets, from the least to the most capable of each architecture.
    pub const ALL: [Isa; 7] =
        [Isa::Generic, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDotprod, Isa::NeonI8mm];

    /// The most capable instruction set of this CPU.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Generic)
    }

    /// The instruction sets that this CPU can run, [`Isa::Generic`] first and the most capable last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this CPU can run it. The answer is cached by the standard library.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            };
            let avx512 = || {
                avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("bmi2")
            };
            match self {
                Isa::Generic => true,
                Isa::Avx2 => avx2(),
                Isa::Avx512 => avx512(),
                Isa::Avx512Vnni => avx512() && is_x86_feature_detected!("avx512vnni"),
                Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            match self {
                Isa::Generic => true,
                Isa::Neon => has!("neon"),
                Isa::NeonDotprod => has!("neon") && has!("dotprod"),
                Isa::NeonI8mm => has!("neon") && has!("dotprod") && has!("i8mm"),
                Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Isa::Generic
        }
    }

    /// The name that `HANDMILL_CPU` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Generic => "generic",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "dotprod",
            Isa::NeonI8mm => "i8mm",
        }
    }

    /// The instruction set of that name, if this CPU has it.
    pub fn parse(name: &str) -> Result<Isa, IsaError> {
        let isa = Isa::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        if isa.is_available() { Ok(isa) } else { Err(IsaError::Unavailable(isa)) }
    }

    /// The instruction set that the environment variable `HANDMILL_CPU` forces, or else the best that this CPU has.
    pub fn from_env() -> Result<Isa, IsaError> {
        match std::env::var("HANDMILL_CPU") {
            Ok(name) if !name.is_empty() => Isa::parse(&name),
            _ => Ok(Isa::detect()),
        }
    }
}

/// Instantiates a kernel written over [`Simd`](crate::cpu::arch::Simd) for every instruction set.
///
/// `simd_dispatch!(pub fn name(a: A, b: B) -> R = kernel)` makes `pub fn name(isa: Isa) -> fn(A, B) -> R`, where
/// `kernel` is `fn kernel<S: Simd>(s: S, a: A, b: B) -> R` and `#[inline(always)]`. With `unsafe fn` on the left, the
/// kernel is an unsafe function and so is the pointer. An instruction set that this CPU lacks gives the generic
/// instance, so the pointer is always sound to call.
#[macro_export]
macro_rules! simd_dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)? = $kernel:ident $(,)?) => {
        $crate::simd_dispatch!(@make [$(#[$meta])*] [$vis] [fn] $name ($($arg : $ty),*) [$(-> $ret)?] $kernel);
    };
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)? = $kernel:ident $(,)?) => {
        $crate::simd_dispatch!(@make [$(#[$meta])*] [$vis] [unsafe fn] $name ($($arg : $ty),*) [$(-> $ret)?] $kernel);
    };
    (@make [$($meta:tt)*] [$vis:vis] [$($fn:tt)+] $name:ident ($($arg:ident : $ty:ty),*) [$($ret:tt)*] $kernel:ident) => {
        $($meta)*
        #[allow(unused_unsafe, clippy::too_many_arguments, clippy::type_complexity)]
        $vis fn $name(isa: $crate::cpu::arch::Isa) -> $($fn)+ ($($ty),*) $($ret)* {
            $($fn)+ generic($($arg: $ty),*) $($ret)* {
                // SAFETY: the generic vectors need nothing; the kernel's own contract is the caller's.
                unsafe { $kernel($crate::cpu::arch::Generic::new(), $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $($fn)+ avx2($($arg: $ty),*) $($ret)* {
                #[target_feature(enable = "avx2,fma,f16c")]
                unsafe fn shell($($arg: $ty),*) $($ret)* {
                    // SAFETY: the features are enabled here; the kernel's own contract is the caller's.
                    unsafe { $kernel($crate::cpu::arch::Avx2::new(), $($arg),*) }
                }
                // SAFETY: this pointer is handed out only where the CPU has the features.
                unsafe { shell($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $($fn)+ avx512($($arg: $ty),*) $($ret)* {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")]
                unsafe fn shell($($arg: $ty),*) $($ret)* {
                    // SAFETY: the features are enabled here; the kernel's own contract is the caller's.
                    unsafe { $kernel($crate::cpu::arch::Avx512::<false>::new(), $($arg),*) }
                }
                // SAFETY: this pointer is handed out only where the CPU has the features.
                unsafe { shell($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            $($fn)+ neon($($arg: $ty),*) $($ret)* {
                // SAFETY: NEON is part of the target's baseline; the kernel's own contract is the caller's.
                unsafe { $kernel($crate::cpu::arch::Neon::<0>::new(), $($arg),*) }
            }
            use $crate::cpu::arch::Isa;
            if !isa.is_available() {
                return generic;
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2,
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni => avx512,
                #[cfg(target_arch = "aarch64")]
                Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => neon,
                _ => generic,
            }
        }
    };
}

#[cfg(test)]
mod tests;
