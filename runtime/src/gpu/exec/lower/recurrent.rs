//! Stages with a per-sequence state.

use super::{Draft, Lowering, StageDraft, calls::Flops};
use crate::{
    gpu::{GpuError, exec::arena::Source, ops::recurrent},
    graph::{Device, GatedDeltaStage, Rows, ShortConvStage, StateId},
};

impl Lowering<'_> {
    /// The calls that copy or zero the states that kernels change in place.
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

    pub(super) fn short_conv(&mut self, stage: &ShortConvStage) -> StageDraft {
        let width = self.plan.graph.value(stage.input).width;
        let weight = self.vector_at[stage.op.weight.0 as usize];
        let places = [stage.input, stage.output].map(|v| self.value(v));
        let dispatch = recurrent::short_conv(self.gpu.caps(), &stage.op, width, weight, places);
        let before = vec![self.draft(dispatch, &[Source::State(stage.op.state)])];
        StageDraft::of(Rows::Token, Flops::default(), before)
    }

    pub(super) fn gated_delta(&mut self, name: &str, stage: &GatedDeltaStage) -> Result<StageDraft, GpuError> {
        let [qkv, b, a] = stage.inputs.map(|v| self.value(v));
        let vectors = [stage.op.decay, stage.op.dt_bias].map(|w| self.vector_at[w.0 as usize]);
        let places = [qkv, b, a, self.value(stage.output)];
        let dispatch = recurrent::gated_delta(self.gpu.caps(), name, &stage.op, vectors, places)?;
        let before = vec![self.draft(dispatch, &[Source::State(stage.op.state)])];
        let flops = Flops::per_row(7 * stage.op.state_elements().unwrap_or(0) as u64);
        Ok(StageDraft::of(Rows::Token, flops, before))
    }
}
