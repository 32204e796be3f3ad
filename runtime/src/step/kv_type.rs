//! How rows of cached keys and values lie in pages. A row is one key or one value of one head.
//!
//! ```text
//! f16, f32   [n]                              n elements
//! q8_0       [n] i8 | [n / 32] f16 | 0..2     element i is q[i] · d[i / 32]
//! ```
//!
//! The scales of a Q8_0 row lie behind its bytes, so that a kernel needs one address a row; rows are filled up to whole
//! words of four bytes, because a GPU writes no less. 64 elements take 68 bytes.
//!
//! Keys often have a few channels that are ten or a hundred times as large as the others, and a block's scale follows its
//! largest element. So the keys of attention are changed before they are stored in blocks, in two ways that leave its
//! result as it is: a vector that is the same for all positions is taken from them
//! ([`Plan::key_centres`](crate::graph::Plan::key_centres)), and each block is turned by a Hadamard matrix, which spreads a
//! large element over its block; queries are turned, too (QuaRot, Ashkboos et al. 2024). Keys that are rotated as they are
//! read, and those that hold their values, are stored as they are.

use super::StepError;
use crate::graph::CacheSpec;

/// How cached keys and values are stored. It says nothing of arithmetic: see [`Precision`](crate::Precision).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvType {
    /// IEEE binary16.
    #[default]
    F16,
    /// IEEE binary32.
    F32,
    /// Signed bytes with a scale in binary16 for each 32 of a row: 53 % of the memory of binary16. The numbers of
    /// elements of keys and of values must be multiples of 32. All caches are stored so: latent ones, index keys and
    /// blocks, too. Of the CPU alone so far: GPU backends refuse it.
    Q8_0,
}

/// Elements that share a scale.
pub(crate) const KV_BLOCK: usize = 32;

impl KvType {
    /// Bytes of a row of `n` elements.
    pub const fn row_bytes(self, n: usize) -> usize {
        match self {
            KvType::F16 => 2 * n,
            KvType::F32 => 4 * n,
            KvType::Q8_0 => (n + 2 * n.div_ceil(KV_BLOCK)).next_multiple_of(4),
        }
    }

    /// Whether keys are turned block by block before they are stored. `v_in_k` and `rotated_on_read` are those of the
    /// attention that reads them.
    pub(crate) const fn turns_keys(self, v_in_k: bool, rotated_on_read: bool) -> bool {
        matches!(self, KvType::Q8_0) && !v_in_k && !rotated_on_read
    }

    /// Refuses caches whose rows cannot be stored so.
    pub(crate) fn check(self, caches: &[CacheSpec]) -> Result<(), StepError> {
        let rows = || caches.iter().flat_map(|spec| [spec.head_dim, spec.v_dim]);
        match rows().find(|dim| self == KvType::Q8_0 && !dim.is_multiple_of(KV_BLOCK)) {
            Some(elements) => Err(StepError::CacheRows { elements }),
            None => Ok(()),
        }
    }
}

impl CacheSpec {
    /// Bytes of an entry: the keys and values of all heads.
    pub(crate) const fn entry_bytes(&self, kv: KvType) -> usize {
        self.n_kv_heads * (kv.row_bytes(self.head_dim) + kv.row_bytes(self.stored_v_dim()))
    }
}

/// Turns all blocks of a key: see [`turn_block`].
pub(crate) fn turn_key(key: &mut [f32]) {
    key.as_chunks_mut().0.iter_mut().for_each(turn_block);
}

/// Multiplies a block by the Hadamard matrix of ones and minus ones. Twice makes [`KV_BLOCK`] times the block.
#[inline(always)]
pub(crate) fn turn_block(x: &mut [f32; KV_BLOCK]) {
    let mut half = 1;
    while half < KV_BLOCK {
        for pairs in x.chunks_exact_mut(2 * half) {
            let (a, b) = pairs.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
