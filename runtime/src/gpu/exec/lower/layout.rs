//! How large the arena is.

use crate::{
    gpu::{Gpu, GpuError, exec::memory::ArenaLayout, ops::experts::pair_words},
    graph::{Device, Plan, Rows, StepKind},
};

/// The elements that a row of each kind takes, with the scratch of the step that needs most, and how many token rows
/// leave room in one binding for an output row at least.
pub(in super::super) fn lay_out(gpu: &Gpu, plan: &Plan, max_step_tokens: usize) -> Result<ArenaLayout, GpuError> {
    let mut scratch = [0, 0];
    for step in plan.steps.iter().filter(|s| s.device == Device::Gpu) {
        let Some(program) = step.kind.program() else { continue };
        let kind = &mut scratch[usize::from(program.rows == Rows::Output)];
        *kind = (*kind).max(program.scratch_len());
    }
    let mut layout = ArenaLayout {
        token_elements: plan.token_elements + scratch[0],
        output_elements: plan.output_elements + scratch[1],
        max_tokens: max_step_tokens.max(1),
        pair_words: 0,
    };
    // Room for some output rows beside the tokens: perplexity wants many, everything else one a sequence.
    let most = gpu.caps().max_binding;
    while layout.max_tokens > 1 && layout.bytes(8) > most {
        layout.max_tokens /= 2;
    }
    let pairs = |kind: &StepKind| match kind {
        StepKind::Experts(e) => pair_words(e.slots, e.n_experts, layout.max_tokens),
        _ => 0,
    };
    layout.pair_words = plan.steps.iter().map(|s| pairs(&s.kind)).max().unwrap_or(0);
    if layout.bytes(1) > most {
        return Err(GpuError::Limit {
            adapter: gpu.name().to_owned(),
            what: "storage bindings",
            has: most,
            op: "the activations of one token".to_owned(),
            needs: layout.bytes(1),
        });
    }
    Ok(layout)
}
