//! The table of ops that work row by row.

use super::{
    LENGTHS,
    route::routes,
    rows::{A, B, RowCase, vectors},
};
use crate::graph::{
    Act, HyperOp, NormKind, NormOp, PositionScale, RopeFreqs, RopeId, RopeLayout, RopeSpec, RowOp, StreamOp, WeightId,
};

/// Rows of small models: an MLP's and a head's.
const MLP: usize = 1536;
const HEAD: usize = 64;

/// Every case.
pub fn row_cases() -> Vec<RowCase> {
    [norms(), elementwise(), activations(), rotations(), columns(), streams(), hyper_connections(), routes()].concat()
}

impl RowCase {
    /// A case with weights of these sizes.
    pub(super) fn with_vectors(op: RowOp, width: usize, sizes: &[usize]) -> Self {
        Self { vectors: vectors(sizes), ..Self::new(op, width) }
    }

    fn timed(self) -> Self {
        Self { speed: true, ..self }
    }
}

/// Norms of rows, and of heads within rows.
fn norms() -> Vec<RowCase> {
    let (weight, bias) = (Some(WeightId(0)), Some(WeightId(1)));
    let case = |kind, width, group, weight, weight_offset, bias, eps| {
        let norm = NormOp { kind, weight, weight_offset, bias, eps, group };
        RowCase::with_vectors(RowOp::Norm { src: A, norm }, width, &[group, group])
    };
    let mut cases = Vec::new();
    for n in LENGTHS.into_iter().chain([10, 64]) {
        for weight_offset in [0.0, 1.0] {
            cases.push(case(NormKind::Rms, n, n, weight, weight_offset, None, 1e-5));
        }
        cases.push(case(NormKind::Rms, n, n, None, 0.0, None, 1e-2));
        // A row of one element has no variance: what is left is rounding over sqrt(eps).
        if n > 1 {
            cases.push(case(NormKind::Layer, n, n, weight, 0.0, bias, 1e-3));
            cases.push(case(NormKind::Layer, n, n, weight, 1.0, bias, 1e-3));
            cases.push(case(NormKind::Layer, n, n, None, 0.0, None, 1e-3));
        }
    }
    for (n, head) in [(10, 5), (64, 16), (576, 64)] {
        cases.push(case(NormKind::Rms, n, head, weight, 1.0, None, 1e-3));
    }
    cases.push(case(NormKind::Rms, MLP, MLP, weight, 0.0, None, 1e-5).timed());
    cases.push(case(NormKind::Rms, MLP, HEAD, weight, 0.0, None, 1e-5).timed());
    cases.push(case(NormKind::Layer, MLP, MLP, weight, 0.0, None, 1e-5).timed());
    cases
}

/// Sums, products, factors, and sums of experts.
fn elementwise() -> Vec<RowCase> {
    let ops = |n: usize| {
        let scale = PositionScale { beta: 0.3, length: 7, offset: 2 };
        [
            (RowOp::Add { a: A, b: B }, n),
            (RowOp::Mul { a: A, b: B, group: 1 }, n),
            (RowOp::Scale { src: A, factor: -2.5 }, n),
            (RowOp::Softcap { src: A, cap: 0.75 }, n),
            (RowOp::Softcap { src: A, cap: 3.0 }, n),
            (RowOp::PositionScale { src: A, scale }, n),
            (RowOp::Copy { src: A }, n),
            (RowOp::ExpertSum { src: A, route: B, k: 1, weighted: true }, n),
            (RowOp::ExpertSum { src: A, route: B, k: 3, weighted: true }, n),
            (RowOp::ExpertSum { src: A, route: B, k: 3, weighted: false }, n),
        ]
    };
    let case = |(op, n)| RowCase::new(op, n);
    let mut cases: Vec<RowCase> = LENGTHS.into_iter().chain([64]).flat_map(ops).map(case).collect();
    // Gates of a head, and of a whole row.
    for (width, group) in [(64, 16), (96, 96), (33, 11)] {
        cases.push(RowCase::new(RowOp::Mul { a: A, b: B, group }, width));
    }
    cases.extend(ops(MLP).map(|c| case(c).timed()).into_iter().filter(|c| c.kind() != "copy"));
    cases
}

/// Activations, alone and gated.
fn activations() -> Vec<RowCase> {
    let acts = [
        Act::Silu,
        Act::GeluTanh,
        Act::Relu,
        Act::Sigmoid,
        Act::Tanh,
        Act::SwigluOss { alpha: 1.702, limit: 3.5 },
        Act::SiluClamped { limit: 2.5 },
    ];
    // Few elements may all be where an activation vanishes; so far out its digits are those of the exponential alone.
    let case = |op, n| RowCase { size: if n < 7 { 5.0 } else { 8.0 }, ..RowCase::new(op, n) };
    let mut cases = Vec::new();
    for act in acts {
        for n in LENGTHS.into_iter().chain([64]) {
            cases.push(case(RowOp::GatedAct { act, gate: A, up: B }, n));
            cases.push(case(RowOp::Act { act, src: A }, n));
        }
        cases.push(case(RowOp::GatedAct { act, gate: A, up: B }, MLP).timed());
    }
    for act in [Act::Sigmoid, Act::Tanh] {
        cases.push(case(RowOp::Act { act, src: A }, MLP).timed());
    }
    cases
}

/// Rotations of three heads: of all of a head, of its first dimensions, its last, some in between, none.
fn rotations() -> Vec<RowCase> {
    let both = [RopeLayout::Half, RopeLayout::Interleaved];
    let case = |layout, n_heads: usize, head_dim, rotary, first_dim, back| {
        let freqs = RopeFreqs::Fixed(RopeSpec::base_inv_freq(10_000.0, rotary));
        let spec = RopeSpec { first_dim, attention_factor: 1.25, back, ..RopeSpec::new(layout, rotary, freqs) };
        let op = RowOp::Rope { src: A, rope: RopeId(0), head_dim };
        RowCase { rope: Some(spec), ..RowCase::new(op, n_heads * head_dim) }
    };
    let mut cases = Vec::new();
    for layout in both {
        for (head_dim, rotary, first, back) in [
            (2, 2, 0, 0),
            (3, 2, 0, 0),
            (16, 16, 0, 0),
            (16, 8, 8, 3),
            (24, 24, 0, 0),
            (24, 10, 0, 0),
            (24, 10, 14, 3),
            (64, 64, 0, 0),
            (80, 32, 7, 0),
            (1, 0, 0, 0),
        ] {
            cases.push(case(layout, 3, head_dim, rotary, first, back));
        }
        cases.push(case(layout, MLP / HEAD, HEAD, HEAD, 0, 0).timed());
    }
    // The other way round.
    for backwards in cases.clone().iter_mut().filter(|c| !c.speed) {
        backwards.rope = backwards.rope.as_ref().and_then(RopeSpec::inverse);
        cases.push(backwards.clone());
    }
    cases
}

/// Groups of columns cut out, and joined again.
fn columns() -> Vec<RowCase> {
    let cut =
        |groups: usize, period, offset, len| RowCase::new(RowOp::Columns { src: A, period, offset, len }, groups * len);
    let join =
        |groups: usize, a: usize, b: usize| RowCase::new(RowOp::Join { a: A, b: B, lens: [a, b] }, groups * (a + b));
    let mut cases = Vec::new();
    for (groups, a, b) in
        [(1, 1, 1), (3, 5, 2), (7, 64, 33), (2, 1, 100), (4, 8, 8), (4, 5, 11), (1, 64, 32), (3, 1, 10)]
    {
        cases.extend([cut(groups, a + b, 0, a), cut(groups, a + b, a, b), join(groups, a, b)]);
    }
    for (groups, period, offset, len) in [(4, 16, 4, 8), (4, 16, 3, 5), (1, 96, 32, 64), (3, 11, 0, 1)] {
        cases.push(cut(groups, period, offset, len));
    }
    let heads = MLP / HEAD;
    cases.extend([cut(heads, HEAD, 32, 32).timed(), join(heads, 32, 32).timed()]);
    cases
}

/// Streams side by side, and activations that their own statistics make sparse.
fn streams() -> Vec<RowCase> {
    let case = |op, width, widths| RowCase::new(RowOp::Streams { a: A, b: B, op, widths }, width);
    let ops = |width: usize, inputs: usize, outputs: usize| {
        // A floor above and below what the streams have.
        let [low, high] = [1e-5, 10.0].map(|floor| StreamOp::MatchRms { floor });
        [
            case(StreamOp::Mix { inputs, offset: 0.5 }, outputs * width, [inputs * width, outputs * inputs]),
            case(StreamOp::Mix { inputs: 1, offset: 1.0 }, outputs * width, [width, outputs]),
            case(low, inputs * width, [inputs * width, width]),
            case(high, inputs * width, [inputs * width, width]),
            case(StreamOp::Add, inputs * width, [inputs * width, width]),
        ]
    };
    let sparse = |n, deviations| RowCase::new(RowOp::Sparsify { src: A, deviations }, n);
    let mut cases = Vec::new();
    for (width, inputs, outputs) in [(1, 1, 1), (3, 2, 2), (7, 3, 2), (16, 4, 4), (64, 4, 4), (100, 1, 5), (384, 3, 3)]
    {
        // Small enough that a mean square may be below the floor.
        cases.extend(ops(width, inputs, outputs).map(|c| RowCase { size: 2.0, ..c }));
    }
    for n in [1, 5, 6, 16, 64, 100, 1152, 1153] {
        cases.extend([-0.5, 0.4, 0.8].map(|deviations| sparse(n, deviations)));
    }
    // Gemma 3n's four streams and MLP.
    cases.extend(ops(2048, 4, 4).map(RowCase::timed));
    cases.push(sparse(16384, 1.6448).timed());
    cases
}

/// Coefficients of hyper-connections: to read, write and mix, and to read alone.
fn hyper_connections() -> Vec<RowCase> {
    let mut cases = Vec::new();
    for (streams, iterations, speed) in [(1, 1, false), (2, 4, false), (4, 20, true), (3, 2, false), (8, 3, false)] {
        let op = HyperOp { streams, iterations, eps: 1e-3, scale: WeightId(0), base: WeightId(1) };
        for (width, scale) in [(streams * (streams + 2), &[0.7, -1.3, 2.1][..]), (streams, &[0.7])] {
            let op = RowOp::Hyper { src: A, op: op.clone() };
            let mut case = RowCase { size: 1.0, speed, ..RowCase::with_vectors(op, width, &[scale.len(), width]) };
            case.vectors[0] = scale.to_vec();
            cases.push(case);
        }
    }
    cases
}
