//! A typed view of a tensor's bytes.

use super::Bytes;
use crate::quant::DType;

/// A tensor in a file: element type, shape and bytes. Cloning shares the bytes.
///
/// The shape is written outermost dimension first, so that a weight matrix is `[out, in]` and the last dimension is
/// contiguous ("a row"). GGUF writes it the other way round; the reader has turned it.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Tensor {
    /// A view of `bytes` as `shape` elements of `dtype`; `None` where sizes overflow, blocks do not divide the rows
    /// or the byte count differs from what the shape needs.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Option<Self> {
        (Self::byte_len(dtype, &shape)? == bytes.len()).then_some(Self { dtype, shape, bytes })
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

    /// A view of some rows, all dimensions but the last counted as one: `[rows, row_len]`. Of a vector (one dimension)
    /// it views elements, `[len]`. `None` where the range is not within the tensor, or cuts a vector's blocks.
    pub fn rows_view(&self, range: std::ops::Range<usize>) -> Option<Self> {
        let (row_bytes, shape) = match self.shape.len() {
            0 => return None,
            1 if self.dtype.block_len() == 1 => (self.dtype.block_bytes(), vec![range.len()]),
            1 => return None,
            _ => (self.row_bytes(), vec![range.len(), self.row_len()]),
        };
        let bytes = range.start.checked_mul(row_bytes)?..range.end.checked_mul(row_bytes)?;
        Self::new(self.dtype, shape, self.bytes.slice(bytes)?)
    }

    /// The bytes as what keeps them alive.
    pub fn shared_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// All bytes, rows in order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
