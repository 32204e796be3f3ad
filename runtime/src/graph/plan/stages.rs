//! The kinds of stage.

use super::{RowProgram, Src};
use crate::graph::experts::ExpertLinearOp;
use crate::graph::{
    attention::{AttentionOp, HeadLinearOp, PoolOp, SelectOp},
    op::{CacheId, NormOp, PositionScale, RopeId, StateId, ValueId, WeightId},
    recurrent::{GatedDeltaStage, ShortConvStage},
};

/// One weight of a linear stage.
#[derive(Clone, Debug)]
pub struct LinearPart {
    /// `[out, k]`.
    pub weight: WeightId,
    /// `[out]`.
    pub bias: Option<WeightId>,
    /// Value that the result is stored to.
    pub output: ValueId,
}

/// Linears over one input.
#[derive(Clone, Debug)]
pub struct LinearStage {
    /// Runs before the linears; makes the input unless that lies in the arena.
    pub prologue: RowProgram,
    /// The input.
    pub input: Src,
    /// Elements of the input; of one head where there are heads.
    pub k: usize,
    /// The weights that multiply it.
    pub parts: Vec<LinearPart>,
    /// Set where the only part is one matrix for each head of the input.
    pub heads: Option<HeadLinearOp>,
}

/// One weight of an experts stage.
#[derive(Clone, Debug)]
pub struct ExpertPart {
    /// The weights.
    pub op: ExpertLinearOp,
    /// Elements that an expert makes.
    pub out: usize,
    /// Value that the results are stored to: `[rows, slots * out]`.
    pub output: ValueId,
}

/// Linears by experts over one input.
#[derive(Clone, Debug)]
pub struct ExpertStage {
    /// Runs before the linears; makes input and route unless they lie in the arena.
    pub prologue: RowProgram,
    /// The input.
    pub input: Src,
    /// The route. It lies in the arena, also where the program makes it.
    pub route: Src,
    /// Elements of an expert's input.
    pub k: usize,
    /// Experts that the route chooses.
    pub slots: usize,
    /// Whether each of them has an input of its own.
    pub per_slot: bool,
    /// Experts of the layer.
    pub n_experts: usize,
    /// The weights that multiply it.
    pub parts: Vec<ExpertPart>,
}

impl ExpertStage {
    /// Inputs that a row has.
    pub fn inputs(&self) -> usize {
        if self.per_slot { self.slots } else { 1 }
    }
}

/// An op on each head of q, k or v before attention.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HeadOp {
    /// Normalisation over the head.
    Norm(NormOp),
    /// Rotation by position.
    Rope(RopeId),
    /// A factor that depends on the position; always the last of a list.
    PositionScale(PositionScale),
}

/// Attention with the norms and rotations of its heads.
#[derive(Clone, Debug)]
pub struct AttentionStage {
    /// Geometry and mask.
    pub op: AttentionOp,
    /// Query, key and value rows as the linears made them; the key twice where values are parts of keys.
    pub inputs: [ValueId; 3],
    /// The keys of blocks, with the last token of each.
    pub blocks: Option<ValueId>,
    /// Positions of the keys (of blocks, where there are any) that each token attends to; none where tokens attend to
    /// all that they see.
    pub selected: Option<ValueId>,
    /// Applied in order to each head of q, k, v. A list for q that is not empty allows kernels to overwrite q.
    pub head_ops: [Vec<HeadOp>; 3],
    /// `[rows, n_heads * v_dim]`.
    pub output: ValueId,
}

/// The choice of keys to attend to.
#[derive(Clone, Debug)]
pub struct SelectStage {
    /// Geometry.
    pub op: SelectOp,
    /// Index queries, index keys, weights of index heads.
    pub inputs: [ValueId; 3],
    /// `[rows, k]`.
    pub output: ValueId,
}

/// The pooling of blocks of tokens.
#[derive(Clone, Debug)]
pub struct PoolStage {
    /// The pooling.
    pub op: PoolOp,
    /// Rows and gates.
    pub inputs: [ValueId; 2],
    /// `[rows, width]`.
    pub output: ValueId,
}

/// The computation of a stage, with its operands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StageKind {
    /// A row program on its own.
    Rows(RowProgram),
    /// Linears with their row program.
    Linear(LinearStage),
    /// Linears by experts with their row program.
    Experts(ExpertStage),
    /// The choice of keys.
    Select(SelectStage),
    /// The pooling of blocks of tokens.
    Pool(PoolStage),
    /// Attention.
    Attention(AttentionStage),
    /// A convolution over tokens.
    ShortConv(ShortConvStage),
    /// A gated delta rule.
    GatedDelta(GatedDeltaStage),
}

impl StageKind {
    /// Values of the arena that the stage reads and writes.
    pub fn reads_and_writes(&self) -> (Vec<ValueId>, Vec<ValueId>) {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let mut program = |p: &RowProgram| {
            for instr in &p.instrs {
                let srcs = instr.op.srcs();
                reads.extend(srcs.into_iter().flatten().filter_map(|s| match s {
                    Src::Value(v) => Some(v),
                    Src::Temp(_) => None,
                }));
                writes.extend(instr.store);
            }
        };
        match self {
            StageKind::Rows(p) => program(p),
            StageKind::Linear(l) => {
                program(&l.prologue);
                if let Src::Value(v) = l.input {
                    reads.push(v);
                }
                writes.extend(l.parts.iter().map(|p| p.output));
            }
            StageKind::Experts(e) => {
                program(&e.prologue);
                reads.extend([e.input, e.route].into_iter().filter_map(|s| match s {
                    Src::Value(v) => Some(v),
                    Src::Temp(_) => None,
                }));
                writes.extend(e.parts.iter().map(|p| p.output));
            }
            StageKind::Select(s) => {
                reads.extend(s.inputs);
                writes.push(s.output);
            }
            StageKind::Pool(p) => {
                reads.extend(p.inputs);
                writes.push(p.output);
            }
            StageKind::Attention(a) => {
                reads.extend(a.inputs);
                reads.extend(a.blocks);
                reads.extend(a.selected);
                writes.push(a.output);
            }
            StageKind::ShortConv(c) => {
                reads.push(c.input);
                writes.push(c.output);
            }
            StageKind::GatedDelta(d) => {
                reads.extend(d.inputs);
                writes.push(d.output);
            }
        }
        (reads, writes)
    }

    /// The row program that the stage is, or begins with.
    pub fn program(&self) -> Option<&RowProgram> {
        match self {
            StageKind::Rows(p) => Some(p),
            StageKind::Linear(l) => Some(&l.prologue),
            StageKind::Experts(e) => Some(&e.prologue),
            StageKind::Select(_) | StageKind::Pool(_) | StageKind::Attention(_) => None,
            StageKind::ShortConv(_) | StageKind::GatedDelta(_) => None,
        }
    }

    /// The stage without its program's first instruction, whose result is already at `value`.
    #[cfg(feature = "gpu")]
    pub(crate) fn without_first(mut self, value: ValueId) -> Self {
        let moved = |src: &mut Src| match *src {
            Src::Temp(0) => *src = Src::Value(value),
            Src::Temp(t) => *src = Src::Temp(t - 1),
            Src::Value(_) => {}
        };
        let program = match &mut self {
            StageKind::Rows(p) => p,
            StageKind::Linear(l) => {
                moved(&mut l.input);
                &mut l.prologue
            }
            StageKind::Experts(e) => {
                moved(&mut e.input);
                moved(&mut e.route);
                &mut e.prologue
            }
            _ => return self,
        };
        program.instrs.remove(0);
        program.instrs.iter_mut().flat_map(|i| i.op.srcs_mut()).flatten().for_each(moved);
        self
    }

    /// Embedding tables and weights of linears, of all experts, in the order in which the stage reads them.
    pub fn matrices(&self) -> Vec<WeightId> {
        let tables = self.program().map_or(&[][..], |p| &p.instrs).iter().filter_map(|i| i.op.table());
        let parts: Vec<WeightId> = match self {
            StageKind::Linear(l) => l.parts.iter().map(|p| p.weight).collect(),
            StageKind::Experts(e) => e.parts.iter().flat_map(|p| p.op.experts.iter().copied()).collect(),
            _ => Vec::new(),
        };
        tables.chain(parts).collect()
    }

    /// The per-sequence state that the stage uses.
    pub fn state(&self) -> Option<StateId> {
        match self {
            StageKind::ShortConv(c) => Some(c.op.state),
            StageKind::GatedDelta(d) => Some(d.op.state),
            _ => None,
        }
    }

    /// The caches of keys and values that the stage uses.
    pub fn caches(&self) -> [Option<CacheId>; 2] {
        match self {
            StageKind::Attention(a) => [Some(a.op.cache), a.op.blocks],
            StageKind::Select(s) => [Some(s.op.cache), None],
            StageKind::Pool(p) => [Some(p.op.cache), None],
            _ => [None, None],
        }
    }

    /// Kind in dumps and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            StageKind::Rows(_) => "rows",
            StageKind::Linear(_) => "linear",
            StageKind::Experts(_) => "experts",
            StageKind::Select(_) => "select",
            StageKind::Pool(_) => "pool",
            StageKind::Attention(_) => "attention",
            StageKind::ShortConv(_) => "short_conv",
            StageKind::GatedDelta(_) => "gated_delta",
        }
    }
}
