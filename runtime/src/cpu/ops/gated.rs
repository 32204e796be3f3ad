//! Gated activations of an MLP: `out[i] = act(gate[i]) * up[i]` (Shazeer 2020). One pass, one exponential an element.

use super::by_lanes;
use crate::cpu::arch::Simd;
use crate::graph::Act;
use crate::simd_dispatch;

simd_dispatch!(
    /// `out[i] = act(gate[i]) * up[i]`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gated_act(act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) = gated_act_impl
);

#[inline(always)]
fn gated_act_impl<S: Simd>(s: S, act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert!(gate.len() == n && up.len() == n, "gate {}, up {}, out {n}", gate.len(), up.len());
    let (gate, up, out) = (gate.as_ptr(), up.as_ptr(), out.as_mut_ptr());
    match act {
        Act::Silu => by_lanes!(n, i, m => {
            // SAFETY: i + m <= n, the length of all three.
            unsafe {
                let g = s.load_partial(gate.add(i), m);
                s.store_partial(out.add(i), m, s.mul(s.mul(g, s.sigmoid(g)), s.load_partial(up.add(i), m)));
            }
        }),
        Act::GeluTanh => by_lanes!(n, i, m => {
            // SAFETY: as above.
            unsafe {
                let g = gelu_tanh(s, s.load_partial(gate.add(i), m));
                s.store_partial(out.add(i), m, s.mul(g, s.load_partial(up.add(i), m)));
            }
        }),
    }
}

/// ½ · (1 + tanh(y)) = sigmoid(2y), which needs neither a case near zero nor loses digits where tanh nears −1.
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
    use crate::cpu::ops::testing::{LENGTHS, random, relative_error};

    fn reference(act: Act, gate: f32, up: f32) -> f64 {
        let (x, up) = (f64::from(gate), f64::from(up));
        up * match act {
            Act::Silu => x / (1.0 + (-x).exp()),
            Act::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }

    #[test]
    fn gated_activations_match_f64() {
        for isa in Isa::available() {
            for act in [Act::Silu, Act::GeluTanh] {
                for n in LENGTHS {
                    let gate: Vec<f32> = random(1, n).iter().map(|x| x * 8.0).collect();
                    let up = random(2, n);
                    let mut out = vec![f32::NAN; n];
                    gated_act(isa)(act, &gate, &up, &mut out);
                    let expected: Vec<f64> = gate.iter().zip(&up).map(|(&g, &u)| reference(act, g, u)).collect();
                    let error = relative_error(&out, &expected);
                    assert!(error < 1e-6, "{act:?} {} n={n}: {error:e}", isa.name());
                }
            }
        }
    }

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
