//! A typed view of a tensor's bytes.

use std::ops::Range;

use super::Bytes;
use crate::quant::DType;

/// Storage of scales that are kept apart from their elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScaleType {
    /// One byte e, which stands for 2^(e − 127) (E8M0; 255 is NaN).
    E8M0,
    /// binary32.
    F32,
}

impl ScaleType {
    /// Bytes of a scale.
    pub const fn bytes(self) -> usize {
        match self {
            ScaleType::E8M0 => 1,
            ScaleType::F32 => 4,
        }
    }
}

/// Factors on a tensor's elements that the file keeps in a tensor of their own: one for every block of `block[0]` rows
/// by `block[1]` elements. The last blocks may be partly empty.
#[derive(Clone, Debug)]
pub struct Scales {
    /// Type of a scale.
    pub dtype: ScaleType,
    /// Rows, and elements of a row, that share a scale.
    pub block: [usize; 2],
    /// Rows of the first block that lie before the tensor's first row: a view may begin within a block.
    pub first_row: usize,
    /// Rows of scales, each `ceil(row length / block[1])` long.
    pub bytes: Bytes,
}

impl Scales {
    /// Bytes of the scales of one row of `len` elements.
    pub fn row_bytes(&self, len: usize) -> usize {
        len.div_ceil(self.block[1].max(1)) * self.dtype.bytes()
    }

    /// Bytes that `rows` rows of `len` elements need, if there is no overflow.
    fn needed(&self, rows: usize, len: usize) -> Option<usize> {
        if self.block.contains(&0) {
            return None;
        }
        self.first_row.checked_add(rows)?.div_ceil(self.block[0]).checked_mul(self.row_bytes(len))
    }

    /// The factor of element `i` of row `row` in rows of `len`; 1 where there is no such element.
    pub fn at(&self, row: usize, i: usize, len: usize) -> f32 {
        let size = self.dtype.bytes();
        let at = (self.first_row + row) / self.block[0].max(1) * self.row_bytes(len) + i / self.block[1].max(1) * size;
        match (self.dtype, self.bytes.get(at..at + size)) {
            (ScaleType::E8M0, Some(&[e])) => e8m0_to_f32(e),
            (ScaleType::F32, Some(&[a, b, c, d])) => f32::from_le_bytes([a, b, c, d]),
            _ => 1.0,
        }
    }

    /// The scales of rows `rows` of elements.
    fn rows(&self, rows: &Range<usize>, len: usize) -> Option<Self> {
        let (from, to) = (self.first_row + rows.start, self.first_row + rows.end);
        let row = self.row_bytes(len);
        let bytes = self.bytes.slice(from / self.block[0] * row..to.div_ceil(self.block[0]) * row)?;
        Some(Self { first_row: from % self.block[0], bytes, ..self.clone() })
    }
}

/// 2^(e − 127); NaN for 255.
pub(super) fn e8m0_to_f32(e: u8) -> f32 {
    match e {
        // The result is subnormal.
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(e) << 23),
    }
}

/// A tensor in a file: element type, shape and bytes. Cloning shares the bytes.
///
/// The shape is written outermost dimension first, so that a weight matrix is `[out, in]` and the last dimension is
/// contiguous ("a row"). GGUF has the opposite order; its reader reverses it.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
    scales: Option<Scales>,
}

impl Tensor {
    /// A view of `bytes` as `shape` elements of `dtype`; `None` where sizes overflow, blocks do not divide the rows
    /// or the byte count differs from what the shape needs.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Option<Self> {
        (Self::byte_len(dtype, &shape)? == bytes.len()).then_some(Self { dtype, shape, bytes, scales: None })
    }

    /// Bytes that a tensor of `dtype` and `shape` takes; `None` on overflow or where blocks do not divide the rows.
    pub fn byte_len(dtype: DType, shape: &[usize]) -> Option<usize> {
        let (row, outer) = shape.split_last().map_or((1, &[][..]), |(r, o)| (*r, o));
        let rows = outer.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        dtype.row_bytes(row)?.checked_mul(rows)
    }

    /// A tensor of f32 values on the heap.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Option<Self> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::F32, shape, Bytes::heap(bytes))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements in a row (the last dimension; 1 for a scalar).
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        // `new` has checked that blocks divide the row.
        self.row_len() / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// All bytes, including those of scales that are kept apart.
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len() + self.scales.as_ref().map_or(0, |s| s.bytes.len())
    }

    /// A view of some rows, where all dimensions but the last count as one: `[rows, row_len]`. Of a vector (one
    /// dimension) it views elements, `[len]`. `None` where the range is not within the tensor, or cuts a vector's
    /// blocks.
    pub fn rows_view(&self, range: Range<usize>) -> Option<Self> {
        match self.shape.len() {
            1 if self.dtype.block_len() == 1 && self.scales.is_none() => {
                let one = self.dtype.block_bytes();
                let bytes = range.start.checked_mul(one)?..range.end.checked_mul(one)?;
                Self::new(self.dtype, vec![range.len()], self.bytes.slice(bytes)?)
            }
            0 | 1 => None,
            _ if range.start > range.end || range.end > self.rows() => None,
            _ => self.view(range.clone(), vec![range.len(), self.row_len()]),
        }
    }

    /// All elements as one vector; `None` where blocks of rows, or scales, forbid it.
    pub fn flat(&self) -> Option<Self> {
        let whole = self.dtype.block_len() == 1 && self.scales.is_none();
        let elements = self.shape.iter().product();
        whole.then(|| Self::new(self.dtype, vec![elements], self.bytes.clone())).flatten()
    }

    /// The bytes with the memory that they keep alive.
    pub fn shared_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// All bytes, rows in order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same elements, multiplied by `scales`; `None` where the number of scales does not fit the rows.
    pub fn with_scales(mut self, scales: Scales) -> Option<Self> {
        if scales.needed(self.rows(), self.row_len())? != scales.bytes.len() {
            return None;
        }
        self.scales = Some(scales);
        Some(self)
    }

    /// Decodes row `row`, scales included, into `out`, which has the row's length. Leaves `out` alone where there is no
    /// such row or its length differs.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        let size = self.row_bytes();
        let decoded =
            self.bytes.get(row * size..(row + 1) * size).is_some_and(|b| self.dtype.decode_row(b, out).is_ok());
        if let (true, Some(scales)) = (decoded, &self.scales) {
            let len = out.len();
            out.iter_mut().enumerate().for_each(|(i, v)| *v *= scales.at(row, i, len));
        }
    }

    /// The factors that the file keeps apart from the elements, where it has such.
    pub fn scales(&self) -> Option<&Scales> {
        self.scales.as_ref()
    }

    /// Part `index` of the first dimension, with the shape of the others: one expert's matrix of a stack. `None` where
    /// there is no such part.
    pub fn part(&self, index: usize) -> Option<Self> {
        let (outer, shape) = self.shape.split_first().filter(|(_, rest)| !rest.is_empty())?;
        let rows = self.rows().checked_div(*outer)?;
        if index >= *outer {
            return None;
        }
        self.view(index * rows..(index + 1) * rows, shape.to_vec())
    }

    /// Rows `rows` (of all dimensions but the last) as a tensor of `shape`; `None` where that does not fit.
    fn view(&self, rows: Range<usize>, shape: Vec<usize>) -> Option<Self> {
        let bytes = self.bytes.slice(rows.start * self.row_bytes()..rows.end * self.row_bytes())?;
        let view = Self::new(self.dtype, shape, bytes)?;
        match &self.scales {
            None => Some(view),
            Some(scales) => view.with_scales(scales.rows(&rows, self.row_len())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_their_scales() {
        let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let whole = Tensor::from_f32(vec![3, 2, 4], &values).unwrap();
        let scales = |block, first_row, n: usize| Scales {
            dtype: ScaleType::E8M0,
            block,
            first_row,
            bytes: Bytes::heap((0..n as u8).collect()),
        };
        assert!(whole.clone().with_scales(scales([1, 2], 0, 11)).is_none());
        assert!(whole.clone().with_scales(scales([0, 2], 0, 0)).is_none());
        let whole = whole.with_scales(scales([4, 3], 0, 4)).unwrap();
        let part = whole.part(1).unwrap();
        assert_eq!((part.shape(), part.rows()), (&[2, 4][..], 2));
        assert_eq!(part.bytes(), &whole.bytes()[32..64]);
        let part = part.scales().unwrap();
        assert_eq!((part.first_row, &part.bytes[..]), (2, &[0, 1][..]));
        let last = whole.part(2).unwrap();
        assert_eq!((last.scales().unwrap().first_row, &last.scales().unwrap().bytes[..]), (0, &[2, 3][..]));
        assert!(whole.part(3).is_none());
    }
}
