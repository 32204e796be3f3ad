//! Calls that together reach every path from an op to a kernel, on adapters of every kind.

use handmill_shaders::Defines;

use crate::{
    format::{Bytes, Tensor},
    gpu::{
        Access, Caps, Kernel,
        ops::{
            Place,
            attention::{self, AttentionPlaces, BlockPlaces},
            linear::{self, HeadCall, InputNorm, LinearCall, LinearPart, PartScales},
            recurrent,
            rows::{self, Places},
            sample,
        },
    },
    graph::{
        Act, AttentionOp, AttentionStage, CacheId, GatedDeltaOp, Graph, GraphBuilder, HeadOp, HyperOp, NormKind,
        NormOp, PositionScale, RopeFreqs, RopeId, RopeLayout, RopeSpec, RowInstr, RowOp, RowProgram, Rows, ShortConvOp,
        Src, StateId, StreamOp, ValueId, WeightId,
    },
    quant::DType,
    step::KvType,
};

const ACTS: [Act; 7] = [
    Act::Silu,
    Act::GeluTanh,
    Act::Relu,
    Act::Sigmoid,
    Act::Tanh,
    Act::SwigluOss { alpha: 1.702, limit: 7.0 },
    Act::SiluClamped { limit: 10.0 },
];

/// Hands every kernel that some host function makes to `found`, with an adapter that it is for; most come often.
pub fn all(found: &mut dyn FnMut(&Caps, &Kernel)) {
    let linear = linear_calls();
    let rows: Vec<_> = [(256, 64, 0), (5120, 128, 0), (256, 64, 1), (35, 7, 0)]
        .map(|(width, head, skew)| (row_graph(width, head), width, head, skew))
        .into_iter()
        .map(|(graph, width, head, skew)| (row_programs(&graph, width, head), graph, skew))
        .collect();
    for caps in super::adapters::all() {
        // Some hundred combinations of formats and defines say no more for every size of subgroups.
        let typical = matches!(caps.subgroups, None | Some((8, 8) | (32, 32) | (4, 64)));
        for call in linear.iter().filter(|call| typical || is_plain(call)) {
            linear_kernels(&caps, call, found);
        }
        for (programs, graph, skew) in &rows {
            programs.iter().for_each(|(program, result)| row_kernels(&caps, graph, program, *result, *skew, found));
        }
        attention_kernels(&caps, found);
        super::select::all(&caps, found);
        recurrent_kernels(&caps, found);
        if typical {
            super::experts::all(&caps, found);
        }
        let choosing = sample::dispatches(&caps, place(49152, 0, Rows::Output), 49152);
        let sample::SampleDispatches { adjust, chunks, choose, restore, log_probabilities } = choosing;
        [adjust, chunks, choose, restore, log_probabilities].iter().for_each(|d| found(&caps, &d.kernel));
        for kernel in others() {
            found(&caps, &kernel);
        }
    }
}

/// Steps with states.
fn recurrent_kernels(caps: &Caps, found: &mut dyn FnMut(&Caps, &Kernel)) {
    found(caps, &recurrent::begin(caps, 1 << 20).kernel);
    let (state, weight) = (StateId(0), WeightId(0));
    for taps in [2, 4] {
        let places = [0, 1].map(|_| place(8192, 0, Rows::Token));
        let op = ShortConvOp { state, weight, taps };
        found(caps, &recurrent::short_conv(caps, &op, 8192, 0, places).kernel);
    }
    for (k_dim, v_dim) in [(16, 16), (33, 40), (128, 128), (256, 64), (512, 512)] {
        let op = GatedDeltaOp {
            state,
            n_k_heads: 2,
            n_v_heads: 4,
            k_dim,
            v_dim,
            decay: weight,
            decay_log: true,
            dt_bias: weight,
            tiled: false,
        };
        let places = [2 * 2 * k_dim + 4 * v_dim, 4, 4, 4 * v_dim].map(|n| place(n, 0, Rows::Token));
        found(caps, &recurrent::gated_delta(caps, "delta", &op, [0, 4], places).unwrap().kernel);
    }
}

/// Kernels that belong to no op: the one that measures bandwidth, and the one that tests the formats.
fn others() -> Vec<Kernel> {
    let unpack = |dtype: DType| Kernel {
        name: "unpack",
        defines: linear::with_format(Defines::new(), "", dtype),
        constants: Vec::new(),
        bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
    };
    DType::ALL.into_iter().map(unpack).chain([crate::gpu::Gpu::read_kernel()]).collect()
}

pub(super) fn place(stride: usize, skew: u32, rows: Rows) -> Place {
    Place { base: 4096 + skew, offset: 0, stride: (stride.next_multiple_of(16)) as u32 + skew, rows }
}

/// A call of `parts` (format and rows) over `k` elements, plain but for what `change` does to it.
pub(super) fn linear_call(parts: &[(DType, u32)], k: u32, skew: u32, change: impl Fn(&mut LinearCall)) -> LinearCall {
    let part = |&(dtype, rows): &(DType, u32)| LinearPart {
        dtype,
        rows,
        out: place(rows as usize, skew, Rows::Token),
        out_first: 0,
        bias: None,
        weight_byte: 0,
        row_bytes: dtype.row_bytes(k as usize).unwrap() as u64,
        scales: None,
    };
    let input = place(k as usize, skew, Rows::Token);
    let parts = parts.iter().map(part).collect();
    let mut call =
        LinearCall { input, k, parts, rows: Rows::Token, residual: None, gated: None, norm: None, heads: None };
    change(&mut call);
    call
}

/// One part, and nothing else to do.
fn is_plain(call: &LinearCall) -> bool {
    call.parts.len() == 1 && call.residual.is_none() && call.rows == Rows::Token && call.input.stride.is_multiple_of(4)
}

fn linear_calls() -> Vec<LinearCall> {
    let mut calls = Vec::new();
    let residual = |c: &mut LinearCall| c.residual = Some(c.parts[0].out);
    let outputs = |c: &mut LinearCall| {
        c.rows = Rows::Output;
        c.parts.iter_mut().for_each(|p| p.out.rows = Rows::Output);
    };
    for dtype in DType::ALL {
        // Of as many lengths as there are sizes of teams, some of which no power of two divides.
        for k in [1, 35, 64, 96, 256, 576, 768, 896, 2048, 2304, 4864, 8192] {
            if (k as usize).is_multiple_of(dtype.block_len()) {
                for n in [3, 576, 49152] {
                    calls.push(linear_call(&[(dtype, n)], k, 0, |_| {}));
                }
            }
        }
        // Places that are multiples of four elements, and others.
        let mut push = |parts: &[(DType, u32)], skews: &[u32], change: &dyn Fn(&mut LinearCall)| {
            calls.extend(skews.iter().map(|skew| linear_call(parts, 2048, *skew, change)));
        };
        let (one, two) = ([(dtype, 576)], [(dtype, 1536); 2]);
        push(&one, &[1], &|_| {});
        push(&one, &[0, 1], &residual);
        push(&one, &[0], &outputs);
        push(&one, &[0, 1], &|c| {
            residual(c);
            outputs(c);
        });
        push(&two, &[0], &|_| {});
        push(&[(dtype, 576), (dtype, 192), (dtype, 192)], &[0], &|_| {});
        push(&[(dtype, 576), (dtype, 192), (dtype, 192), (dtype, 8)], &[1], &residual);
        push(&two, &[0, 1], &|c| c.gated = Some(Act::Silu));
        push(&two, &[0], &|c| c.gated = Some(Act::GeluTanh));
        let normalised = |c: &mut LinearCall| {
            c.norm = Some(InputNorm { input: c.input, scale: 64, offset: 0.0, eps: 1e-5 });
        };
        push(&[(dtype, 576), (dtype, 192), (dtype, 192)], &[0], &normalised);
        push(&two, &[0], &|c| {
            normalised(c);
            c.gated = Some(Act::Silu);
        });
        push(&one, &[0], &|c| {
            normalised(c);
            outputs(c);
        });
        push(&two, &[1], &|c| {
            c.gated = Some(Act::GeluTanh);
            residual(c);
            outputs(c);
        });
        // Files mix formats within a layer.
        let other = |by: usize| {
            let at = DType::ALL.iter().position(|d| *d == dtype).unwrap_or_default();
            DType::ALL[(at + by) % DType::ALL.len()]
        };
        push(&[(dtype, 576), (dtype, 192), (other(1), 192)], &[0], &|_| {});
        push(&[(dtype, 576), (other(5), 192)], &[0], &residual);
        push(&[(dtype, 1536), (other(3), 1536)], &[0], &|c| c.gated = Some(Act::Silu));
        // Heads: k and rows are one's.
        for transposed in [false, true] {
            push(&one, &[0, 1], &|c| {
                if transposed {
                    c.parts[0].row_bytes = dtype.row_bytes(768).unwrap_or(768) as u64;
                    c.parts[0].rows = 768;
                }
                c.heads = Some(HeadCall { heads: 5, bytes: c.parts[0].row_bytes * 4096, transposed });
            });
        }
        if dtype == DType::F8_E4M3 {
            let scaled = |c: &mut LinearCall| {
                c.parts[0].scales = Some(PartScales { at: 64, first_row: 3, block: [128, 128], each: 0 });
            };
            push(&one, &[0, 1], &scaled);
            push(&[(dtype, 576), (DType::BF16, 192)], &[0], &scaled);
            for transposed in [false, true] {
                push(&[(dtype, 2048)], &[0], &|c| {
                    scaled(c);
                    c.heads = Some(HeadCall { heads: 5, bytes: c.parts[0].row_bytes * 4096, transposed });
                });
            }
        }
        if matches!(dtype, DType::F32 | DType::Q8_0) {
            ACTS.into_iter().for_each(|act| push(&two, &[0], &|c| c.gated = Some(act)));
        }
        push(&[(dtype, 576), (other(2), 192), (other(4), 192), (other(7), 5)], &[1], &outputs);
    }
    calls
}

fn linear_kernels(caps: &Caps, call: &LinearCall, found: &mut dyn FnMut(&Caps, &Kernel)) {
    for variant in linear::dispatches(caps, call).unwrap() {
        found(caps, &variant.dispatch.kernel);
    }
}

/// Weights: 0 and 1 vectors of the row's width, 2 and 3 of a head's, the rest tables in all formats that fit.
/// Ropes: 0 and 1 of both layouts, over part of a head.
fn row_graph(width: usize, head: usize) -> Graph {
    let mut g = GraphBuilder::new();
    for (i, n) in [width, width, head, head].into_iter().enumerate() {
        g.weight(&format!("vector {i}"), Tensor::from_f32(vec![n], &vec![0.0; n]).unwrap());
    }
    for dtype in DType::ALL {
        if let Some(bytes) = dtype.row_bytes(width) {
            g.weight(dtype.name(), Tensor::new(dtype, vec![1, width], Bytes::heap(vec![0; bytes])).unwrap());
        }
    }
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        let rotary_dims = head / 4 * 2;
        let freqs = RopeFreqs::Fixed(RopeSpec::base_inv_freq(1000.0, rotary_dims));
        g.rope_spec(RopeSpec { attention_factor: 1.0, ..RopeSpec::new(layout, rotary_dims, freqs) });
    }
    g.finish(ValueId(0))
}

/// Row programs that no dispatch gathers as another does, each with what its linear reads.
fn row_programs(graph: &Graph, width: usize, head: usize) -> Vec<(RowProgram, Option<Src>)> {
    let (v0, v1) = (Src::Value(ValueId(0)), Src::Value(ValueId(1)));
    let temp = Src::Temp;
    let norm = |src: Src, kind: NormKind, group: usize, bias: bool| {
        let first = if group == width { 0 } else { 2 };
        let bias = bias.then_some(WeightId(first + 1));
        let norm = NormOp { kind, weight: Some(WeightId(first)), weight_offset: 0.0, bias, eps: 1e-5, group };
        RowOp::Norm { src, norm }
    };
    let add = |a: Src, b: Src| RowOp::Add { a, b };
    let keep = Some(ValueId(2));
    let mut lists: Vec<Vec<(RowOp, Option<ValueId>)>> = Vec::new();
    for kind in [NormKind::Rms, NormKind::Layer, NormKind::None] {
        for bias in [false, true] {
            for group in [width, head] {
                lists.push(vec![(norm(v0, kind, group, bias), None)]);
            }
            for store in [None, keep] {
                let after = |src| norm(src, kind, width, bias);
                lists.push(vec![(add(v0, v1), store), (after(temp(0)), None)]);
                lists.push(vec![(after(v1), None), (add(v0, temp(0)), store), (after(temp(1)), None)]);
                lists.push(vec![(after(v1), None), (add(v0, temp(0)), store)]);
                let scale = (RowOp::Scale { src: v1, factor: 0.5 }, None);
                lists.push(vec![scale, (add(v0, temp(0)), store), (after(temp(1)), None)]);
            }
        }
    }
    lists.push(vec![(add(v0, v1), keep)]);
    lists.push(vec![(RowOp::Scale { src: v0, factor: 0.5 }, keep)]);
    lists.push(vec![(RowOp::Copy { src: v0 }, keep)]);
    lists.push(vec![(RowOp::Softcap { src: v0, cap: 30.0 }, keep)]);
    for act in ACTS {
        lists.push(vec![(RowOp::GatedAct { act, gate: v0, up: v1 }, keep)]);
        if !act.gated_only() {
            lists.push(vec![(RowOp::Act { act, src: v0 }, keep)]);
        }
    }
    for group in [1, head] {
        lists.push(vec![(RowOp::Mul { a: v0, b: v1, group }, keep)]);
    }
    lists.push(vec![(RowOp::Columns { src: v0, period: head, offset: head / 2, len: head - head / 2 }, keep)]);
    lists.push(vec![(RowOp::Join { a: v0, b: v1, lens: [head, head] }, keep)]);
    for op in [StreamOp::Mix { inputs: 1, offset: 1.0 }, StreamOp::MatchRms { floor: 1e-5 }, StreamOp::Add] {
        lists.push(vec![(RowOp::Streams { a: v0, b: v1, op, widths: [width, width] }, keep)]);
    }
    lists.push(vec![(RowOp::Sparsify { src: v0, deviations: 1.6 }, keep)]);
    let (scale, base) = (WeightId(2), WeightId(0));
    for streams in [4, width] {
        let op = HyperOp { streams, iterations: 20, eps: 1e-6, scale, base };
        lists.push(vec![(RowOp::Hyper { src: v0, op }, keep)]);
    }
    let scale = PositionScale { beta: 0.1, length: 8192, offset: 1 };
    lists.push(vec![(RowOp::PositionScale { src: v0, scale }, keep)]);
    for rope in [RopeId(0), RopeId(1)] {
        lists.push(vec![(RowOp::Rope { src: v0, rope, head_dim: head }, keep)]);
    }
    for table in 4..graph.weights().count() as u32 {
        lists.push(vec![(RowOp::Embed { table: WeightId(table), scale: 1.0, or_first: table % 2 == 0 }, keep)]);
    }
    let mut programs = Vec::new();
    for list in lists {
        let result = list.last().filter(|(_, store)| store.is_none()).map(|_| temp(list.len() as u16 - 1));
        let instrs: Vec<_> = list.into_iter().map(|(op, store)| RowInstr { op, width, store }).collect();
        for rows in [Rows::Token, Rows::Output] {
            programs.push((RowProgram { rows, instrs: instrs.clone() }, result));
        }
    }
    programs
}

fn row_kernels(
    caps: &Caps,
    graph: &Graph,
    program: &RowProgram,
    result: Option<Src>,
    skew: u32,
    found: &mut dyn FnMut(&Caps, &Kernel),
) {
    let width = program.instrs[0].width;
    let places = Places {
        place: &|_| place(width, skew, program.rows),
        vector: &|id| 4 * id.0 + skew,
        table: &|_| Ok(vec![(0..1, 0)]),
    };
    for made in rows::lower(caps, graph, program, result, &places).unwrap() {
        found(caps, &made.dispatch.kernel);
    }
}

fn attention_kernels(caps: &Caps, found: &mut dyn FnMut(&Caps, &Kernel)) {
    let heads = [(9, 3), (32, 32), (16, 1), (71, 1), (12, 4)];
    let lengths = [(64, 64), (80, 80), (128, 128), (256, 256), (96, 96), (192, 128), (576, 512), (4, 4)];
    for (i, (head_dim, v_dim)) in lengths.into_iter().enumerate() {
        let graph = row_graph(64, head_dim);
        for (j, (n_heads, n_kv_heads)) in heads.into_iter().enumerate() {
            for (kv, rotate_on_read) in [
                (KvType::F16, None),
                (KvType::F32, None),
                (KvType::F16, Some(RopeId(0))),
                (KvType::F32, Some(RopeId(1))),
            ] {
                let op = AttentionOp {
                    cache: CacheId(0),
                    v_in_k: j == 2 && v_dim <= head_dim && rotate_on_read.is_none(),
                    selected: None,
                    shared: false,
                    n_heads,
                    n_kv_heads,
                    head_dim,
                    v_dim,
                    scale: 0.125,
                    softcap: (i % 2 == 1).then_some(50.0),
                    window: (j % 3 == 1).then_some(512),
                    chunk: (j % 3 == 2).then_some(8192),
                    sinks: (i % 3 == 1).then_some(WeightId(0)),
                    rotate_on_read,
                    blocks: None,
                };
                for head_ops in head_ops(head_dim, rotate_on_read.is_none()) {
                    step_kernels(caps, &graph, op.clone(), kv, head_ops, found);
                }
                if rotate_on_read.is_none() && v_dim <= head_dim {
                    for (blocks, selected) in
                        [(None, Some(2048)), (Some(CacheId(1)), None), (Some(CacheId(1)), Some(512))]
                    {
                        let v_in_k = op.v_in_k || blocks.is_some();
                        let op = AttentionOp { blocks, selected, v_in_k, chunk: None, ..op.clone() };
                        step_kernels(caps, &graph, op, kv, Default::default(), found);
                    }
                }
            }
        }
    }
}

/// The kernels of an attention step.
fn step_kernels(
    caps: &Caps,
    graph: &Graph,
    op: AttentionOp,
    kv: KvType,
    head_ops: [Vec<HeadOp>; 3],
    found: &mut dyn FnMut(&Caps, &Kernel),
) {
    let token = |n: usize| place(n, 0, Rows::Token);
    let key = op.n_kv_heads * op.head_dim;
    let blocks = op.blocks.map(|_| BlockPlaces { keys: token(key), group: 1, every: 4 });
    let chosen = op.selected.map(token);
    let places = AttentionPlaces {
        inputs: [op.n_heads * op.head_dim, key, op.n_kv_heads * op.v_dim].map(token),
        output: token(op.n_heads * op.v_dim),
        cache_group: 0,
        kind: 0,
        blocks,
        chosen,
        kv,
        vector: &|id| 4 * id.0,
    };
    let step = AttentionStage {
        op,
        inputs: [ValueId(0), ValueId(1), ValueId(2)],
        blocks: blocks.map(|_| ValueId(4)),
        selected: chosen.map(|_| ValueId(5)),
        head_ops,
        output: ValueId(3),
    };
    let made = attention::dispatches(caps, graph, "attention", &step, &places).unwrap();
    for d in [&made.heads, &made.rows, &made.merge].into_iter().chain(&made.blocks).chain(&made.prompt) {
        found(caps, &d.kernel);
    }
}

/// What families do to the heads of q, k and v.
fn head_ops(head_dim: usize, rotate: bool) -> Vec<[Vec<HeadOp>; 3]> {
    let norm = || {
        let weight = Some(WeightId(2));
        HeadOp::Norm(NormOp { kind: NormKind::Rms, weight, weight_offset: 0.0, bias: None, eps: 1e-6, group: head_dim })
    };
    let mut all = vec![[vec![], vec![], vec![]], [vec![norm()], vec![norm()], vec![]]];
    if rotate {
        for rope in [RopeId(0), RopeId(1)] {
            let rope = || HeadOp::Rope(rope);
            all.push([vec![rope()], vec![rope()], vec![]]);
            all.push([vec![norm(), rope()], vec![norm(), rope()], vec![norm()]]);
            all.push([vec![rope(), norm()], vec![rope(), norm()], vec![]]);
        }
    }
    all
}
