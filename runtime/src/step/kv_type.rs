//! How rows of cached keys and values lie in pages. A row is one key or one value of one head.
//!
//! ```text
//! f16, f32   [n]                              n elements
//! q8_0       [n] i8 | [n / 32] f16 | 0..2     element i is q[i] · d[i / 32]
//! ```
//!
//! The scales of a Q8_0 row lie behind its bytes, so that a kernel needs one address a row; rows are filled up to whole
//! words of four bytes, because a GPU writes no less. 64 elements take 68 bytes.

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
