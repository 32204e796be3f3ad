//! Row programs: computations that go row by row, in registers and scratch.

use crate::graph::{
    experts::RouteOp,
    op::{Act, NormOp, PositionScale, RopeId, Rows, ValueId, WeightId},
    streams::{HyperOp, StreamOp},
};

/// Where a row program's instruction reads a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Src {
    /// A value in the arena. In a program over outputs, a value with a row per token is read at the output's token.
    Value(ValueId),
    /// The result of an earlier instruction of the same program.
    Temp(u16),
}

/// One row-wise computation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RowOp {
    /// The row's token's embedding, times `scale`.
    Embed {
        /// `[vocab, width]`.
        table: WeightId,
        /// Factor.
        scale: f32,
        /// Whether ids beyond the table look up its first row.
        or_first: bool,
    },
    /// Normalisation by groups.
    Norm {
        /// Input row.
        src: Src,
        /// The normalisation.
        norm: NormOp,
    },
    /// Sum of two rows.
    Add {
        /// One row.
        a: Src,
        /// The other.
        b: Src,
    },
    /// `act(gate) * up`.
    GatedAct {
        /// The activation.
        act: Act,
        /// Its input.
        gate: Src,
        /// The other factor.
        up: Src,
    },
    /// `act(x)`.
    Act {
        /// The activation.
        act: Act,
        /// Input row.
        src: Src,
    },
    /// Product of two rows.
    Mul {
        /// One row.
        a: Src,
        /// The other, `group` times as narrow.
        b: Src,
        /// Elements of `a` that each of `b`'s multiplies.
        group: usize,
    },
    /// Streams side by side, with another row.
    Streams {
        /// The streams.
        a: Src,
        /// The other row.
        b: Src,
        /// The op.
        op: StreamOp,
        /// Elements of both.
        widths: [usize; 2],
    },
    /// Coefficients of hyper-connections.
    Hyper {
        /// Projections of the streams.
        src: Src,
        /// The op.
        op: HyperOp,
    },
    /// `max(x - (mean(x) + deviations * std(x)), 0)`.
    Sparsify {
        /// Input row.
        src: Src,
        /// Standard deviations above the mean.
        deviations: f32,
    },
    /// Of every `period` elements, those from `offset` to `offset + len`.
    Columns {
        /// Input row.
        src: Src,
        /// Elements from one group to the next.
        period: usize,
        /// First element kept of a group.
        offset: usize,
        /// Elements kept of a group.
        len: usize,
    },
    /// Groups of two rows in turn.
    Join {
        /// One row.
        a: Src,
        /// The other.
        b: Src,
        /// Elements of a group of each.
        lens: [usize; 2],
    },
    /// Times a factor that depends on the token's position.
    PositionScale {
        /// Input row.
        src: Src,
        /// The factor.
        scale: PositionScale,
    },
    /// Times a constant.
    Scale {
        /// Input row.
        src: Src,
        /// The constant.
        factor: f32,
    },
    /// `cap * tanh(x / cap)`.
    Softcap {
        /// Input row.
        src: Src,
        /// The bound.
        cap: f32,
    },
    /// Rotation by position of each head.
    Rope {
        /// Input row.
        src: Src,
        /// The rotation.
        rope: RopeId,
        /// Elements of a head.
        head_dim: usize,
    },
    /// The choice of experts.
    Route {
        /// Logits.
        src: Src,
        /// The rule of choice.
        route: RouteOp,
    },
    /// Sum over the experts of a route.
    ExpertSum {
        /// The experts' rows, one after the other.
        src: Src,
        /// The route.
        route: Src,
        /// Experts of the route.
        k: usize,
        /// Whether rows are multiplied by the weights of the route.
        weighted: bool,
    },
    /// The row as it is.
    Copy {
        /// Input row.
        src: Src,
    },
}

/// One instruction of a row program; its result is temp number `index of the instruction`.
#[derive(Clone, Debug)]
pub struct RowInstr {
    /// The computation.
    pub op: RowOp,
    /// Elements of the result.
    pub width: usize,
    /// The value that the result is stored to as well, where something outside the program reads it.
    pub store: Option<ValueId>,
}

/// Row-wise computations that run one row after the other, in registers and scratch.
#[derive(Clone, Debug)]
pub struct RowProgram {
    /// Which rows it runs over.
    pub rows: Rows,
    /// Instructions in order.
    pub instrs: Vec<RowInstr>,
}

impl RowProgram {
    /// Elements of scratch that all instructions need.
    pub fn scratch_len(&self) -> usize {
        self.instrs.iter().map(RowInstr::scratch_len).sum()
    }
}

impl RowInstr {
    /// Elements of scratch that it needs: its result, padded to 16, then its work space.
    pub fn scratch_len(&self) -> usize {
        let more = match &self.op {
            RowOp::Route { route, .. } => 2 * route.n_experts,
            _ => 0,
        };
        self.width.next_multiple_of(16) + more.next_multiple_of(16)
    }
}

impl RowOp {
    /// The embedding table that it looks rows up in.
    pub fn table(&self) -> Option<WeightId> {
        match self {
            RowOp::Embed { table, .. } => Some(*table),
            _ => None,
        }
    }

    /// The rows read.
    pub fn srcs(&self) -> [Option<Src>; 2] {
        self.clone().srcs_mut().map(|src| src.map(|s| *s))
    }

    /// As [`RowOp::srcs`], mutable.
    pub(crate) fn srcs_mut(&mut self) -> [Option<&mut Src>; 2] {
        match self {
            RowOp::Embed { .. } => [None, None],
            RowOp::Streams { a, b, .. } => [Some(a), Some(b)],
            RowOp::Add { a, b } | RowOp::Mul { a, b, .. } | RowOp::Join { a, b, .. } => [Some(a), Some(b)],
            RowOp::GatedAct { gate, up, .. } => [Some(gate), Some(up)],
            RowOp::ExpertSum { src, route, .. } => [Some(src), Some(route)],
            RowOp::Norm { src, .. }
            | RowOp::Act { src, .. }
            | RowOp::Columns { src, .. }
            | RowOp::PositionScale { src, .. }
            | RowOp::Scale { src, .. }
            | RowOp::Softcap { src, .. }
            | RowOp::Sparsify { src, .. }
            | RowOp::Hyper { src, .. }
            | RowOp::Rope { src, .. }
            | RowOp::Route { src, .. }
            | RowOp::Copy { src } => [Some(src), None],
        }
    }
}
