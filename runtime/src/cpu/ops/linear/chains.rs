//! How the sums of a row's chains become one: four as (0 + 2) + (1 + 3), and sixteen as four such fours, joined likewise.
//! This is what halving a vector twice does, so vectors that hold chains side by side and loops that go through them one
//! by one give the same bits.

use crate::cpu::{arch::SimdBytes, ops::sums::halved};

/// Chains of a row of floats: element i is in chain i mod 16.
pub(super) const CHAINS: usize = 16;

/// Elements of the longest chain of a row of `k` floats.
pub(super) const fn chain_len(k: usize) -> usize {
    k.div_ceil(CHAINS)
}

/// Place of element `i` of a row of `k` where chains lie one after the other, each with room for the longest.
pub(super) const fn chained(i: usize, k: usize) -> usize {
    i % CHAINS * chain_len(k) + i / CHAINS
}

/// The order in which [`Four`] takes its sums.
pub(super) const ORDER: [usize; 4] = [0, 2, 1, 3];

/// Four sums on their way into one, for R vectors of rows of N tokens.
pub(super) struct Four<F, const R: usize, const N: usize> {
    /// 0 + 2 and 1 + 3.
    pairs: [[[F; R]; N]; 2],
}

impl<F: Copy, const R: usize, const N: usize> Four<F, R, N> {
    /// Without sums.
    #[inline(always)]
    pub fn new<S: SimdBytes<F = F>>(s: S) -> Self {
        Self { pairs: [[[s.zero(); R]; N]; 2] }
    }

    /// Takes sum `i`, in the [`ORDER`].
    #[inline(always)]
    pub fn add<S: SimdBytes<F = F>>(&mut self, s: S, i: usize, sums: [[F; R]; N]) {
        let pair = &mut self.pairs[i % 2];
        *pair = if i < 2 { sums } else { add(s, *pair, sums) };
    }

    /// The one sum.
    #[inline(always)]
    pub fn sum<S: SimdBytes<F = F>>(&self, s: S) -> [[F; R]; N] {
        add(s, self.pairs[0], self.pairs[1])
    }
}

#[inline(always)]
fn add<S: SimdBytes, const R: usize, const N: usize>(s: S, mut a: [[S::F; R]; N], b: [[S::F; R]; N]) -> [[S::F; R]; N] {
    for n in 0..N {
        for r in 0..R {
            a[n][r] = s.add(a[n][r], b[n][r]);
        }
    }
    a
}

/// Joins the four chains of four rows: lane `4·i + r` of the vectors' pieces, one after the other, is chain i of row r.
#[inline(always)]
pub(super) fn join<S: SimdBytes>(s: S, chains: [S::F; 4]) -> [f32; 4] {
    s.reduce_pieces(halved(s, chains))
}

/// Sixteen chains of four rows: element i of a row is in lane i mod 16 of as many vectors as make sixteen lanes.
pub(super) type Sixteen<F> = [[F; 4]; 4];

/// Joins the sixteen chains of four rows.
#[inline(always)]
pub(super) fn join16<S: SimdBytes>(s: S, chains: Sixteen<S::F>) -> [f32; 4] {
    join(s, [s.sum4(chains[0]), s.sum4(chains[1]), s.sum4(chains[2]), s.sum4(chains[3])])
}
