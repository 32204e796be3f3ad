//! The pairs of row and expert of an experts step, sorted by expert.

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
    if part.op.input_major { ActForm::F32 } else { kernels.act_form(dtype, n) }
}

/// A row, and which of its route's experts.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Pair {
    pub row: u32,
    pub slot: u32,
}

impl Pair {
    /// Its row of the inputs.
    pub fn act(self, step: &ExpertStage) -> usize {
        if step.per_slot { self.row as usize * step.slots + self.slot as usize } else { self.row as usize }
    }
}

/// The pairs of a step, sorted by expert, in a worker's scratch.
pub(super) struct Pairs<'a> {
    /// Where each expert's pairs end.
    ends: &'a mut [u32],
    /// Experts with pairs, in order; the first `n_active` of them.
    active: &'a mut [u32],
    n_active: usize,
    pairs: &'a mut [Pair],
}

impl<'a> Pairs<'a> {
    /// Bytes for `n` rows.
    pub fn bytes(step: &ExpertStage, n: usize) -> usize {
        (8 * step.n_experts + 8 * n * step.slots).next_multiple_of(64)
    }

    /// Room for the pairs of `n` rows at byte `start`.
    ///
    /// # Safety
    /// Nobody else uses these bytes while the pairs live.
    pub unsafe fn new(scratch: &'a Buffer, start: usize, step: &ExpertStage, n: usize) -> Self {
        let e = step.n_experts;
        // SAFETY: the caller's promise; the three parts do not overlap.
        unsafe {
            Self {
                ends: scratch.slice_mut(start / 4, e),
                active: scratch.slice_mut(start / 4 + e, e),
                n_active: 0,
                pairs: scratch.slice_mut(start / 8 + e, n * step.slots),
            }
        }
    }

    /// Sorts the pairs of all rows. Numbers beyond the experts are taken as the last one's.
    pub fn sort<'r>(&mut self, step: &ExpertStage, route: impl Fn(usize) -> &'r [f32]) {
        let n = self.pairs.len() / step.slots;
        let expert = |id: f32| (id as usize).min(step.n_experts - 1);
        self.ends.fill(0);
        for row in 0..n {
            route(row)[..step.slots].iter().for_each(|id| self.ends[expert(*id)] += 1);
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
        // `ends` are starts until each has moved past its pairs.
        for row in 0..n {
            for (slot, id) in route(row)[..step.slots].iter().enumerate() {
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
