//! Row programs on every device against an interpreter in f64.

use std::collections::HashMap;

use super::{
    Place,
    rows::{Extra, Places, lower},
    step_tests::{Sequence, TestStep, error},
};
use crate::{
    cpu::ops::testing::{act_f64, hyper_f64, random},
    format::{Bytes, Tensor},
    gpu::testing,
    graph::{
        Act, Graph, GraphBuilder, HyperOp, NormKind, NormOp, PositionScale, RopeFreqs, RopeId, RopeLayout, RopeSpec,
        RouteOp, RowInstr, RowOp, RowProgram, Rows, Src, StreamOp, ValueId, WeightId,
    },
    quant::DType,
};

const ACTS: [Act; 7] = [
    Act::Silu,
    Act::GeluTanh,
    Act::Relu,
    Act::Sigmoid,
    Act::Tanh,
    Act::SwigluOss { alpha: 1.702, limit: 3.5 },
    Act::SiluClamped { limit: 2.0 },
];

const TOKENS: [u32; 5] = [3, 0, 299, 17, 256];

/// Weights: 0 and 1 are of the row's width, 2 and 3 of a head's, the rest tables.
fn graph(width: usize, head: usize) -> Graph {
    let mut g = GraphBuilder::new();
    for (i, n) in [width, width, head, head].into_iter().enumerate() {
        g.weight(&format!("vector {i}"), Tensor::from_f32(vec![n], &random(10 + i as u64, n)).unwrap());
    }
    for dtype in DType::ALL {
        if width.is_multiple_of(dtype.block_len()) {
            let bytes = testing::random_weights(&mut testing::Random::new(77), dtype, 300 * width);
            g.weight(dtype.name(), Tensor::new(dtype, vec![300, width], Bytes::heap(bytes)).unwrap());
        }
    }
    for (layout, rotary_dims) in [(RopeLayout::Half, head / 4 * 2), (RopeLayout::Interleaved, head / 2 * 2)] {
        let freqs = RopeFreqs::Fixed(RopeSpec::base_inv_freq(1000.0, rotary_dims));
        g.rope_spec(RopeSpec { attention_factor: 1.2, ..RopeSpec::new(layout, rotary_dims, freqs) });
    }
    // The last dimensions of a head, backwards.
    let rotary_dims = head / 4 * 2;
    let freqs = RopeFreqs::Fixed(RopeSpec::base_inv_freq(1000.0, rotary_dims));
    let last = RopeSpec { first_dim: head - rotary_dims, ..RopeSpec::new(RopeLayout::Interleaved, rotary_dims, freqs) };
    g.rope_spec(RopeSpec { back: 3, ..last.inverse().expect("fixed frequencies") });
    g.finish(ValueId(0))
}

fn norm(kind: NormKind, group: usize, weight: Option<u32>, bias: Option<u32>) -> NormOp {
    let weight_offset = if weight.is_some() { 1.0 } else { 0.0 };
    NormOp { kind, weight: weight.map(WeightId), weight_offset, bias: bias.map(WeightId), eps: 1e-3, group }
}

struct Case<'a> {
    graph: &'a Graph,
    step: &'a TestStep,
    width: usize,
    program: RowProgram,
    result: Option<Src>,
}

impl Case<'_> {
    /// Values 0 and 1 are inputs with a row per token, value 2 one with a row per output.
    fn rows_of(&self, v: ValueId) -> Rows {
        match v.0 {
            0 | 1 => Rows::Token,
            2 => Rows::Output,
            _ => self.program.rows,
        }
    }

    fn places(&self, n_values: u32) -> (HashMap<ValueId, Place>, HashMap<u16, Place>, usize) {
        let counts = [Rows::Token, Rows::Output].map(|r| (r, self.step.count(r)));
        let stride = self.width.next_multiple_of(16);
        // The two kinds of rows have regions of their own; values lie one after the other.
        let mut values = HashMap::new();
        let mut temps = HashMap::new();
        let mut base = 16;
        for (rows, count) in counts {
            let mut offset = 0;
            let mut next = || {
                let place = Place { base: base as u32, offset: offset as u32, stride: stride as u32, rows };
                offset += stride;
                place
            };
            for v in (0..n_values).map(ValueId).filter(|v| self.rows_of(*v) == rows) {
                values.insert(v, next());
            }
            if rows == self.program.rows {
                for (i, instr) in self.program.instrs.iter().enumerate() {
                    temps.insert(i as u16, instr.store.map_or_else(&mut next, |v| values[&v]));
                }
            }
            base += offset * count + 16;
        }
        (values, temps, base)
    }

    fn check(&self, dispatches: usize) {
        let stored = self.program.instrs.iter().filter_map(|i| i.store).map(|v| v.0).max().unwrap_or(2);
        let (values, temps, len) = self.places(stored.max(2) + 1);
        let at = |p: &Place, row: usize| {
            (p.base + p.offset * self.step.count(p.rows) as u32 + p.stride * row as u32) as usize
        };
        let mut vectors = vec![f32::NAN; 4];
        let mut offsets = HashMap::new();
        for (i, (_, tensor)) in self.graph.weights().enumerate() {
            if tensor.shape().len() == 1 {
                offsets.insert(i as u32, vectors.len() as u32);
                let mut row = vec![0.0; tensor.row_len()];
                tensor.dtype().decode_row(tensor.bytes(), &mut row).unwrap();
                vectors.extend(row);
                vectors.resize(vectors.len().next_multiple_of(16), f32::NAN);
            }
        }
        let mut arena = vec![f32::NAN; len];
        for v in 0..3 {
            let p = values[&ValueId(v)];
            for row in 0..self.step.count(p.rows) {
                let x = random(100 * u64::from(v) + row as u64, self.width);
                for (to, x) in arena[at(&p, row)..].iter_mut().zip(x) {
                    *to = x * 5.0;
                }
            }
        }
        let expected = self.reference(|p, row| arena[at(p, row)..][..self.width].to_vec(), &values, &vectors, &offsets);
        let place = |s: Src| match s {
            Src::Value(v) => values[&v],
            Src::Temp(t) => temps[&t],
        };
        for gpu in testing::gpus() {
            let table = |w: WeightId| Ok(vec![(0..self.graph.weight(w).rows() as u32, PADDING as u64)]);
            let find = Places { place: &place, vector: &|w| offsets[&w.0], table: &table };
            let lowered = lower(gpu.caps(), self.graph, &self.program, self.result, &find).unwrap();
            assert_eq!(lowered.len(), dispatches, "{:?}", self.program);
            let mut out = arena.clone();
            for d in &lowered {
                let mut more: Vec<Vec<u8>> = match d.extra {
                    Extra::None => vec![],
                    Extra::Tokens => vec![bytemuck::cast_slice(&TOKENS).to_vec()],
                    Extra::Rope => vec![bytemuck::cast_slice(&self.step.ropes).to_vec()],
                    Extra::Table { weight, ref rows } => {
                        vec![window(self.graph, weight, rows), bytemuck::cast_slice(&TOKENS).to_vec()]
                    }
                };
                let mut more: Vec<&mut Vec<u8>> = more.iter_mut().collect();
                self.step.run(gpu, &d.dispatch, &mut out, &vectors, &mut more);
            }
            for (i, instr) in self.program.instrs.iter().enumerate() {
                if instr.store.is_none() && self.result != Some(Src::Temp(i as u16)) {
                    continue;
                }
                for row in 0..self.step.count(self.program.rows) {
                    let got = out[at(&temps[&(i as u16)], row)..][..instr.width].iter().copied();
                    let e = error(got, &expected[i][row]);
                    assert!(e < 5e-6, "{} {:?} row {row}, {} wide: {e:e}", gpu.name(), instr.op, self.width);
                }
            }
            let written: usize = out.iter().zip(&arena).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert!(written <= self.program.instrs.len() * self.width * self.step.count(self.program.rows));
        }
    }

    /// By instruction, by row.
    fn reference(
        &self,
        read: impl Fn(&Place, usize) -> Vec<f32>,
        values: &HashMap<ValueId, Place>,
        vectors: &[f32],
        offsets: &HashMap<u32, u32>,
    ) -> Vec<Vec<Vec<f64>>> {
        let mut done: Vec<Vec<Vec<f64>>> = Vec::new();
        for instr in &self.program.instrs {
            let rows = 0..self.step.count(self.program.rows);
            let all = rows.map(|row| {
                let token_row = match self.program.rows {
                    Rows::Token => row,
                    Rows::Output => self.step.outputs[row] as usize,
                };
                let src = |s: &Src| match s {
                    Src::Temp(t) => done[*t as usize][row].clone(),
                    Src::Value(v) => {
                        let p = values[v];
                        let row = if p.rows == Rows::Token { token_row } else { row };
                        read(&p, row).into_iter().map(f64::from).collect()
                    }
                };
                match &instr.op {
                    RowOp::Embed { table, scale, .. } => {
                        let t = self.graph.weight(*table);
                        let id = TOKENS[token_row] as usize;
                        let mut x = vec![0.0; self.width];
                        t.dtype().decode_row(&t.bytes()[id * t.row_bytes()..][..t.row_bytes()], &mut x).unwrap();
                        x.into_iter().map(|x| f64::from(x) * f64::from(*scale)).collect()
                    }
                    RowOp::Norm { src: s, norm } => {
                        let vector = |id: Option<WeightId>, i: usize, or: f64| {
                            id.map_or(or, |id| f64::from(vectors[offsets[&id.0] as usize + i]))
                        };
                        let one = |x: &[f64]| {
                            let n = x.len() as f64;
                            let mean = if norm.kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
                            let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                            let root = (var + f64::from(norm.eps)).sqrt();
                            let root = if norm.kind == NormKind::None { 1.0 } else { root };
                            let each = |(i, x): (usize, &f64)| {
                                let w = vector(norm.weight, i, 1.0) + f64::from(norm.weight_offset);
                                (x - mean) / root * w + vector(norm.bias, i, 0.0)
                            };
                            x.iter().enumerate().map(each).collect::<Vec<_>>()
                        };
                        src(s).chunks(norm.group).flat_map(one).collect()
                    }
                    RowOp::Add { a, b } => src(a).iter().zip(src(b)).map(|(a, b)| a + b).collect(),
                    RowOp::GatedAct { act, gate, up } => {
                        src(gate).iter().zip(src(up)).map(|(g, u)| act_f64(*act, *g, u)).collect()
                    }
                    RowOp::Act { act, src: s } => src(s).iter().map(|g| act_f64(*act, *g, 1.0)).collect(),
                    RowOp::Mul { a, b, group } => {
                        let b = src(b);
                        src(a).iter().enumerate().map(|(i, a)| a * b[i / group]).collect()
                    }
                    RowOp::Streams { a, b, op, widths } => streams_f64(*op, &src(a)[..widths[0]], &src(b)[..widths[1]]),
                    RowOp::Hyper { src: s, op } => {
                        let vector = |w: WeightId| &vectors[offsets[&w.0] as usize..];
                        hyper_f64(op, &src(s), vector(op.scale), vector(op.base))
                    }
                    RowOp::Sparsify { src: s, deviations } => {
                        let x = src(s);
                        let n = x.len() as f64;
                        let mean = x.iter().sum::<f64>() / n;
                        let std = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
                        x.iter().map(|x| (x - mean - f64::from(*deviations) * std).max(0.0)).collect()
                    }
                    RowOp::Columns { src: s, period, offset, len } => {
                        src(s).chunks(*period).flat_map(|x| x[*offset..offset + len].to_vec()).collect()
                    }
                    RowOp::Join { a, b, lens } => {
                        let (a, b) = (src(a), src(b));
                        a.chunks(lens[0]).zip(b.chunks(lens[1])).flat_map(|(a, b)| [a, b].concat()).collect()
                    }
                    RowOp::PositionScale { src: s, scale } => {
                        let factor = f64::from(scale.factor(self.step.positions()[token_row].1));
                        src(s).iter().map(|x| x * factor).collect()
                    }
                    RowOp::Route { .. } | RowOp::ExpertSum { .. } => unreachable!("not among the programs here"),
                    RowOp::Scale { src: s, factor } => src(s).iter().map(|x| x * f64::from(*factor)).collect(),
                    RowOp::Softcap { src: s, cap } => {
                        src(s).iter().map(|x| f64::from(*cap) * (x / f64::from(*cap)).tanh()).collect()
                    }
                    RowOp::Copy { src: s } => src(s),
                    RowOp::Rope { src: s, rope, head_dim } => {
                        let spec = &self.graph.ropes()[rope.0 as usize];
                        let position = self.step.positions()[token_row].1.saturating_sub(spec.back);
                        let mut x = src(s);
                        x.chunks_mut(*head_dim).for_each(|head| rotate(head, spec, &spec.inv_freq(0), position));
                        x
                    }
                }
            });
            let all = all.collect();
            done.push(all);
        }
        done
    }
}

/// What is done to streams, in f64.
fn streams_f64(op: StreamOp, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mean = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    match op {
        StreamOp::Mix { inputs, offset } => {
            let width = a.len() / inputs;
            let mixed = |coefs: &[f64], i: usize| -> f64 {
                let part = |(u, c): (usize, &f64)| (c + f64::from(offset)) * a[u * width + i];
                coefs.iter().enumerate().map(part).sum()
            };
            b.chunks(inputs).flat_map(|coefs| (0..width).map(|i| mixed(coefs, i)).collect::<Vec<_>>()).collect()
        }
        StreamOp::MatchRms { floor } => {
            let factor = |x: &[f64]| (mean(b) / mean(x).max(f64::from(floor))).sqrt();
            a.chunks(b.len()).flat_map(|x| x.iter().map(|v| v * factor(x)).collect::<Vec<_>>()).collect()
        }
        StreamOp::Add => a.iter().enumerate().map(|(i, x)| x + b[i % b.len()]).collect(),
    }
}

/// Turns a head in f64.
pub(super) fn rotate(head: &mut [f64], spec: &RopeSpec, inv_freq: &[f32], position: usize) {
    let half = spec.rotary_dims / 2;
    for (j, freq) in inv_freq.iter().enumerate() {
        let (a, b) = match spec.layout {
            RopeLayout::Half => (j, j + half),
            RopeLayout::Interleaved => (2 * j, 2 * j + 1),
        };
        let (a, b) = (spec.first_dim + a, spec.first_dim + b);
        let (s, c) = f64::from(position as f32 * freq).sin_cos();
        let f = f64::from(spec.attention_factor);
        let (x, y) = (head[a], head[b]);
        (head[a], head[b]) = ((x * c - y * s) * f, (x * s + y * c) * f);
    }
}

fn step(graph: &Graph) -> TestStep {
    let one = |rows, cached| Sequence { rows, cached, dropped_pages: 0 };
    TestStep::new(&[one(1, 70), one(4, 9)], &[0, 4, 3], graph.ropes(), 1)
}

fn program(rows: Rows, width: usize, instrs: Vec<(RowOp, Option<u32>)>) -> RowProgram {
    let instrs = instrs.into_iter().map(|(op, store)| RowInstr { op, width, store: store.map(ValueId) });
    RowProgram { rows, instrs: instrs.collect() }
}

const V0: Src = Src::Value(ValueId(0));
const V1: Src = Src::Value(ValueId(1));
const V2: Src = Src::Value(ValueId(2));
const T0: Src = Src::Temp(0);
const T1: Src = Src::Temp(1);
const T2: Src = Src::Temp(2);
const T3: Src = Src::Temp(3);

#[test]
fn norms_with_their_adds_match_f64() {
    for (width, head) in [(1, 1), (10, 5), (64, 16), (576, 64), (1153, 1153)] {
        let graph = graph(width, head);
        let step = step(&graph);
        let run = |rows, result, dispatches, instrs| {
            Case { graph: &graph, step: &step, width, program: program(rows, width, instrs), result }.check(dispatches);
        };
        let rms = || norm(NormKind::Rms, width, Some(0), None);
        let token = Rows::Token;
        run(token, Some(T0), 1, vec![(RowOp::Norm { src: V0, norm: rms() }, None)]);
        // A residual, kept and normalised.
        let add = RowOp::Add { a: V0, b: V1 };
        run(token, Some(T1), 1, vec![(add.clone(), Some(3)), (RowOp::Norm { src: T0, norm: rms() }, None)]);
        run(token, Some(T1), 1, vec![(add, None), (RowOp::Norm { src: T0, norm: rms() }, Some(3))]);
        // Norms before and after the residual.
        let sandwich = vec![
            (RowOp::Norm { src: V1, norm: norm(NormKind::Rms, width, Some(1), None) }, None),
            (RowOp::Add { a: V0, b: T0 }, Some(3)),
            (RowOp::Norm { src: T1, norm: rms() }, None),
        ];
        run(token, Some(T2), 1, sandwich);
        if width > 1 && width < 1000 {
            let layer = |w, b| norm(NormKind::Layer, width, w, b);
            run(token, None, 1, vec![(RowOp::Norm { src: V0, norm: layer(Some(0), Some(1)) }, Some(3))]);
            let heads = norm(NormKind::Rms, head, Some(2), None);
            run(token, None, 1, vec![(RowOp::Norm { src: V1, norm: heads }, Some(3))]);
            // Rows of outputs, of values with a row per token and per output; a scaled residual.
            let end = vec![
                (RowOp::Copy { src: V0 }, None),
                (RowOp::Scale { src: V2, factor: 0.3 }, None),
                (RowOp::Add { a: T0, b: T1 }, None),
                (RowOp::Norm { src: T2, norm: layer(None, None) }, None),
            ];
            run(Rows::Output, Some(T3), 1, end);
        }
    }
}

#[test]
fn elementwise_ops_match_f64() {
    for (width, head) in [(3, 3), (64, 16), (1153, 1)] {
        let graph = graph(width, head);
        let step = step(&graph);
        let run = |rows, result, dispatches, instrs| {
            Case { graph: &graph, step: &step, width, program: program(rows, width, instrs), result }.check(dispatches);
        };
        for act in ACTS {
            run(Rows::Token, Some(T0), 1, vec![(RowOp::GatedAct { act, gate: V0, up: V1 }, None)]);
            if !act.gated_only() {
                run(Rows::Output, Some(T0), 1, vec![(RowOp::Act { act, src: V0 }, None)]);
            }
        }
        run(Rows::Token, None, 1, vec![(RowOp::Mul { a: V0, b: V1, group: 1 }, Some(3))]);
        let scale = PositionScale { beta: 0.3, length: 7, offset: 2 };
        for rows in [Rows::Token, Rows::Output] {
            run(rows, None, 1, vec![(RowOp::PositionScale { src: V0, scale }, Some(3))]);
        }
        let chain = vec![
            (RowOp::Scale { src: V0, factor: -2.5 }, None),
            (RowOp::Add { a: V1, b: T0 }, Some(3)),
            (RowOp::Softcap { src: T1, cap: 3.0 }, Some(4)),
            (RowOp::Copy { src: T2 }, Some(5)),
        ];
        run(Rows::Token, None, 3, chain);
        run(Rows::Output, None, 1, vec![(RowOp::Copy { src: V1 }, Some(3))]);
        run(Rows::Output, Some(T0), 1, vec![(RowOp::Scale { src: V2, factor: 0.5 }, None)]);
        for rope in [RopeId(0), RopeId(1), RopeId(2)] {
            run(Rows::Output, None, 1, vec![(RowOp::Rope { src: V0, rope, head_dim: head }, Some(3))]);
        }
    }
}

#[test]
fn streams_match_f64() {
    for (width, streams) in [(6, 2), (64, 4), (1152, 3)] {
        let graph = graph(width, width / streams);
        let step = step(&graph);
        let one = width / streams;
        let ops = [
            (StreamOp::Mix { inputs: streams, offset: 0.5 }, [width, streams * streams]),
            (StreamOp::Mix { inputs: 1, offset: 1.0 }, [one, streams]),
            (StreamOp::MatchRms { floor: 1e-5 }, [width, one]),
            (StreamOp::MatchRms { floor: 10.0 }, [width, one]),
            (StreamOp::Add, [width, one]),
        ];
        for rows in [Rows::Token, Rows::Output] {
            let run = |op: RowOp| {
                let program = program(rows, width, vec![(op, Some(3))]);
                Case { graph: &graph, step: &step, width, program, result: None }.check(1);
            };
            ops.into_iter().for_each(|(op, widths)| run(RowOp::Streams { a: V0, b: V1, op, widths }));
            run(RowOp::Sparsify { src: V0, deviations: 0.4 });
            let only = NormOp { eps: 0.0, ..norm(NormKind::None, width, Some(0), Some(1)) };
            run(RowOp::Norm { src: V0, norm: only });
        }
    }
}

#[test]
fn coefficients_of_hyper_connections_match_f64() {
    for (streams, iterations) in [(1, 1), (2, 4), (4, 20), (8, 3)] {
        for width in [streams, streams * (streams + 2)] {
            // Vector 0 is the base; three elements of vector 2 are the scale.
            let graph = graph(width, 3);
            let step = step(&graph);
            let op = HyperOp { streams, iterations, eps: 1e-3, scale: WeightId(2), base: WeightId(0) };
            for rows in [Rows::Token, Rows::Output] {
                let program = program(rows, width, vec![(RowOp::Hyper { src: V0, op: op.clone() }, Some(3))]);
                Case { graph: &graph, step: &step, width, program, result: None }.check(1);
            }
        }
    }
}

#[test]
fn columns_are_cut_joined_and_gated() {
    for (width, period, offset, len) in [(64, 16, 4, 8), (64, 16, 3, 5), (96, 96, 32, 64), (33, 11, 0, 1)] {
        let graph = graph(width, period);
        let step = step(&graph);
        let columns = |src, offset, len| RowOp::Columns { src, period, offset, len };
        let groups = width / period;
        let instr = |op, width, store: Option<u32>| RowInstr { op, width, store: store.map(ValueId) };
        for rows in [Rows::Token, Rows::Output] {
            let instrs = vec![
                instr(columns(V0, offset, len), groups * len, Some(3)),
                instr(columns(V1, 0, period - len), groups * (period - len), Some(4)),
                instr(RowOp::Join { a: T0, b: T1, lens: [len, period - len] }, width, Some(5)),
                instr(columns(V1, 0, 1), groups, None),
                instr(RowOp::Mul { a: T2, b: T3, group: period }, width, Some(6)),
            ];
            let program = RowProgram { rows, instrs };
            Case { graph: &graph, step: &step, width, program, result: None }.check(5);
        }
    }
}

#[test]
fn embeddings_of_every_format_match_the_scalar_decode() {
    for width in [256, 96] {
        let graph = graph(width, 16);
        let step = step(&graph);
        for table in 4..graph.weights().count() as u32 {
            let rows = if table % 2 == 0 { Rows::Token } else { Rows::Output };
            let embed = RowOp::Embed { table: WeightId(table), scale: 1.5, or_first: false };
            let program = program(rows, width, vec![(embed, Some(3))]);
            Case { graph: &graph, step: &step, width, program, result: None }.check(1);
        }
    }
}

/// Bytes before a table's first row in its binding: where it lies in a file is no binding's alignment.
const PADDING: usize = 12;

/// What a binding shows of some rows of a table.
fn window(graph: &Graph, table: WeightId, rows: &std::ops::Range<u32>) -> Vec<u8> {
    let tensor = graph.weight(table);
    let row = tensor.row_bytes();
    let mut bytes = vec![0xa5; PADDING];
    bytes.extend(&tensor.bytes()[rows.start as usize * row..rows.end as usize * row]);
    bytes
}

#[test]
fn large_tables_come_in_windows() {
    let Some(gpu) = testing::gpus().first() else { return };
    // Two windows write each row once.
    let (graph, width) = (graph(256, 16), 256);
    let step = step(&graph);
    let embed = RowOp::Embed { table: WeightId(4), scale: 1.0, or_first: false };
    let program = program(Rows::Token, width, vec![(embed, Some(3))]);
    let place = |_| Place { base: 0, offset: 0, stride: 256, rows: Rows::Token };
    let n = graph.weight(WeightId(4)).rows() as u32;
    let table = |_| Ok(vec![(0..n / 3, PADDING as u64), (n / 3..n, PADDING as u64)]);
    let places = Places { place: &place, vector: &|_| 0, table: &table };
    let lowered = lower(gpu.caps(), &graph, &program, None, &places).unwrap();
    assert_eq!(lowered.len(), 2);
    let mut arena = vec![f32::NAN; 256 * TOKENS.len()];
    for d in &lowered {
        let Extra::Table { weight, ref rows } = d.extra else { panic!("no table") };
        let mut bytes = window(&graph, weight, rows);
        let mut tokens = bytemuck::cast_slice(&TOKENS).to_vec();
        step.run(gpu, &d.dispatch, &mut arena, &[], &mut [&mut bytes, &mut tokens]);
    }
    let table: Vec<f32> = bytemuck::pod_collect_to_vec(graph.weight(WeightId(4)).bytes());
    for (row, id) in TOKENS.into_iter().enumerate() {
        assert_eq!(arena[row * 256..][..256], table[id as usize * 256..][..256]);
    }
}

#[test]
fn the_route_of_no_token_stays_within_its_table() {
    let Some(gpu) = testing::gpus().first() else { return };
    let (n, k, ids) = (8, 2, 5);
    let mut g = GraphBuilder::new();
    let table: Vec<f32> = (0..ids).flat_map(|id| [id % n, (id + 3) % n]).map(|e| e as f32).collect();
    let id = g.weight("table", Tensor::from_f32(vec![ids * k], &table).unwrap());
    let graph = g.finish(ValueId(0));
    let op = RouteOp { table: Some(id), ..RouteOp::softmax(n, k) };
    let program = program(Rows::Token, 2 * k, vec![(RowOp::Route { src: Src::Value(ValueId(0)), route: op }, Some(3))]);
    let at = |offset| Place { base: 0, offset, stride: 16, rows: Rows::Token };
    let place = |src| if src == Src::Value(ValueId(0)) { at(0) } else { at(16) };
    let places = Places { place: &place, vector: &|_| 0, table: &|_| Ok(Vec::new()) };
    let lowered = lower(gpu.caps(), &graph, &program, None, &places).unwrap();
    let mut arena = random(5, 32 * TOKENS.len());
    // What sampling leaves where no logit is a number, and the nearest beyond the table.
    let tokens = [3, 0, u32::MAX, ids as u32, 4];
    let mut bytes = bytemuck::cast_slice(&tokens).to_vec();
    step(&graph).run(gpu, &lowered[0].dispatch, &mut arena, &table, &mut [&mut bytes]);
    for (row, token) in tokens.into_iter().enumerate() {
        let own = (token as usize).min(ids - 1) * k;
        assert_eq!(arena[16 * TOKENS.len() + 16 * row..][..k], table[own..][..k], "token {token}");
    }
}
