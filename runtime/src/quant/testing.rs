//! Random blocks for the tests of kernels.

use super::{DType, Scale, f32_to_f16};

/// A small generator (xorshift*): tests must not depend on a crate's stream.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Between −1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// `n` random elements in `dtype`, of plausible size in every format: floats between −1 and 1, or blocks of random bits
/// whose scales are as declared. Some of these come out subnormal.
pub(crate) fn random_weights(random: &mut Random, dtype: DType, n: usize) -> Vec<u8> {
    if dtype.is_float() {
        let values: Vec<f32> = (0..n).map(|_| random.float()).collect();
        let mut bytes = Vec::new();
        dtype.encode_row(&values, &mut bytes).unwrap();
        return bytes;
    }
    let mut bytes: Vec<u8> = (0..dtype.row_bytes(n).unwrap()).map(|_| (random.bits() >> 33) as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for scale in dtype.format().scales {
            match *scale {
                Scale::Half { at, size } => {
                    block[at..at + 2].copy_from_slice(&f32_to_f16(random.float() * size).to_le_bytes());
                }
                Scale::Exponent { at, least } => block[at] = least + block[at] % 8,
            }
        }
    }
    bytes
}
