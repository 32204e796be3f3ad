//! Activations, and gated activations of an MLP: `out[i] = act(gate[i], up[i])` (Shazeer 2020). One pass, one exponential
//! an element.

use super::by_lanes;
use crate::cpu::arch::Simd;
use crate::graph::Act;
use crate::simd_dispatch;

simd_dispatch!(
    /// `out[i] = act(gate[i], up[i])`; see [`Act`].
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gated_act(act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) = gated_act_impl
);
simd_dispatch!(
    /// `out[i] = act(x[i])`; the gated-only activations as with 1 for `up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn act(act: Act, x: &[f32], out: &mut [f32]) = act_impl
);

#[inline(always)]
fn gated_act_impl<S: Simd>(s: S, act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert!(gate.len() == n && up.len() == n, "gate {}, up {}, out {n}", gate.len(), up.len());
    let (gate, up, out) = (gate.as_ptr(), up.as_ptr(), out.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: i + m <= n, the length of all three.
        unsafe {
            let y = gated(s, act, s.load_partial(gate.add(i), m), s.load_partial(up.add(i), m));
            s.store_partial(out.add(i), m, y);
        }
    });
}

#[inline(always)]
fn act_impl<S: Simd>(s: S, act: Act, x: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert_eq!(x.len(), n);
    let (x, out, one) = (x.as_ptr(), out.as_mut_ptr(), s.splat(1.0));
    by_lanes!(n, i, m => {
        // SAFETY: i + m <= n, the length of both.
        unsafe { s.store_partial(out.add(i), m, gated(s, act, s.load_partial(x.add(i), m), one)) };
    });
}

/// `act(g, u)` for a vector. All vectors of a row take the same branch, so it costs nothing beside the exponential.
#[inline(always)]
fn gated<S: Simd>(s: S, act: Act, g: S::F, u: S::F) -> S::F {
    match act {
        Act::Silu => s.mul(s.mul(g, s.sigmoid(g)), u),
        Act::GeluTanh => s.mul(gelu_tanh(s, g), u),
        Act::Relu => s.mul(s.max(s.zero(), g), u),
        Act::Sigmoid => s.mul(s.sigmoid(g), u),
        Act::Tanh => s.mul(s.tanh(g), u),
        Act::SwigluOss { alpha, limit } => {
            let (g, u) = clamped(s, g, u, limit);
            s.mul(s.mul(s.add(u, s.splat(1.0)), g), s.sigmoid(s.mul(s.splat(alpha), g)))
        }
        Act::SiluClamped { limit } => {
            let (g, u) = clamped(s, g, u, limit);
            s.mul(s.mul(g, s.sigmoid(g)), u)
        }
    }
}

/// `min(g, limit)` and `clamp(u, ±limit)`.
#[inline(always)]
fn clamped<S: Simd>(s: S, g: S::F, u: S::F, limit: f32) -> (S::F, S::F) {
    let (low, high) = (s.splat(-limit), s.splat(limit));
    (s.min(high, g), s.max(low, s.min(high, u)))
}

/// ½ · (1 + tanh(y)) = sigmoid(2y), which needs no case near zero and keeps its digits where tanh nears −1.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    /// 2 · √(2/π)
    const FACTOR: f32 = 1.595_769;
    let inner = s.mul_add(s.mul(s.splat(0.044_715), s.mul(x, x)), x, x);
    s.mul(x, s.sigmoid(s.mul(s.splat(FACTOR), inner)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::arch::Isa;

    #[test]
    fn far_from_zero_the_gate_is_nothing_or_itself() {
        for isa in Isa::available() {
            for act in [Act::Silu, Act::GeluTanh] {
                let mut out = [f32::NAN; 4];
                gated_act(isa)(act, &[-1e4, 1e4, -0.0, 0.0], &[1.0, 2.0, 1.0, 1.0], &mut out);
                assert_eq!(out, [0.0, 2e4, 0.0, 0.0], "{act:?} {}", isa.name());
            }
        }
    }
}
