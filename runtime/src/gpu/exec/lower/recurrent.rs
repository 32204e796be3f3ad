//! Steps that have a per-sequence state.

use super::{Draft, Lowering, StageDraft, calls::Flops};
use crate::{
    gpu::{GpuError, exec::arena::Source, ops::recurrent},
    graph::{Device, GatedDeltaStage, Rows, ShortConvStage, StateId},
};

impl Lowering<'_> {
    /// What makes the states ready that kernels work on in place.
    pub(super) fn begin_states(&mut self) -> Vec<Draft> {
        let states: Vec<_> = (0u32..).map(StateId).zip(self.plan.graph.states().to_vec()).collect();
        let own = |id: StateId| self.plan.state_device(id) == Some(Device::Gpu);
        let in_place: Vec<_> = states.into_iter().filter(|(id, s)| !s.rewritten && own(*id)).collect();
        let mut drafts = Vec::new();
        for (id, spec) in in_place {
            drafts.push(self.draft(recurrent::begin(self.gpu.caps(), spec.elements), &[Source::State(id)]));
        }
        drafts
    }

    pub(super) fn short_conv(&mut self, step: &ShortConvStage) -> StageDraft {
        let width = self.plan.graph.value(step.input).width;
        let weight = self.vector_at[step.op.weight.0 as usize];
        let places = [step.input, step.output].map(|v| self.value(v));
        let dispatch = recurrent::short_conv(self.gpu.caps(), &step.op, width, weight, places);
        let before = vec![self.draft(dispatch, &[Source::State(step.op.state)])];
        StageDraft::of(Rows::Token, Flops::default(), before)
    }

    pub(super) fn gated_delta(&mut self, name: &str, step: &GatedDeltaStage) -> Result<StageDraft, GpuError> {
        let [qkv, b, a] = step.inputs.map(|v| self.value(v));
        let vectors = [step.op.decay, step.op.dt_bias].map(|w| self.vector_at[w.0 as usize]);
        let places = [qkv, b, a, self.value(step.output)];
        let dispatch = recurrent::gated_delta(self.gpu.caps(), name, &step.op, vectors, places)?;
        let before = vec![self.draft(dispatch, &[Source::State(step.op.state)])];
        let flops = Flops::per_row(7 * step.op.state_elements().unwrap_or(0) as u64);
        Ok(StageDraft::of(Rows::Token, flops, before))
    }
}
