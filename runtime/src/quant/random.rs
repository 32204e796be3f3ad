//! Random blocks of any format, many at a time.

use super::{DType, RowError};

/// Elements that are encoded once; tensors repeat their blocks in random order.
const ELEMENTS: usize = 1 << 14;
/// Elements that are copied together.
const RUN: usize = 256;

/// Encoded random values, from which tensors are filled at about the speed of copying.
pub struct RandomBlocks {
    bytes: Vec<u8>,
    run_bytes: usize,
    block_bytes: usize,
}

impl RandomBlocks {
    /// Values spread evenly between the two of `range`, as `dtype` rounds them; of a format whose scales lie elsewhere, all
    /// of its elements, equally often.
    ///
    /// # Errors
    /// Another format that cannot be written.
    pub fn new(dtype: DType, range: [f32; 2], seed: u64) -> Result<Self, RowError> {
        let mut random = SplitMix(seed);
        let block_bytes = dtype.block_bytes();
        let run_bytes = (RUN / dtype.block_len()).max(1) * block_bytes;
        if dtype.format().encode.is_none() && dtype.format().scales.is_empty() {
            // Blocks that hold no scale: any bits are elements, and as many as there are values.
            let bytes = (0..ELEMENTS / dtype.block_len() * block_bytes).map(|_| random.next() as u8).collect();
            return Ok(Self { bytes, run_bytes, block_bytes });
        }
        let values: Vec<f32> = (0..ELEMENTS).map(|_| range[0] + (range[1] - range[0]) * random.unit()).collect();
        let mut bytes = Vec::new();
        // Blocks of all formats divide the stock.
        dtype.encode_row(&values, &mut bytes)?;
        Ok(Self { bytes, run_bytes, block_bytes })
    }

    /// Fills `out`, whole blocks, with a choice that `seed` decides.
    pub fn fill(&self, seed: u64, out: &mut [u8]) {
        let mut random = SplitMix(seed);
        for run in out.chunks_mut(self.run_bytes) {
            let starts = (self.bytes.len() - run.len()) / self.block_bytes + 1;
            let start = (random.next() % starts as u64) as usize * self.block_bytes;
            run.copy_from_slice(&self.bytes[start..start + run.len()]);
        }
    }
}

/// The splitmix64 generator, Steele et al. 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }
}
