//! Row programs on every device against an interpreter in f64: the cases of `cases::row_tables`, and programs that lower to
//! fewer dispatches than they have instructions.

use std::collections::{BTreeSet, HashMap};

use super::{
    Place,
    rows::{Extra, Places, lower},
    step_tests::{Sequence, TestStep, error},
};
use crate::{
    cases::{
        linear::embeds,
        random,
        route::route_differs,
        row_tables::row_cases,
        rows::{RowAt, RowCase, RowContext, row_f64},
    },
    format::{Bytes, Tensor},
    gpu::{Gpu, testing},
    graph::{
        Graph, GraphBuilder, NormKind, NormOp, RouteOp, RowInstr, RowOp, RowProgram, Rows, Src, ValueId, WeightId,
    },
};

const TOKENS: [u32; 5] = [3, 0, 299, 17, 256];

/// Weights: 0 and 1 are of the row's width, 2 and 3 of a head's, the rest tables.
fn graph(width: usize, head: usize) -> Graph {
    let mut g = GraphBuilder::new();
    for (i, n) in [width, width, head, head].into_iter().enumerate() {
        g.weight(&format!("vector {i}"), Tensor::from_f32(vec![n], &random(10 + i as u64, n)).unwrap());
    }
    for case in embeds().into_iter().filter(|case| case.width == width) {
        let table = Tensor::new(case.dtype, vec![case.rows, width], Bytes::heap(case.table()));
        g.weight(case.dtype.name(), table.unwrap());
    }
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
    /// Elements of inputs are between ± this.
    size: f32,
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
        self.check_on(testing::gpus(), dispatches);
    }

    fn check_on(&self, gpus: &[Gpu], dispatches: usize) {
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
                    *to = x * self.size;
                }
            }
        }
        let expected = self.reference(|p, row| arena[at(p, row)..][..self.width].to_vec(), &values, &vectors, &offsets);
        let place = |s: Src| match s {
            Src::Value(v) => values[&v],
            Src::Temp(t) => temps[&t],
        };
        for gpu in gpus {
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
                    let (got, expected) = (&out[at(&temps[&(i as u16)], row)..][..instr.width], &expected[i][row]);
                    let why = match instr.op {
                        RowOp::Route { .. } => route_differs(got, expected, 1e-5),
                        _ => {
                            Some(error(got.iter().copied(), expected)).filter(|e| *e >= 5e-6).map(|e| format!("{e:e}"))
                        }
                    };
                    if let Some(why) = why {
                        panic!("{} {:?} row {row}, {} wide: {why}", gpu.name(), instr.op, instr.width);
                    }
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
                let token = TOKENS[token_row] as usize;
                if let RowOp::Embed { table, scale, .. } = &instr.op {
                    let mut x = vec![0.0; self.width];
                    self.graph.weight(*table).decode_row(token, &mut x);
                    return x.into_iter().map(|x| f64::from(x) * f64::from(*scale)).collect();
                }
                let [a, b] = instr.op.srcs().map(|s| s.map_or(Vec::new(), |s| src(&s)));
                let vector = |w: WeightId| vectors[offsets[&w.0] as usize..].to_vec();
                let at = RowAt { position: self.step.positions()[token_row].1, token };
                row_f64(
                    &instr.op,
                    instr.width,
                    [&a, &b],
                    &RowContext { vector: &vector, ropes: self.graph.ropes(), at },
                )
            });
            let all = all.collect();
            done.push(all);
        }
        done
    }
}

fn step(graph: &Graph) -> TestStep {
    let one = |rows, cached| Sequence { rows, cached, dropped_pages: 0 };
    TestStep::new(&[one(1, 70), one(4, 9)], &[0, 4, 3], graph.ropes())
}

fn program(rows: Rows, width: usize, instrs: Vec<(RowOp, Option<u32>)>) -> RowProgram {
    let instrs = instrs.into_iter().map(|(op, store)| RowInstr { op, width, store: store.map(ValueId) });
    RowProgram { rows, instrs: instrs.collect() }
}

/// Checks a program of instructions that are all `width` wide.
fn check(
    graph: &Graph,
    step: &TestStep,
    width: usize,
    rows: Rows,
    result: Option<Src>,
    dispatches: usize,
    instrs: Vec<(RowOp, Option<u32>)>,
) {
    Case { graph, step, width, program: program(rows, width, instrs), result, size: 5.0 }.check(dispatches);
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
        let run = |rows, result, dispatches, instrs| check(&graph, &step, width, rows, result, dispatches, instrs);
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
fn chains_fold_into_their_adds() {
    for (width, head) in [(3, 3), (64, 16), (1153, 1)] {
        let graph = graph(width, head);
        let step = step(&graph);
        let run = |rows, result, dispatches, instrs| check(&graph, &step, width, rows, result, dispatches, instrs);
        let chain = vec![
            (RowOp::Scale { src: V0, factor: -2.5 }, None),
            (RowOp::Add { a: V1, b: T0 }, Some(3)),
            (RowOp::Softcap { src: T1, cap: 3.0 }, Some(4)),
            (RowOp::Copy { src: T2 }, Some(5)),
        ];
        run(Rows::Token, None, 3, chain);
        run(Rows::Output, None, 1, vec![(RowOp::Copy { src: V1 }, Some(3))]);
        run(Rows::Output, Some(T0), 1, vec![(RowOp::Scale { src: V2, factor: 0.5 }, None)]);
        // A weight and a bias without a norm.
        let only = NormOp { eps: 0.0, ..norm(NormKind::None, width, Some(0), Some(1)) };
        run(Rows::Token, None, 1, vec![(RowOp::Norm { src: V0, norm: only.clone() }, Some(3))]);
        run(Rows::Output, None, 1, vec![(RowOp::Norm { src: V0, norm: only }, Some(3))]);
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
            Case { graph: &graph, step: &step, width, program, result: None, size: 5.0 }.check(5);
        }
    }
}

/// Cases whose kind passes, on every device; those of the choice of experts, each of which wants a pipeline of its own, on
/// one by turns.
fn check_kinds(kinds: impl Fn(&str) -> bool) {
    let gpus = testing::gpus();
    for (i, case) in row_cases().iter().enumerate().filter(|(_, case)| kinds(case.kind())) {
        // The graph refuses those that are only gated.
        if matches!(case.op, RowOp::Act { act, .. } if act.gated_only()) {
            continue;
        }
        // Errors are relative to the row's largest element, which may be where an activation vanishes if there are few.
        if matches!(case.kind(), "act" | "gated_act") && case.width < 3 {
            continue;
        }
        let both = [Rows::Token, Rows::Output];
        if case.kind() == "route" {
            let one = gpus.chunks(1).nth(i % gpus.len().max(1)).unwrap_or_default();
            check_case(case, both[i / gpus.len().max(1) % 2], one);
        } else {
            both.into_iter().for_each(|rows| check_case(case, rows, gpus));
        }
    }
}

fn check_case(case: &RowCase, rows: Rows, gpus: &[Gpu]) {
    let mut g = GraphBuilder::new();
    for (i, vector) in case.vectors.iter().enumerate() {
        g.weight(&format!("vector {i}"), Tensor::from_f32(vec![vector.len()], vector).unwrap());
    }
    if let Some(rope) = &case.rope {
        g.rope_spec(rope.clone());
    }
    let graph = g.finish(ValueId(0));
    let step = step(&graph);
    let [a, b] = case.input_widths();
    let instrs = vec![RowInstr { op: case.op.clone(), width: case.width, store: Some(ValueId(3)) }];
    let program = RowProgram { rows, instrs };
    let width = case.width.max(a).max(b);
    Case { graph: &graph, step: &step, width, program, result: None, size: case.size }.check_on(gpus, 1);
}

/// Kinds with a test of their own.
const OWN: [&str; 5] = ["norm", "act", "gated_act", "rope", "route"];
const OF_STREAMS: [&str; 3] = ["streams", "sparsify", "hyper"];

#[test]
fn norms_match_f64() {
    check_kinds(|kind| kind == "norm");
}

#[test]
fn activations_match_f64() {
    check_kinds(|kind| kind == "act" || kind == "gated_act");
}

#[test]
fn rotations_match_f64() {
    check_kinds(|kind| kind == "rope");
}

#[test]
fn routes_match_f64() {
    check_kinds(|kind| kind == "route");
}

#[test]
fn streams_match_f64() {
    check_kinds(|kind| OF_STREAMS.contains(&kind));
}

#[test]
fn all_other_ops_match_f64() {
    check_kinds(|kind| !OWN.contains(&kind) && !OF_STREAMS.contains(&kind));
}

#[test]
fn embeddings_of_every_format_match_the_scalar_decode() {
    let widths: BTreeSet<usize> = embeds().iter().map(|case| case.width).collect();
    for width in widths {
        let graph = graph(width, 16);
        let step = step(&graph);
        for table in 4..graph.weights().count() as u32 {
            let rows = if table % 2 == 0 { Rows::Token } else { Rows::Output };
            let embed = RowOp::Embed { table: WeightId(table), scale: 1.5, or_first: false };
            check(&graph, &step, width, rows, None, 1, vec![(embed, Some(3))]);
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
