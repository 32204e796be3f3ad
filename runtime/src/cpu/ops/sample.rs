//! The greatest logit on the CPU. The engine samples with temperature and the like.

use crate::cpu::arch::Simd;
use crate::simd_dispatch;

/// Elements whose maximum is taken at once: few enough that a second search of one block costs little.
const BLOCK: usize = 1024;

simd_dispatch!(
    /// The index of the greatest element, the first of equals. NaN never wins; `None` where all are NaN or there are
    /// none.
    pub fn argmax(x: &[f32]) -> Option<usize> = argmax_impl
);

#[inline(always)]
fn argmax_impl<S: Simd>(s: S, x: &[f32]) -> Option<usize> {
    let (mut best, mut best_block) = (f32::NEG_INFINITY, None);
    for (index, block) in x.chunks(BLOCK).enumerate() {
        // Four independent chains: with one, the latency of compare and select would bound the speed.
        let mut tops = [s.splat(f32::NEG_INFINITY); 4];
        let strides = block.chunks_exact(4 * S::LANES);
        let rest = strides.remainder();
        for stride in strides {
            for (j, top) in tops.iter_mut().enumerate() {
                // SAFETY: vector j of the four in the stride.
                let v = unsafe { s.load(stride.as_ptr().add(j * S::LANES)) };
                *top = s.select(s.gt(v, *top), v, *top);
            }
        }
        let mut max = rest.iter().fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max });
        for top in tops {
            max = max.max(s.reduce_max(top));
        }
        if max > best {
            (best, best_block) = (max, Some(index));
        }
    }
    match best_block {
        Some(block) => {
            let start = block * BLOCK;
            x[start..].iter().position(|&v| v == best).map(|i| start + i)
        }
        None => x.iter().position(|v| !v.is_nan()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::argmax::argmaxes;
    use crate::cpu::arch::Isa;

    #[test]
    fn argmax_takes_the_first_of_equals_and_never_nan() {
        for case in argmaxes() {
            for (i, (logits, best)) in case.rows.iter().enumerate() {
                for isa in Isa::available() {
                    assert_eq!(argmax(isa)(logits), *best, "{} row {i} of {}", isa.name(), case.n);
                }
            }
        }
    }
}
