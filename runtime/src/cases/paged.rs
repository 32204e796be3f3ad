//! Keys and values in shuffled pages, as the CPU's kernels read them, with NaN wherever nothing was cached.

use super::random;
use crate::{
    cpu::ops::attention::KvPages,
    quant::{BlockQ8_0, Encode, f16_to_f32, f32_to_f16},
    step::KvType,
};

/// Geometry of a cache.
#[derive(Clone, Copy, Debug)]
pub struct PagedShape {
    /// How rows are stored.
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
        // All ones are NaN in floats, and in scales.
        let nan = f32::from_bits(u32::MAX);
        let mut memory = vec![nan; shuffle.max(1) * shape.page_bytes() / 4];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
        for entry in first_page * shape.page_entries..len {
            let page = pages[entry / shape.page_entries] as usize * shape.page_bytes();
            for head in 0..shape.heads {
                let row = head * shape.page_entries + entry % shape.page_entries;
                let mut put = |offset: usize, row_of: &[f32]| {
                    let len = shape.kv.row_bytes(row_of.len());
                    store(shape.kv, row_of, &mut bytes[page + offset + row * len..][..len]);
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
        K_OFFSET + self.heads * self.page_entries * self.kv.row_bytes(self.k_dim)
    }

    fn page_bytes(&self) -> usize {
        (self.v_offset() + self.heads * self.page_entries * self.kv.row_bytes(self.v_dim) + 32).next_multiple_of(4)
    }
}

/// Writes a row as a cache holds it, in this machine's order of bytes.
pub fn store(kv: KvType, x: &[f32], row: &mut [u8]) {
    match kv {
        KvType::F16 => {
            x.iter().zip(row.chunks_exact_mut(2)).for_each(|(x, to)| to.copy_from_slice(&f32_to_f16(*x).to_ne_bytes()));
        }
        KvType::F32 => x.iter().zip(row.chunks_exact_mut(4)).for_each(|(x, to)| to.copy_from_slice(&x.to_ne_bytes())),
        KvType::Q8_0 => {
            let (bytes, scales) = row.split_at_mut(x.len());
            let parts = bytes.chunks_exact_mut(32).zip(scales.chunks_exact_mut(2));
            for (x, (bytes, scale)) in x.as_chunks().0.iter().zip(parts) {
                let block = BlockQ8_0::encode(x);
                let finite = x.iter().all(|x| x.is_finite());
                let half = if finite { f32_to_f16(block.d.to_f32()) } else { f32_to_f16(f32::NAN) };
                scale.copy_from_slice(&half.to_ne_bytes());
                bytes.iter_mut().zip(block.qs).for_each(|(byte, q)| *byte = q as u8);
            }
        }
    }
}

/// The elements of a row of `dim`.
pub fn load(kv: KvType, row: &[u8], dim: usize) -> Vec<f32> {
    let half = |at: usize| f16_to_f32(u16::from_ne_bytes([row[at], row[at + 1]]));
    let element = |i: usize| match kv {
        KvType::F16 => half(2 * i),
        KvType::F32 => bytemuck::pod_read_unaligned(&row[4 * i..][..4]),
        KvType::Q8_0 => half(dim + i / 32 * 2) * f32::from(row[i] as i8),
    };
    (0..dim).map(element).collect()
}

/// `rows` rows of `dim` random numbers between ± `size`, as they are once stored.
pub fn stored_rows(kv: KvType, seed: u64, rows: usize, dim: usize, size: f32) -> Vec<f32> {
    let mut x: Vec<f32> = random(seed, rows * dim).into_iter().map(|x| x * size).collect();
    let mut stored = vec![0; kv.row_bytes(dim)];
    for row in x.chunks_exact_mut(dim) {
        store(kv, row, &mut stored);
        row.copy_from_slice(&load(kv, &stored, dim));
    }
    x
}
