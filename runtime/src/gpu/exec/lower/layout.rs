//! The size of the arena.

use crate::{
    gpu::{
        Gpu, GpuBackendOptions, GpuError,
        exec::arena::ArenaLayout,
        ops::{experts::pair_words, select::scores_len},
    },
    graph::{Device, Plan, Rows, StageKind},
    step::PAGE_TOKENS,
};

/// The elements that a row of each kind takes, with the scratch of the stage that needs most, and the most token rows
/// that leave room in one binding for at least one output row.
pub(in super::super) fn lay_out(gpu: &Gpu, plan: &Plan, options: &GpuBackendOptions) -> Result<ArenaLayout, GpuError> {
    let mut scratch = [0, 0];
    for stage in plan.stages.iter().filter(|s| s.device == Device::Gpu) {
        let Some(program) = stage.kind.program() else { continue };
        let kind = &mut scratch[usize::from(program.rows == Rows::Output)];
        *kind = (*kind).max(program.scratch_len());
    }
    let mut layout = ArenaLayout {
        token_elements: plan.token_elements + scratch[0],
        output_elements: plan.output_elements + scratch[1],
        max_tokens: options.max_step_tokens.max(1),
        pair_words: 0,
    };
    // Room for some output rows beside the tokens: perplexity wants many, all others one a sequence.
    let most = gpu.caps().max_binding;
    // A single sequence may also fill the pages that are kept for other sequences.
    let longest = options.max_cached_tokens + 8 * PAGE_TOKENS;
    let too_many =
        |layout: &ArenaLayout| layout.bytes(8) > most || scores_bytes(plan, layout.max_tokens, longest) > most;
    while layout.max_tokens > 1 && too_many(&layout) {
        layout.max_tokens /= 2;
    }
    let pairs = |kind: &StageKind| match kind {
        StageKind::Experts(e) => pair_words(e.slots, e.n_experts, layout.max_tokens),
        _ => 0,
    };
    layout.pair_words = plan.stages.iter().map(|s| pairs(&s.kind)).max().unwrap_or(0);
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

/// Bytes of the scores by which keys are chosen, for `rows` rows and a longest sequence of `longest` tokens: none while
/// all keys are chosen.
pub(in super::super) fn scores_bytes(plan: &Plan, rows: usize, longest: usize) -> u64 {
    let words = |kind: &StageKind| match kind {
        StageKind::Select(s) => {
            let every = plan.graph.caches()[s.op.cache.0 as usize].every;
            if longest / every > s.op.k { scores_len(rows, longest, every) } else { 0 }
        }
        _ => 0,
    };
    let stages = plan.stages.iter().filter(|s| s.device == Device::Gpu);
    4 * stages.map(|s| words(&s.kind)).max().unwrap_or(0) as u64
}
