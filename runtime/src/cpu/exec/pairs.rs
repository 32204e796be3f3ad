//! The pairs of row and expert of an experts stage, sorted by expert.

use crate::{
    cpu::{
        buffer::Buffer,
        ops::{ActForm, LinearKernels},
    },
    graph::{ExpertPart, ExpertStage},
    quant::DType,
};

/// The form of activations that a part is multiplied with.
pub(super) fn form_of(kernels: &LinearKernels, part: &ExpertPart, dtype: DType, n: usize) -> ActForm {
    if part.op.input_major { ActForm::F32Chains } else { kernels.act_form(dtype, n) }
}

/// A row, and the place of an expert in its route.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Pair {
    pub row: u32,
    pub slot: u32,
}

impl Pair {
    /// The index of its input among all inputs.
    pub fn act(self, stage: &ExpertStage) -> usize {
        if stage.per_slot { self.row as usize * stage.slots + self.slot as usize } else { self.row as usize }
    }
}

/// The pairs of a stage, sorted by expert, in a worker's scratch.
pub(super) struct Pairs<'a> {
    /// By expert: the end of its pairs.
    ends: &'a mut [u32],
    /// Experts with pairs, in ascending order: the first `n_active` elements.
    active: &'a mut [u32],
    n_active: usize,
    pairs: &'a mut [Pair],
}

impl<'a> Pairs<'a> {
    /// Bytes for `n` rows.
    pub fn bytes(stage: &ExpertStage, n: usize) -> usize {
        (8 * stage.n_experts + 8 * n * stage.slots).next_multiple_of(64)
    }

    /// Room for the pairs of `n` rows at byte `start`.
    ///
    /// # Safety
    /// Nobody else uses these bytes while the pairs live.
    pub unsafe fn new(scratch: &'a Buffer, start: usize, stage: &ExpertStage, n: usize) -> Self {
        let e = stage.n_experts;
        // SAFETY: the caller's promise; the three parts do not overlap.
        unsafe {
            Self {
                ends: scratch.slice_mut(start / 4, e),
                active: scratch.slice_mut(start / 4 + e, e),
                n_active: 0,
                pairs: scratch.slice_mut(start / 8 + e, n * stage.slots),
            }
        }
    }

    /// Sorts the pairs of all rows. A number beyond the experts counts as the last expert.
    pub fn sort<'r>(&mut self, stage: &ExpertStage, route: impl Fn(usize) -> &'r [f32]) {
        let n = self.pairs.len() / stage.slots;
        let expert = |id: f32| (id as usize).min(stage.n_experts - 1);
        self.ends.fill(0);
        for row in 0..n {
            route(row)[..stage.slots].iter().for_each(|id| self.ends[expert(*id)] += 1);
        }
        let mut sum = 0;
        self.n_active = 0;
        for (e, end) in self.ends.iter_mut().enumerate() {
            let count = std::mem::replace(end, sum);
            sum += count;
            if count > 0 {
                self.active[self.n_active] = e as u32;
                self.n_active += 1;
            }
        }
        // `ends` holds each expert's start, which moves past its pairs and so becomes the end.
        for row in 0..n {
            for (slot, id) in route(row)[..stage.slots].iter().enumerate() {
                let at = &mut self.ends[expert(*id)];
                self.pairs[*at as usize] = Pair { row: row as u32, slot: slot as u32 };
                *at += 1;
            }
        }
    }

    /// The experts with pairs.
    pub fn active(&self) -> &[u32] {
        &self.active[..self.n_active]
    }

    /// The pairs of one expert.
    pub fn of(&self, expert: usize) -> &[Pair] {
        let start = expert.checked_sub(1).map_or(0, |e| self.ends[e]);
        &self.pairs[start as usize..self.ends[expert] as usize]
    }
}
