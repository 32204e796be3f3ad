//! Keys and values in shuffled pages, as the CPU's kernels read them, with NaN wherever nothing was cached.

use super::random;
use crate::{
    cpu::ops::attention::KvPages,
    quant::{f16_to_f32, f32_to_f16},
    step::KvType,
};

/// Geometry of a cache.
#[derive(Clone, Copy, Debug)]
pub struct PagedShape {
    /// How elements are stored.
    pub kv: KvType,
    /// Entries of a page.
    pub page_entries: usize,
    /// Cached heads.
    pub heads: usize,
    /// Elements of a key.
    pub k_dim: usize,
    /// Elements of a value; 0 where there are none of their own.
    pub v_dim: usize,
}

/// A cache of one layer with the entries of one sequence.
#[derive(Clone, Debug)]
pub struct Paged {
    shape: PagedShape,
    /// Floats, so that elements are aligned.
    memory: Vec<f32>,
    pages: Vec<u32>,
    first_page: usize,
    len: usize,
}

/// Bytes of a page before its keys.
const K_OFFSET: usize = 64;

impl Paged {
    /// A cache of `len` entries whose pages before that of entry `first` were dropped. `key` and `value` give those of a
    /// head and entry.
    pub fn new<'a>(
        shape: PagedShape,
        len: usize,
        first: usize,
        key: impl Fn(usize, usize) -> &'a [f32],
        value: impl Fn(usize, usize) -> &'a [f32],
    ) -> Self {
        let n_pages = len.div_ceil(shape.page_entries);
        // 7 has an inverse modulo this, so no two are the same.
        let shuffle = n_pages + usize::from(n_pages.is_multiple_of(7));
        let pages: Vec<u32> = (0..n_pages).map(|i| ((i * 7 + 3) % shuffle) as u32).collect();
        let first_page = first / shape.page_entries;
        // All ones are NaN in both formats.
        let nan = f32::from_bits(u32::MAX);
        let mut memory = vec![nan; shuffle.max(1) * shape.page_bytes() / 4];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
        for entry in first_page * shape.page_entries..len {
            let page = pages[entry / shape.page_entries] as usize * shape.page_bytes();
            for head in 0..shape.heads {
                let row = head * shape.page_entries + entry % shape.page_entries;
                let mut put = |offset: usize, row_of: &[f32]| {
                    for (i, x) in row_of.iter().enumerate() {
                        let at = page + offset + (row * row_of.len() + i) * shape.kv.bytes();
                        match shape.kv {
                            KvType::F16 => bytes[at..at + 2].copy_from_slice(&f32_to_f16(*x).to_ne_bytes()),
                            KvType::F32 => bytes[at..at + 4].copy_from_slice(&x.to_ne_bytes()),
                        }
                    }
                };
                put(K_OFFSET, &key(head, entry)[..shape.k_dim]);
                if shape.v_dim > 0 {
                    put(shape.v_offset(), &value(head, entry)[..shape.v_dim]);
                }
            }
        }
        Self { shape, memory, pages: pages[first_page.min(n_pages)..].to_vec(), first_page, len }
    }

    /// The first `len` entries, as kernels read them.
    pub fn view(&self, len: usize) -> KvPages<'_> {
        KvPages {
            base: self.memory.as_ptr().cast(),
            pages: &self.pages,
            page_bytes: self.shape.page_bytes(),
            page_tokens: self.shape.page_entries,
            k_offset: K_OFFSET,
            v_offset: if self.shape.v_dim > 0 { self.shape.v_offset() } else { K_OFFSET },
            kv: self.shape.kv,
            first_page: self.first_page,
            len: len.min(self.len),
        }
    }
}

impl PagedShape {
    fn v_offset(&self) -> usize {
        K_OFFSET + self.heads * self.page_entries * self.k_dim * self.kv.bytes()
    }

    fn page_bytes(&self) -> usize {
        (self.v_offset() + self.heads * self.page_entries * self.v_dim * self.kv.bytes() + 32).next_multiple_of(4)
    }
}

/// `x` rounded to the stored type.
pub fn stored(kv: KvType, x: f32) -> f32 {
    match kv {
        KvType::F16 => f16_to_f32(f32_to_f16(x)),
        KvType::F32 => x,
    }
}

/// `rows` rows of `dim` random numbers between ± `size`, as they are once stored.
pub fn stored_rows(kv: KvType, seed: u64, rows: usize, dim: usize, size: f32) -> Vec<f32> {
    random(seed, rows * dim).into_iter().map(|x| stored(kv, x * size)).collect()
}
