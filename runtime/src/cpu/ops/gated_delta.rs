//! The gated delta rule for some columns of one head's state; see [`GatedDeltaOp`] for the
//! recurrence.
//!
//! The columns of a state are independent: given q, k and the token's gates, column `c` needs `v[c]` only. So a head's
//! state is cut into blocks of [`BLOCK`] columns that lie one after the other, each `[k_dim][columns]`, and one block
//! (16 KiB for 128 rows) goes through all tokens of a step while it stays in the first-level cache. q and k stay
//! un-normalised in memory: the sums are multiplied by their norms.
//!
//! With `s` a row of the state, one pass over a block does both the update for a token and the products for the next,
//! 4 flops an element each; a single token takes two passes, of which only the first waits for memory. Bytes: 8 an
//! element of the state and step.

use super::sums;
use crate::cpu::arch::Simd;
use crate::graph::GatedDeltaOp;
use crate::simd_dispatch;

/// Columns of a block.
pub const BLOCK: usize = 32;

/// A block of columns of one head of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct GatedDeltaItem {
    /// Rows of the state: elements of q and k.
    pub k_dim: usize,
    /// Columns, at most [`BLOCK`].
    pub n_columns: usize,
    /// New tokens, at least one.
    pub n_tokens: usize,
    /// The head's q, k and the block's part of v, by token.
    pub q: *const f32,
    /// As `q`.
    pub k: *const f32,
    /// As `q`.
    pub v: *const f32,
    /// Elements from one token's q, k or v to the next.
    pub stride: usize,
    /// The head's b and a, by token.
    pub b: *const f32,
    /// As `b`.
    pub a: *const f32,
    /// Elements from one token's b to the next.
    pub b_stride: usize,
    /// Elements from one token's a to the next.
    pub a_stride: usize,
    /// Factor on the softplus, below zero. The product is the logarithm of the share of the state that a token keeps.
    pub decay: f32,
    /// Added to a.
    pub dt_bias: f32,
    /// The block before the first token, or null where it is zero.
    pub from: *const f32,
    /// The block after the last token; may be `from`.
    pub to: *mut f32,
    /// The block's part of the results, by token.
    pub out: *mut f32,
    /// Elements from one token's results to the next.
    pub out_stride: usize,
}

simd_dispatch!(
    /// Runs the block through all tokens.
    ///
    /// # Safety
    /// The item's pointers must be valid for the rows that they are documented to have; nobody else uses what is
    /// written.
    pub unsafe fn gated_delta(item: &GatedDeltaItem) = gated_delta_impl
);

/// Vectors of a strip: sums with k and with q stay in registers.
const STRIP: usize = 2;

#[inline(always)]
unsafe fn gated_delta_impl<S: Simd>(s: S, item: &GatedDeltaItem) {
    // SAFETY: the caller's promise; strips end at the last column.
    unsafe {
        if item.from.is_null() {
            std::ptr::write_bytes(item.to, 0, item.k_dim * item.n_columns);
        }
        let mut c = 0;
        while c + STRIP * S::LANES <= item.n_columns {
            strip::<S, STRIP>(s, item, c, S::LANES);
            c += STRIP * S::LANES;
        }
        while c < item.n_columns {
            strip::<S, 1>(s, item, c, S::LANES.min(item.n_columns - c));
            c += S::LANES;
        }
    }
}

/// A token's effect on a state, the same in all columns.
#[derive(Clone, Copy, Default)]
struct Gates {
    /// Factor on the old state.
    keep: f32,
    /// Factor on the new value.
    write: f32,
    /// 1 / norm of k, and of q with its scale.
    k: f32,
    q: f32,
    /// Normalised k · q.
    kq: f32,
}

/// # Safety
/// As [`gated_delta`]; `t` is one of the item's tokens.
#[inline(always)]
unsafe fn gates<S: Simd>(s: S, item: &GatedDeltaItem, t: usize) -> Gates {
    // SAFETY: `k_dim` elements of the token's q and k, and its b and a.
    let ([kk, qq, kq], b, a) = unsafe {
        let (n, k, q) = (item.k_dim, item.k.add(t * item.stride), item.q.add(t * item.stride));
        let products = [sums::dot(s, n, k, k), sums::dot(s, n, q, q), sums::dot(s, n, k, q)];
        (products, *item.b.add(t * item.b_stride), *item.a.add(t * item.a_stride) + item.dt_bias)
    };
    let inverse = |sum: f32| 1.0 / (sum + GatedDeltaOp::EPS).sqrt();
    let (k, q) = (inverse(kk), inverse(qq) / (item.k_dim as f32).sqrt());
    // ln(1 + eᵃ), which neither overflows nor loses small values.
    let softplus = a.max(0.0) + (-a.abs()).exp().ln_1p();
    Gates { keep: (item.decay * softplus).exp(), write: 1.0 / (1.0 + (-b).exp()), k, q, kq: kq * k * q }
}

/// `N` vectors of columns from `c` on. `m` lanes of the last one are in use (all of them unless `N` is 1).
///
/// # Safety
/// As [`gated_delta`].
#[inline(always)]
unsafe fn strip<S: Simd, const N: usize>(s: S, item: &GatedDeltaItem, c: usize, m: usize) {
    let GatedDeltaItem { k_dim, n_columns, n_tokens, stride, .. } = *item;
    let mut from = if item.from.is_null() { item.to.cast_const() } else { item.from };
    // Sᵀk and Sᵀq of the state in memory, with k and q of the next token.
    let (mut sk, mut sq) = ([s.zero(); N], [s.zero(); N]);
    // SAFETY: the caller's promise. A row of the state is read before it is written.
    unsafe {
        for i in 0..k_dim {
            let (k, q) = (s.splat(*item.k.add(i)), s.splat(*item.q.add(i)));
            for n in 0..N {
                let row = s.load_partial(from.add(i * n_columns + c + n * S::LANES), m);
                sk[n] = s.mul_add(row, k, sk[n]);
                sq[n] = s.mul_add(row, q, sq[n]);
            }
        }
        for t in 0..n_tokens {
            let g = gates(s, item, t);
            let (keep, write) = (s.splat(g.keep), s.splat(g.write));
            let (k_factor, q_factor, kq) = (s.splat(g.keep * g.k), s.splat(g.keep * g.q), s.splat(g.kq));
            let mut delta = [s.zero(); N];
            for n in 0..N {
                let v = s.load_partial(item.v.add(t * stride + c + n * S::LANES), m);
                let d = s.mul(write, s.sub(v, s.mul(k_factor, sk[n])));
                let out = s.mul_add(d, kq, s.mul(q_factor, sq[n]));
                s.store_partial(item.out.add(t * item.out_stride + c + n * S::LANES), m, out);
                // k is un-normalised in memory, so its norm goes here.
                delta[n] = s.mul(d, s.splat(g.k));
            }
            (sk, sq) = ([s.zero(); N], [s.zero(); N]);
            let k = item.k.add(t * stride);
            if t + 1 < n_tokens {
                let (next_k, next_q) = (item.k.add((t + 1) * stride), item.q.add((t + 1) * stride));
                for i in 0..k_dim {
                    let ki = s.splat(*k.add(i));
                    let (nk, nq) = (s.splat(*next_k.add(i)), s.splat(*next_q.add(i)));
                    for n in 0..N {
                        let at = i * n_columns + c + n * S::LANES;
                        let row = s.mul_add(ki, delta[n], s.mul(keep, s.load_partial(from.add(at), m)));
                        s.store_partial(item.to.add(at), m, row);
                        sk[n] = s.mul_add(row, nk, sk[n]);
                        sq[n] = s.mul_add(row, nq, sq[n]);
                    }
                }
            } else {
                for i in 0..k_dim {
                    let ki = s.splat(*k.add(i));
                    for (n, delta) in delta.into_iter().enumerate() {
                        let at = i * n_columns + c + n * S::LANES;
                        let row = s.mul_add(ki, delta, s.mul(keep, s.load_partial(from.add(at), m)));
                        s.store_partial(item.to.add(at), m, row);
                    }
                }
            }
            from = item.to;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        cases::{
            recurrent::{Before, GatedDeltaCase, GatedDeltaInputs, gated_deltas},
            relative_error, wide,
        },
        cpu::{arch::Isa, ops::op_kernels},
    };

    /// Results, and the state behind them as the kernels have it.
    fn run(case: &GatedDeltaCase, isa: Isa, x: &GatedDeltaInputs, parts: &[usize]) -> [Vec<f32>; 2] {
        let tokens: usize = parts.iter().sum();
        let mut out = vec![f32::NAN; tokens * case.widths()[2]];
        let [mut first, mut second] = [(); 2].map(|()| vec![f32::NAN; case.state_len()]);
        let mut t = 0;
        for (i, n) in parts.iter().enumerate() {
            let (from, to) = match i {
                0 => (Before::Zero, &mut first),
                1 => (Before::State(&first), &mut second),
                // In place from the third part on.
                _ => (Before::InPlace, &mut second),
            };
            case.run(op_kernels(isa), x, t..t + n, from, to, &mut out);
            t += n;
        }
        [out, if parts.len() == 1 { first } else { second }]
    }

    #[test]
    fn any_cut_of_the_tokens_matches_f64() {
        const TOKENS: usize = 40;
        for case in gated_deltas() {
            let (x, [qkv, heads, _]) = (case.inputs(TOKENS), case.widths());
            let mut state = vec![0.0; case.state_len()];
            let token = |t: usize| {
                let part = |x: &[f32], width: usize| wide(&x[t * width..][..width]);
                case.reference(&mut state, &part(&x.qkv, qkv), &part(&x.b, heads), &part(&x.a, heads))
            };
            let expected: Vec<f64> = (0..TOKENS).flat_map(token).collect();
            for isa in Isa::available() {
                let whole = run(&case, isa, &x, &[TOKENS]);
                for (what, got, expected) in
                    [("results", &whole[0], &expected), ("state", &case.plain_state(&whole[1]), &state)]
                {
                    let error = relative_error(got, expected);
                    assert!(error < 3e-6, "{what}, {} {}: {error:e}", isa.name(), case.name());
                }
                for parts in [vec![1; TOKENS], vec![3, 1, 30, 6]] {
                    assert_eq!(run(&case, isa, &x, &parts), whole, "{} {}, {parts:?}", isa.name(), case.name());
                }
            }
        }
    }
}
