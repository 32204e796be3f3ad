//! Bindings that show weights.

use super::Lowering;
use crate::{
    gpu::{GpuError, exec::arena::Source},
    graph::WeightId,
};

/// Rows of a weight that one binding shows.
pub(super) struct Window {
    pub rows: std::ops::Range<u32>,
    /// First byte of the first row in the binding.
    pub byte: u64,
    pub source: Source,
}

impl Lowering<'_> {
    /// Bindings that together show the rows `range` of a weight.
    pub(super) fn windows(&self, id: WeightId, range: std::ops::Range<u32>) -> Result<Vec<Window>, GpuError> {
        let tensor = self.plan.graph.weight(id);
        let unsupported =
            |why: String| GpuError::Unsupported { op: "linear", name: self.plan.graph.weight_name(id).to_owned(), why };
        let places = self.weights.places(id);
        if places.is_empty() {
            return Err(unsupported("the weight is not on the device".to_owned()));
        }
        let row = tensor.row_bytes() as u64;
        let align = self.gpu.caps().storage_alignment;
        let most = self.gpu.caps().max_binding / align * align;
        let per_window = (most - align).checked_div(row).unwrap_or(1).min(u64::from(u32::MAX)) as u32;
        if per_window == 0 {
            return Err(unsupported(format!("a row of {row} bytes is longer than a binding")));
        }
        let mut windows = Vec::new();
        for place in places {
            let (from, to) = (place.rows.start as u32, place.rows.end as u32);
            let (mut start, end) = (range.start.max(from), range.end.min(to));
            while start < end {
                let rows = start..end.min(start.saturating_add(per_window));
                let first = place.byte + u64::from(rows.start - from) * row;
                let last = place.byte + u64::from(rows.end - from) * row;
                let offset = first / align * align;
                // Kernels read whole words.
                let len = (last - offset).next_multiple_of(4);
                let source = Source::Weights { buffer: place.buffer, offset, len };
                start = rows.end;
                windows.push(Window { rows, byte: first - offset, source });
            }
        }
        Ok(windows)
    }
}
