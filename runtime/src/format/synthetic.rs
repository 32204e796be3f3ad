//! Tensors that are made up on request, so that a published model's dimensions can be run without its weights.

use super::{Bytes, FormatError, Tensor};
use crate::quant::{DType, RandomBlocks};
use std::{fmt::Debug, io, num::NonZeroUsize};

/// Supplies tensors that no file holds. A [`super::Checkpoint`] with such a source has a configuration and no files.
pub trait TensorSource: Debug + Send + Sync {
    /// A tensor of that name, the same at every call, in one of `shapes`: the first is the shape in safetensors; a
    /// second, if any, is the shape with a row per output, which files with weights in blocks have.
    ///
    /// # Errors
    /// No memory, or sizes that overflow.
    fn tensor(&self, name: &str, shapes: &[&[usize]]) -> Result<Tensor, FormatError>;

    /// Bytes of a tensor that safetensors call `dtype`, where several such tensors together are one matrix; `None`
    /// where the source has the matrix in another format.
    ///
    /// # Errors
    /// As [`TensorSource::tensor`].
    fn bytes(&self, name: &str, dtype: &str, shape: &[usize]) -> Result<Option<Bytes>, FormatError>;
}

/// Bytes that one seed fills.
const PART: usize = 1 << 20;

impl Tensor {
    /// A tensor of random values spread evenly between the two of `range`, as `dtype` rounds them. Seed and shape
    /// decide its bytes; the number of threads that write them does not. `None` where blocks do not divide the rows,
    /// sizes overflow or the format cannot be written.
    ///
    /// # Errors
    /// No memory.
    pub fn random(
        dtype: DType,
        shape: &[usize],
        range: [f32; 2],
        seed: u64,
        threads: NonZeroUsize,
    ) -> io::Result<Option<Self>> {
        let Some(len) = Self::byte_len(dtype, shape) else { return Ok(None) };
        let Ok(blocks) = RandomBlocks::new(dtype, range, seed) else { return Ok(None) };
        let part = PART / dtype.block_bytes() * dtype.block_bytes();
        let fill = |first: usize, bytes: &mut [u8]| {
            for (i, part) in bytes.chunks_mut(part).enumerate() {
                blocks.fill(seed.wrapping_add((first + i) as u64), part);
            }
        };
        let bytes = Bytes::anonymous(len, |bytes| {
            let parts = bytes.len().div_ceil(part).div_ceil(threads.get());
            if bytes.len() <= part {
                return fill(0, bytes);
            }
            std::thread::scope(|scope| {
                for (i, stretch) in bytes.chunks_mut(parts * part).enumerate() {
                    scope.spawn(move || fill(i * parts, stretch));
                }
            });
        })?;
        Ok(Self::new(dtype, shape.to_vec(), bytes))
    }

    /// A tensor whose memory is reserved and not touched: it reads as zeros and takes no memory.
    ///
    /// # Errors
    /// No address space.
    pub fn untouched(dtype: DType, shape: &[usize]) -> io::Result<Option<Self>> {
        let Some(len) = Self::byte_len(dtype, shape) else { return Ok(None) };
        Ok(Self::new(dtype, shape.to_vec(), Bytes::anonymous(len, |_| {})?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(dtype: DType, shape: &[usize], seed: u64, threads: usize) -> Tensor {
        let threads = NonZeroUsize::new(threads).unwrap();
        Tensor::random(dtype, shape, [-0.5, 0.5], seed, threads).unwrap().unwrap()
    }

    #[test]
    fn values_are_finite_spread_and_of_the_seed() {
        for dtype in DType::ALL {
            let a = random(dtype, &[40, 256], 1, 1);
            let mut values = vec![f32::NAN; 40 * 256];
            dtype.decode_row(a.bytes(), &mut values).unwrap();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
            assert!(mean.abs() < 0.03, "{dtype}: mean {mean}");
            assert!((deviation - 0.5 / 3f32.sqrt()).abs() < 0.03, "{dtype}: deviation {deviation}");
            let error = dtype.format().encode.unwrap().error;
            assert!(values.iter().all(|v| v.abs() < 0.6f32.max(0.5 + 0.5 * error)), "{dtype}");
            assert_eq!(a.bytes(), random(dtype, &[40, 256], 1, 1).bytes(), "{dtype}: same seed");
            assert_ne!(a.bytes(), random(dtype, &[40, 256], 2, 1).bytes(), "{dtype}: another seed");
        }
    }

    #[test]
    fn threads_do_not_change_the_bytes() {
        // Several parts, the last of them not a whole one.
        let shape = [9001, 256];
        let one = random(DType::Q6_K, &shape, 7, 1);
        for threads in [2, 3, 16] {
            assert!(one.bytes() == random(DType::Q6_K, &shape, 7, threads).bytes(), "{threads} threads");
        }
    }

    #[test]
    fn impossible_shapes_are_none() {
        let one = NonZeroUsize::MIN;
        assert!(Tensor::random(DType::Q4_K, &[2, 100], [0.0, 1.0], 0, one).unwrap().is_none());
        assert!(Tensor::untouched(DType::F32, &[usize::MAX, 2]).unwrap().is_none());
        assert_eq!(Tensor::untouched(DType::F32, &[3]).unwrap().unwrap().bytes(), [0; 12]);
    }
}
