//! Weights on the device: the mapped file itself where the driver imports host memory and device memory is host
//! memory, else one copy through a bounded staging path.

use std::{ops::Range, sync::Arc};

use super::{Gpu, GpuError, staging::Staging};
use crate::{
    format::{Mapping, PrivateCopy, Tensor},
    graph::{Device, Plan, WeightId},
    quant::{BlockMXFP4, BlockMXFP4Split, DType},
};

/// The place of some rows of a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WeightPlace {
    /// The rows: all of them, unless no buffer holds all.
    pub rows: Range<usize>,
    /// Index of the buffer.
    pub buffer: usize,
    /// First byte in it.
    pub byte: u64,
}

/// The format of a weight on the device, and bytes of a row: as in the file, except that formats whose scales lie apart
/// get them into their blocks on the way.
pub(super) fn device_format(tensor: &Tensor) -> (DType, u64) {
    match tensor.dtype() {
        DType::MXFP4_SPLIT => {
            let blocks = tensor.row_len() / DType::MXFP4.block_len();
            (DType::MXFP4, (blocks * DType::MXFP4.block_bytes()) as u64)
        }
        dtype => (dtype, tensor.row_bytes() as u64),
    }
}

/// Bytes of a weight on the device.
fn device_bytes(tensor: &Tensor) -> u64 {
    device_format(tensor).1 * tensor.rows() as u64
}

/// Writes rows of a weight to `buffer` from byte `at` on, in the device's format.
fn write(
    staging: &mut Staging<'_>,
    (buffer, at): (&wgpu::Buffer, u64),
    tensor: &Tensor,
    rows: Range<usize>,
) -> Result<(), GpuError> {
    if tensor.dtype() != DType::MXFP4_SPLIT {
        let row = tensor.row_bytes();
        return staging.write(buffer, at, &tensor.bytes()[rows.start * row..rows.end * row]);
    }
    // Blocks with their scales, made piece by piece.
    let blocks: &[BlockMXFP4Split] = bytemuck::cast_slice(tensor.bytes());
    let scales = tensor.scales().map_or(&[][..], |s| &s.bytes[..]);
    let in_row = tensor.row_len() / DType::MXFP4.block_len();
    let first = rows.start * in_row;
    let (blocks, scales) = (&blocks[first..rows.end * in_row], scales.get(first..).unwrap_or_default());
    // Four of them are whole words.
    let each = (staging.piece() / size_of::<BlockMXFP4>() / 4 * 4).max(4);
    let mut scales = scales.iter().copied().chain(std::iter::repeat(127));
    let mut at = at;
    for blocks in blocks.chunks(each) {
        let whole: Vec<BlockMXFP4> = blocks.iter().zip(&mut scales).map(|(b, e)| b.with_scale(e)).collect();
        staging.write(buffer, at, bytemuck::cast_slice(&whole))?;
        at += size_of_val(&whole[..]) as u64;
    }
    Ok(())
}

/// Rows of a weight, their first byte in a file, their length.
type InFile = (WeightId, Range<usize>, u64, u64);

/// The file that a weight can be imported from, and its first byte there; none where kernels cannot read it as it is.
fn importable(tensor: &Tensor) -> Option<(&Arc<Mapping>, u64)> {
    let (map, start) = tensor.shared_bytes().mapping()?;
    (start % 4 == 0 && tensor.dtype() != DType::MXFP4_SPLIT).then_some((map, start as u64))
}

/// The rows of a weight by the buffers that have room for them: as few pieces as possible.
fn pieces(gpu: &Gpu, tensor: &Tensor) -> impl Iterator<Item = Range<usize>> + use<> {
    let (rows, row) = (tensor.rows(), device_format(tensor).1.max(1));
    // Imported rows may begin anywhere in a page.
    let room = gpu.caps().max_buffer.saturating_sub(2 * gpu.caps().host_import_alignment.max(ALIGN));
    let each = usize::try_from(room / row).unwrap_or(usize::MAX).max(1);
    (0..rows).step_by(each).map(move |first| first..rows.min(first.saturating_add(each)))
}

/// All weights that kernels read as they are in the file.
pub(super) struct GpuWeights {
    /// Dropped before the memory that they were imported from.
    pub buffers: Vec<wgpu::Buffer>,
    /// By weight, in the order of their rows; none for weights that exist only as f32 vectors.
    places: Vec<Vec<WeightPlace>>,
    /// Bytes copied to the device.
    pub copied: u64,
    /// Bytes that the device reads where they lie in host memory.
    pub imported: u64,
    maps: Vec<PrivateCopy>,
    gpu: Arc<Gpu>,
}

/// Alignment of a copied weight within its buffer: any device's binding alignment.
const ALIGN: u64 = 256;

impl GpuWeights {
    /// Places every weight that a linear or an embedding of `plan` reads, in the order of the stages, so that the
    /// weights of one stage lie in one binding. `progress` hears of bytes done and bytes in all.
    ///
    /// # Errors
    /// Too little device memory.
    pub fn new(gpu: &Arc<Gpu>, plan: &Plan, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, GpuError> {
        let mut weights = Self {
            buffers: Vec::new(),
            places: vec![Vec::new(); plan.graph.weights().count()],
            copied: 0,
            imported: 0,
            maps: Vec::new(),
            gpu: gpu.clone(),
        };
        let wanted = in_order(plan);
        if imports(gpu) {
            weights.import(plan, &wanted);
        }
        weights.copy(plan, &wanted, progress)?;
        Ok(weights)
    }

    /// The places of `id`, in the order of its rows; none where it is not on the device.
    pub fn places(&self, id: WeightId) -> &[WeightPlace] {
        &self.places[id.0 as usize]
    }

    /// Adds a place of `id`.
    fn put(&mut self, id: WeightId, place: WeightPlace) {
        let places = &mut self.places[id.0 as usize];
        places.insert(places.partition_point(|p| p.rows.start < place.rows.start), place);
    }

    /// Imports the files that the weights lie in, in stretches no longer than a buffer may be. Weights that are not
    /// aligned to words, and files that the driver refuses, remain to be copied.
    fn import(&mut self, plan: &Plan, wanted: &[WeightId]) {
        let page = self.gpu.caps().host_import_alignment.max(1);
        let mut files: Vec<(Arc<Mapping>, Vec<InFile>)> = Vec::new();
        for &id in wanted {
            let tensor = plan.graph.weight(id);
            let Some((map, start)) = importable(tensor) else { continue };
            let row = tensor.row_bytes() as u64;
            let items = pieces(&self.gpu, tensor)
                .map(|rows| (id, rows.clone(), start + rows.start as u64 * row, rows.len() as u64 * row));
            match files.iter_mut().find(|(m, _)| Arc::ptr_eq(m, map)) {
                Some((_, all)) => all.extend(items),
                None => files.push((map.clone(), items.collect())),
            }
        }
        for (map, mut items) in files {
            let Ok(mut private) = map.private_copy() else { continue };
            items.sort_by_key(|(_, _, start, _)| *start);
            let base = private.as_mut_ptr();
            if base.align_offset(page as usize) != 0 {
                continue;
            }
            let mut rest = &items[..];
            while let Some((_, _, first, _)) = rest.first() {
                let from = first / page * page;
                let fits = |(_, _, s, l): &&InFile| (s + l - from).next_multiple_of(page) <= self.gpu.caps().max_buffer;
                let n = rest.iter().take_while(fits).count();
                if n == 0 {
                    rest = &rest[1..];
                    continue;
                }
                let (stretch, after) = rest.split_at(n);
                rest = after;
                let end = stretch.iter().map(|(_, _, s, l)| s + l).max().unwrap_or(from);
                let bytes = (end - from).next_multiple_of(page);
                // SAFETY: the map is private and kept until the buffers are gone and the device is idle (see `drop`);
                // its last page is mapped as a whole.
                let Some(buffer) = (unsafe { self.gpu.import(base.add(from as usize), bytes) }) else { continue };
                self.buffers.push(buffer);
                for (id, rows, start, len) in stretch {
                    let (rows, buffer) = (rows.clone(), self.buffers.len() - 1);
                    self.put(*id, WeightPlace { rows, buffer, byte: start - from });
                    self.imported += len;
                }
            }
            self.maps.push(private);
        }
    }

    /// Copies all weights that have no place yet.
    fn copy(&mut self, plan: &Plan, wanted: &[WeightId], progress: &mut dyn FnMut(u64, u64)) -> Result<(), GpuError> {
        let missing =
            |(id, rows): &(WeightId, Range<usize>)| self.places(*id).iter().all(|p| p.rows.start != rows.start);
        let all = wanted.iter().flat_map(|&id| pieces(&self.gpu, plan.graph.weight(id)).map(move |rows| (id, rows)));
        let wanted: Vec<(WeightId, Range<usize>)> = all.filter(missing).collect();
        let len = |(id, rows): &(WeightId, Range<usize>)| device_format(plan.graph.weight(*id)).1 * rows.len() as u64;
        let total: u64 = wanted.iter().map(len).sum();
        // Buffers are as large as allowed, up to a size that drivers find easily. Every weight is rounded up to the
        // alignment of the next one, the last one too.
        let most = self.gpu.caps().max_buffer.min(1 << 30) / ALIGN * ALIGN;
        let gpu = self.gpu.clone();
        let mut staging = Staging::new(&gpu, total, progress);
        let mut rest = &wanted[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let mut n = 0;
            while n < rest.len() && (n == 0 || bytes + len(&rest[n]) <= most) {
                bytes = (bytes + len(&rest[n])).next_multiple_of(ALIGN);
                n += 1;
            }
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            let buffer = self.gpu.buffer("weights", bytes, usage)?;
            let mut at = 0;
            for piece in &rest[..n] {
                let (id, rows) = piece.clone();
                write(&mut staging, (&buffer, at), plan.graph.weight(id), rows.clone())?;
                self.put(id, WeightPlace { rows, buffer: self.buffers.len(), byte: at });
                at = (at + len(piece)).next_multiple_of(ALIGN);
            }
            self.buffers.push(buffer);
            rest = &rest[n..];
        }
        self.copied = staging.finish()?;
        Ok(())
    }
}

impl Drop for GpuWeights {
    fn drop(&mut self) {
        if !self.maps.is_empty() {
            self.buffers.clear();
            // Errors have already been reported where they occurred.
            let _ = self.gpu.wait();
        }
    }
}

/// Whether the device reads weights from mapped files.
fn imports(gpu: &Gpu) -> bool {
    gpu.caps().unified_memory && gpu.caps().host_import
}

/// Bytes of weights of the GPU's stages that need memory of their own.
pub(super) fn bytes_to_copy(gpu: &Gpu, plan: &Plan) -> u64 {
    let stays = |tensor: &&Tensor| imports(gpu) && importable(tensor).is_some();
    let tensors = in_order(plan).into_iter().map(|id| plan.graph.weight(id));
    tensors.filter(|t| !stays(t)).map(|t| device_bytes(t).next_multiple_of(ALIGN)).sum()
}

/// The matrices of all stages on the GPU, each once, in the order of their first use.
fn in_order(plan: &Plan) -> Vec<WeightId> {
    let mut order = Vec::new();
    let mut seen = vec![false; plan.graph.weights().count()];
    for step in plan.stages.iter().filter(|s| s.device == Device::Gpu) {
        for id in step.kind.matrices() {
            if !std::mem::replace(&mut seen[id.0 as usize], true) {
                order.push(id);
            }
        }
    }
    order
}
