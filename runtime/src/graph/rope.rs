//! Rotary position embedding: which pairs of a head's dimensions rotate, and how fast.

/// Which two elements of a head form a rotated pair; `r` is the number of rotary dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// `(x[j], x[j + r/2])`, the layout of most safetensors checkpoints ("NEOX").
    Half,
    /// `(x[2j], x[2j + 1])`, the original layout; GGUF files of the llama architecture are permuted to it.
    Interleaved,
}

/// Rotation speeds of the pairs: angle of pair `j` at position `p` is `p * inv_freq[j]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeFreqs {
    /// The same at every length. `r/2` values.
    Fixed(Vec<f32>),
    /// Dynamic NTK scaling: once the sequence is longer than `max_position`, theta grows with its length, so that every
    /// step turns all keys anew. Such keys are cached un-rotated.
    Dynamic {
        /// Base of the frequencies at lengths up to `max_position`.
        theta: f64,
        /// Scaling factor.
        factor: f64,
        /// Length up to which the plain frequencies hold.
        max_position: usize,
    },
    /// One of two sets, by the sequence's length (longrope; Ding et al. 2024). Keys are cached un-rotated, because all
    /// of a sequence turns by the other set once it has grown.
    ByLength {
        /// `r/2` values for up to `original` tokens.
        short: Vec<f32>,
        /// `r/2` values for more.
        long: Vec<f32>,
        /// The longest sequence that `short` is for.
        original: usize,
        /// The factor on cos and sin that goes with `long`; that of `short` is [`RopeSpec::attention_factor`].
        long_attention_factor: f32,
    },
}

/// One way of rotating, shared by the layers that use it.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Pair layout.
    pub layout: RopeLayout,
    /// Rotated dimensions of each head.
    pub rotary_dims: usize,
    /// The first of them: 0, except where a head's last dimensions turn (DeepSeek-V4).
    pub first_dim: usize,
    /// Rotation speeds.
    pub freqs: RopeFreqs,
    /// Factor on both cos and sin (1, except for yarn and longrope); see [`RopeSpec::factor`].
    pub attention_factor: f32,
    /// Positions by which rows turn less than their own: a block's row comes with the block's last token and turns by
    /// the position of its first.
    pub back: usize,
}

impl RopeSpec {
    /// Rotation of the first `rotary_dims` dimensions of each head by `freqs`.
    pub fn new(layout: RopeLayout, rotary_dims: usize, freqs: RopeFreqs) -> Self {
        Self { layout, rotary_dims, first_dim: 0, freqs, attention_factor: 1.0, back: 0 }
    }

    /// The rotation the other way round, for frequencies that do not depend on the length; the factor on cos and sin
    /// stays. `None` for the others.
    pub fn inverse(&self) -> Option<Self> {
        match &self.freqs {
            RopeFreqs::Fixed(f) => {
                Some(Self { freqs: RopeFreqs::Fixed(f.iter().map(|f| -f).collect()), ..self.clone() })
            }
            _ => None,
        }
    }

    /// The factor on cos and sin for a sequence of `len` tokens.
    pub fn factor(&self, len: usize) -> f32 {
        match self.freqs {
            RopeFreqs::ByLength { original, long_attention_factor, .. } if len > original => long_attention_factor,
            _ => self.attention_factor,
        }
    }

    /// Whether the frequencies change with the sequence's length, so that cached keys must stay un-rotated.
    pub fn length_dependent(&self) -> bool {
        !matches!(self.freqs, RopeFreqs::Fixed(_))
    }

    /// The least length at which a sequence turns as one of `len` tokens does: frequencies and factor are the same.
    pub fn regime(&self, len: usize) -> usize {
        match self.freqs {
            RopeFreqs::ByLength { original, .. } if len > original => original + 1,
            RopeFreqs::Dynamic { max_position, .. } if len > max_position => len,
            _ => 0,
        }
    }

    /// The `rotary_dims / 2` rotation speeds for a sequence of `len` tokens.
    pub fn inv_freq(&self, len: usize) -> Vec<f32> {
        match &self.freqs {
            RopeFreqs::Fixed(f) => f.clone(),
            RopeFreqs::ByLength { short, long, original, .. } => if len > *original { long } else { short }.clone(),
            RopeFreqs::Dynamic { theta, factor, max_position } => {
                let r = self.rotary_dims as f64;
                let theta = if len > *max_position {
                    let stretch = *factor as f32 * len as f32 / *max_position as f32 - (factor - 1.0) as f32;
                    f64::from(*theta as f32 * f64::from(stretch).powf(r / (r - 2.0)) as f32)
                } else {
                    *theta
                };
                Self::base_inv_freq(theta, self.rotary_dims)
            }
        }
    }

    /// `theta^(-2j/r)` for `j < r/2`, as the inverses of [`RopeSpec::powers`].
    pub fn base_inv_freq(theta: f64, rotary_dims: usize) -> Vec<f32> {
        Self::powers(theta, rotary_dims).into_iter().map(|p| 1.0 / p).collect()
    }

    /// `theta^(2j/r)` for `j < r/2`. Exponents and powers are rounded to floats as in the models' own code: hundreds of
    /// positions on, the angles of sharper ones would differ visibly from those that models were trained with.
    pub fn powers(theta: f64, rotary_dims: usize) -> Vec<f32> {
        let exponent = |j: usize| (2 * j) as f32 / rotary_dims as f32;
        (0..rotary_dims / 2).map(|j| theta.powf(f64::from(exponent(j))) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_a_regime_turn_alike() {
        let long = RopeFreqs::ByLength {
            short: vec![1.0, 0.5],
            long: vec![0.25, 0.125],
            original: 16,
            long_attention_factor: 2.0,
        };
        let dynamic = RopeFreqs::Dynamic { theta: 100.0, factor: 2.0, max_position: 16 };
        for (freqs, regimes) in [(RopeFreqs::Fixed(vec![1.0, 0.5]), 1), (long, 2), (dynamic, 1 + 24)] {
            let spec = RopeSpec::new(RopeLayout::Half, 4, freqs);
            let mut seen = Vec::new();
            for len in 0..=40 {
                let regime = spec.regime(len);
                assert!(regime <= len && spec.regime(regime) == regime);
                assert_eq!(
                    (spec.inv_freq(regime), spec.factor(regime)),
                    (spec.inv_freq(len), spec.factor(len)),
                    "{len}"
                );
                seen.push(regime);
            }
            seen.dedup();
            assert_eq!(seen.len(), regimes);
        }
    }
}
