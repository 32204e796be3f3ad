//! Every format on every device, at shapes that fit no tile, against f64 sums of the scalar decode.
//!
//! Outputs begin as NaN, and so do the elements around inputs: what is read by mistake shows.

use super::*;
use crate::cases::linear::{LinearCase, linears};
use crate::cpu::ops::testing::act_f64;
use crate::gpu::{Gpu, testing};
use crate::quant::DType;
use testing::Random;

/// A call with its data.
struct Case {
    call: LinearCall,
    tokens: u32,
    outputs: u32,
    batch: Vec<u32>,
    arena: Vec<f32>,
    vectors: Vec<f32>,
    weights: Vec<u8>,
    /// For each part and output row: f64 sums, bias included.
    sums: Vec<Vec<Vec<f64>>>,
}

/// What a case is made of.
#[derive(Clone, Default)]
struct Shape {
    k: u32,
    /// Format and rows of each part.
    parts: Vec<(DType, u32)>,
    rows: u32,
    /// Rows are outputs, fewer than tokens; the input has a row per token.
    outputs: bool,
    residual: bool,
    bias: bool,
    gated: Option<Act>,
    /// Elements by which places miss multiples of four.
    skew: u32,
    /// Matrices of the one part, of which `k` and its rows are one's; whether they lie turned.
    heads: Option<(u32, bool)>,
    /// Scales for every 5 rows by 32 elements.
    scales: bool,
    /// The input is a norm's result.
    norm: bool,
}

impl Case {
    fn new(random: &mut Random, shape: &Shape) -> Self {
        let Shape { k, rows, skew, .. } = *shape;
        let kind = if shape.outputs { Rows::Output } else { Rows::Token };
        let (tokens, outputs) = if shape.outputs { (rows + 3, rows) } else { (rows, 1) };
        // Output r is token r + 2, or 0 for the last.
        let token_of = |r: u32| {
            if !shape.outputs {
                r
            } else if r + 1 == rows {
                0
            } else {
                r + 2
            }
        };
        let mut batch = vec![tokens, outputs, 1, 0, 0, 10, 0, 0, 0, 0];
        batch.extend((0..outputs).map(token_of));
        let mut arena = Vec::new();
        let mut place = |width: u32, rows: Rows| {
            let base = arena.len() as u32 + skew;
            let stride = width.next_multiple_of(4) + 4 + skew;
            let count = if rows == Rows::Token { tokens } else { outputs };
            arena.resize((base + stride * count).next_multiple_of(4) as usize, f32::NAN);
            Place { base, offset: 0, stride, rows }
        };
        let (heads, turned) = shape.heads.unwrap_or((1, false));
        let input = place(k * heads, Rows::Token);
        let raw = shape.norm.then(|| place(k, Rows::Token));
        let residual = shape.residual.then(|| place(shape.parts[0].1 + 5, kind));
        let outs: Vec<Place> = shape.parts.iter().map(|(_, n)| place(n * heads + 5, kind)).collect();
        let mut fill = |p: Place, count: u32, width: u32| {
            for r in 0..count {
                let row = (p.base + r * p.stride) as usize;
                arena[row..row + width as usize].fill_with(|| random.float());
            }
        };
        fill(input, tokens, k * heads);
        if let Some(p) = residual {
            fill(p, rows, shape.parts[0].1 + 5);
        }
        let mut vectors = vec![f32::NAN; 3];
        let norm = raw.map(|raw| {
            let (offset, eps) = (0.5, 1e-2);
            vectors.resize(4, f32::NAN);
            vectors.extend((0..k).map(|_| random.float()));
            let scales = &vectors[4..];
            for t in 0..tokens {
                let row: Vec<f32> = (0..k).map(|_| 3.0 * random.float()).collect();
                let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / f64::from(k);
                let factor = 1.0 / (mean + f64::from(eps)).sqrt();
                for (i, (x, scale)) in row.iter().zip(scales).enumerate() {
                    arena[(raw.base + t * raw.stride) as usize + i] = *x;
                    let y = f64::from(*x) * factor * f64::from(scale + offset);
                    arena[(input.base + t * input.stride) as usize + i] = y as f32;
                }
            }
            InputNorm { input: raw, scale: 4, offset, eps }
        });
        let mut weights = vec![0xff; 64];
        let mut parts = Vec::new();
        let mut sums = Vec::new();
        for ((dtype, n), out) in shape.parts.iter().copied().zip(outs) {
            // Some part begins at an odd half word where its format allows that.
            weights.resize(weights.len().next_multiple_of(4) + if dtype.format().alignment == 2 { 2 } else { 0 }, 0xff);
            let weight_byte = weights.len() as u64;
            // Rows of the file, of a matrix and from one matrix to the next, which begins at the second.
            let (len, own) = if turned { (n, k) } else { (k, n) };
            let period = if shape.heads.is_some() { own + 2 } else { own };
            let first = (period - own) / 2;
            let row_bytes = dtype.row_bytes(len as usize).unwrap();
            weights.extend(testing::random_weights(random, dtype, (len * period * heads) as usize));
            let columns = len.div_ceil(32) as usize;
            let scales = shape.scales.then_some(vectors.len() as u32);
            if shape.scales {
                let rows = (period * heads + 2).div_ceil(5) as usize;
                vectors.extend((0..rows * columns).map(|_| random.float()));
            }
            let bias = shape.bias.then_some(vectors.len() as u32);
            if shape.bias {
                vectors.extend((0..n).map(|_| random.float()));
            }
            let mut part = vec![vec![0f64; (n * heads) as usize]; rows as usize];
            let mut w = vec![0f32; len as usize];
            for row in 0..(own * heads) as usize {
                let (head, i) = (row / own as usize, row % own as usize);
                let file_row = head * period as usize + first as usize + i;
                let at = weight_byte as usize + file_row * row_bytes;
                dtype.decode_row(&weights[at..at + row_bytes], &mut w).unwrap();
                if let Some(scales) = scales {
                    // The tensor begins with the third row of a block.
                    let of_row = scales as usize + (file_row + 2) / 5 * columns;
                    w.iter_mut().enumerate().for_each(|(j, w)| *w *= vectors[of_row + j / 32]);
                }
                for r in 0..rows {
                    let x = &arena[(input.base + token_of(r) * input.stride) as usize..][..(k * heads) as usize];
                    let x = &x[head * k as usize..][..k as usize];
                    let sums = &mut part[r as usize][head * n as usize..][..n as usize];
                    if turned {
                        sums.iter_mut().zip(&w).for_each(|(s, w)| *s += f64::from(x[i]) * f64::from(*w));
                        continue;
                    }
                    let dot: f64 = x.iter().zip(&w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    sums[i] = dot + bias.map_or(0.0, |b| f64::from(vectors[b as usize + i]));
                }
            }
            sums.push(part);
            parts.push(LinearPart {
                dtype,
                rows: n,
                out,
                out_first: 3,
                bias,
                weight_byte: weight_byte + u64::from(first) * row_bytes as u64,
                row_bytes: row_bytes as u64,
                scales: scales.map(|at| PartScales { at, first_row: 2 + first, block: [5, 32], each: 0 }),
            });
        }
        let heads = shape.heads.map(|(heads, transposed)| {
            let period = if transposed { k } else { parts[0].rows } + 2;
            HeadCall { heads, bytes: parts[0].row_bytes * u64::from(period), transposed }
        });
        vectors.resize(vectors.len().next_multiple_of(4), f32::NAN);
        let call = LinearCall { input, k, parts, rows: kind, residual, gated: shape.gated, norm, heads };
        Self { call, tokens, outputs, batch, arena, vectors, weights, sums }
    }

    fn rows(&self) -> u32 {
        if self.call.rows == Rows::Output { self.outputs } else { self.tokens }
    }

    /// What is wanted of part p, row r, element i.
    fn expected(&self, p: usize, r: usize, i: usize) -> f64 {
        let sum = self.sums[p][r][i];
        let y = match self.call.gated {
            Some(act) => act_f64(act, sum, self.sums[1][r][i]),
            None => sum,
        };
        match self.call.residual {
            Some(place) if p == 0 => y + f64::from(self.arena[place.base as usize + r * place.stride as usize + 3 + i]),
            _ => y,
        }
    }

    /// The arena after `variant` has run, whichever number of rows it is for.
    fn run(&self, gpu: &Gpu, variant: &Variant) -> Vec<f32> {
        let mut arena = bytemuck::cast_slice::<f32, u8>(&self.arena).to_vec();
        let d = &variant.dispatch;
        let rows = if d.rows == Rows::Output { self.outputs } else { self.tokens };
        let grid = d.grid.map(|g| match g {
            Dim::Fixed(n) => n,
            Dim::RowsOver(n) => rows.div_ceil(n),
            Dim::Sequences | Dim::Choices | Dim::Parts(_) | Dim::Entries { .. } => 1,
        });
        let data: [&[u8]; 5] =
            [&d.params, bytemuck::cast_slice(&self.batch), &arena, bytemuck::cast_slice(&self.vectors), &self.weights];
        arena = gpu.dispatch_once(&d.kernel, &data, grid).unwrap().swap_remove(0);
        bytemuck::pod_collect_to_vec(&arena)
    }

    /// Runs `variant` and returns the largest relative error of its parts.
    fn error(&self, gpu: &Gpu, variant: &Variant) -> f64 {
        self.error_of(&self.run(gpu, variant))
    }

    /// The largest relative error of the parts in `arena`.
    fn error_of(&self, arena: &[f32]) -> f64 {
        let mut worst = 0f64;
        let parts = if self.call.gated.is_some() { 1 } else { self.call.parts.len() };
        for (p, part) in self.call.parts[..parts].iter().enumerate() {
            let (mut wrong, mut right) = (0f64, 0f64);
            for r in 0..self.rows() as usize {
                let row = part.out.base as usize + r * part.out.stride as usize;
                for (i, got) in arena[row..row + part.out.stride as usize].iter().enumerate() {
                    let heads = self.call.heads.map_or(1, |h| h.heads);
                    if (3..3 + (part.rows * heads) as usize).contains(&i) {
                        let want = self.expected(p, r, i - 3);
                        wrong += (f64::from(*got) - want).powi(2);
                        right += want * want;
                    } else {
                        assert!(got.is_nan(), "row {r}: element {i} outside of the output was written");
                    }
                }
            }
            let error = (wrong / right.max(1e-30)).sqrt();
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
        worst
    }
}

/// Runs `shape` with the variant that its rows call for: generated rows up to eight, else those of a prompt.
fn run(gpu: &Gpu, random: &mut Random, shape: &Shape) {
    let case = Case::new(random, shape);
    let variants = dispatches(gpu.caps(), &case.call).unwrap();
    let role = |v: &&Variant| !v.generated || shape.rows <= 8;
    let variant = variants.iter().filter(role).find(|v| v.max_rows >= shape.rows).unwrap();
    let error = case.error(gpu, variant);
    let what = format!("{:?} x {} rows of {} on {}", shape.parts, shape.rows, shape.k, gpu.name());
    assert!(error < bound(variant), "{what}: {error:e} with {:?}", variant.dispatch.kernel);
}

/// What a kernel's error may be. Factors that are staged as f16 are rounded by up to 2^-12 of themselves. linear_vec also
/// adds up four products in f16: without fused multiplication that is eight roundings, whose mean square is 14 times that
/// of a product's own (2e-4 of it), in all 3.7 parts of four products' 2; and quants that are not centred are twice as
/// large as the weights that they stand for: 7e-4 on average, of which small cases may have twice as much.
fn bound(variant: &Variant) -> f64 {
    let kernel = &variant.dispatch.kernel;
    match (kernel.defines.get("F16").is_some(), kernel.name == "linear_vec") {
        (true, true) => HALVES,
        (true, false) => 5e-4,
        (false, _) => 1e-5,
    }
}

/// See [`bound`].
const HALVES: f64 = 1.5e-3;

#[test]
fn every_format_gives_the_sums_of_the_scalar_decode() {
    let cases = linears(DType::ALL);
    for (g, gpu) in testing::gpus().iter().enumerate() {
        let mut random = Random::new(0x11aea4 + g as u64);
        for case in cases.iter().filter(|case| case.tiles) {
            let LinearCase { dtype, rows, k, tokens, .. } = *case;
            // All cases on the first device; on each of the others every third format at its longest rows, so that
            // together they have all: pipelines compile slowly there.
            let f = DType::ALL.iter().position(|d| *d == dtype).unwrap();
            let chosen = k >= 576 && [1, 5, 70].contains(&tokens) && (f + g) % 3 == 0;
            if g == 0 || chosen {
                let parts = vec![(dtype, rows as u32)];
                run(gpu, &mut random, &Shape { k: k as u32, parts, rows: tokens as u32, ..Shape::default() });
            }
        }
    }
}

#[test]
fn long_rows() {
    // As many groups as the longest rows of models have, and more: llvmpipe ends loops that make too many turns.
    let Some(gpu) = testing::gpus().first() else { return };
    let mut random = Random::new(0x10);
    for dtype in [DType::F32, DType::Q8_0, DType::Q4_K] {
        for rows in [1, 9] {
            run(gpu, &mut random, &Shape { k: 1 << 16, parts: vec![(dtype, 3)], rows, ..Shape::default() });
        }
    }
}

#[test]
fn parts_bias_residual_gates_and_output_rows() {
    let base = Shape { k: 256, rows: 3, ..Shape::default() };
    let shapes = [
        Shape {
            parts: vec![(DType::Q4_1, 70), (DType::Q4_1, 33), (DType::Q8_0, 130)],
            bias: true,
            residual: true,
            ..base.clone()
        },
        Shape {
            parts: vec![(DType::Q4_K, 7), (DType::F16, 33), (DType::Q6_K, 2), (DType::BF16, 129)],
            outputs: true,
            skew: 1,
            ..base.clone()
        },
        Shape { parts: vec![(DType::Q5_0, 130); 2], gated: Some(Act::Silu), bias: true, ..base.clone() },
        Shape {
            parts: vec![(DType::Q8_0, 130); 2],
            gated: Some(Act::SwigluOss { alpha: 1.702, limit: 0.5 }),
            ..base.clone()
        },
        Shape {
            parts: vec![(DType::Q5_1, 33), (DType::Q6_K, 33)],
            gated: Some(Act::GeluTanh),
            residual: true,
            outputs: true,
            ..base
        },
    ];
    for (g, gpu) in testing::gpus().iter().enumerate() {
        let mut random = Random::new(0xba5e + g as u64);
        for shape in shapes.iter().skip(g.min(1) * (g % 4)).take(if g == 0 { 4 } else { 1 }) {
            for rows in [1, 3, 66] {
                run(gpu, &mut random, &Shape { rows, ..shape.clone() });
            }
        }
    }
}

/// The device's capabilities with the arithmetic of `define` and no other, where it compiles that. Vulkan's drivers make
/// something of byte products on any device; Direct3D's older compiler takes minutes and fails.
fn arithmetic(gpu: &Gpu, define: &str, software: bool) -> Option<Caps> {
    let caps = gpu.caps();
    let able = match define {
        "INT8" => caps.int8_dot || gpu.summary().api != "dx12",
        "F16" => caps.f16,
        _ => true,
    };
    able.then(|| Caps { software, int8_dot: define == "INT8", f16: define == "F16", ..caps.clone() })
}

#[test]
fn few_rows_cost_no_more_than_their_rounding() {
    // Inputs are spread evenly over a scale of 127 steps: a step's error is 1/sqrt(12), the inputs' size 127/sqrt(3),
    // hence 0.4 %; sums with an offset cancel in part, which costs the rest.
    for (define, limit) in [("INT8", 1.5e-2), ("F16", HALVES), ("", 1e-5)] {
        for (g, gpu) in testing::gpus().iter().enumerate() {
            let Some(caps) = arithmetic(gpu, define, false) else { continue };
            let mut random = Random::new(0x18 + g as u64);
            for (f, dtype) in DType::ALL.into_iter().enumerate() {
                if dtype.is_float() || (g != 0 && (f + g) % 4 != 0) {
                    continue;
                }
                let parts = vec![(dtype, 33)];
                let case = Case::new(&mut random, &Shape { k: 512, parts, rows: 7, ..Shape::default() });
                let variants = dispatches(&caps, &case.call).unwrap();
                for v in &variants[..2] {
                    let defines = &v.dispatch.kernel.defines;
                    assert!(defines.get(define).is_some() || define.is_empty() && defines.get("ROUNDED").is_none());
                }
                let error = alone_as_among_others(gpu, &case, &variants);
                assert!(error < limit, "{dtype} {define} on {}: {error:e}", gpu.name());
            }
        }
    }
}

/// The error of the kernels for one row and for more, which give each row the same bits: except where Direct3D's older
/// compiler changes the order of sums, in each kernel its own way.
fn alone_as_among_others(gpu: &Gpu, case: &Case, variants: &[Variant]) -> f64 {
    let [alone, others] = [0, 1].map(|v| case.run(gpu, &variants[v]));
    let bits = |arena: &[f32]| arena.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let free = gpu.summary().compiler == Some("FXC");
    assert!(free || bits(&alone) == bits(&others), "{:?} on {}", variants[1].dispatch.kernel, gpu.name());
    case.error_of(&alone).max(case.error_of(&others))
}

#[test]
fn kernels_for_few_rows_apply_norms() {
    let base = Shape { norm: true, rows: 6, ..Shape::default() };
    for (define, limit) in [("INT8", 1.5e-2), ("F16", HALVES), ("hardware", 1e-5), ("", 1e-5)] {
        for (g, gpu) in testing::gpus().iter().enumerate() {
            let software = define.is_empty() && gpu.caps().software;
            if define.is_empty() && !software {
                continue;
            }
            let Some(caps) = arithmetic(gpu, define, software) else { continue };
            let mut random = Random::new(0x304 + g as u64);
            let mixed = vec![(DType::Q4_1, 70), (DType::Q4_1, 33), (DType::Q8_0, 130)];
            let mut shapes = vec![
                Shape { k: 576, parts: mixed, bias: true, residual: true, ..base.clone() },
                Shape {
                    k: 256,
                    parts: vec![(DType::Q6_K, 130); 2],
                    gated: Some(Act::Silu),
                    bias: true,
                    ..base.clone()
                },
                Shape { k: 8192, parts: vec![(DType::Q5_0, 9)], outputs: true, ..base.clone() },
                Shape { k: 96, parts: vec![(DType::F16, 33), (DType::F32, 7)], outputs: true, ..base.clone() },
                Shape {
                    k: 64,
                    parts: vec![(DType::F8_E4M3, 9); 2],
                    scales: true,
                    gated: Some(Act::GeluTanh),
                    ..base.clone()
                },
            ];
            if g != 0 {
                // Pipelines compile slowly there.
                shapes = vec![shapes.swap_remove(g % shapes.len())];
            }
            for shape in shapes {
                let case = Case::new(&mut random, &shape);
                let variants = dispatches(&caps, &case.call).unwrap();
                assert!(variants[..2].iter().all(|v| v.folded), "{:?}", variants[0].dispatch.kernel);
                let error = alone_as_among_others(gpu, &case, &variants);
                assert!(error < limit, "{:?} {define} on {}: {error:e}", shape.parts, gpu.name());
            }
            // Places that four does not divide, and tails: the norm is a dispatch of its own.
            for shape in [
                Shape { k: 64, parts: vec![(DType::F32, 9)], skew: 1, ..base.clone() },
                Shape { k: 35, parts: vec![(DType::F32, 9)], ..base.clone() },
            ] {
                let case = Case::new(&mut random, &shape);
                let variants = dispatches(&caps, &case.call).unwrap();
                assert!(variants.iter().all(|v| !v.folded));
                assert!(case.error(gpu, &variants[0]) < 1e-5, "{:?}", variants[0].dispatch.kernel);
            }
        }
    }
}

#[test]
fn the_cooperative_kernel_reads_and_writes_what_it_should() {
    let base = Shape { k: 256, rows: 70, ..Shape::default() };
    let shapes = [
        Shape { parts: vec![(DType::Q4_K, 130), (DType::F32, 33)], residual: true, bias: true, ..base.clone() },
        Shape { parts: vec![(DType::Q8_0, 130), (DType::Q6_K, 130)], gated: Some(Act::Silu), outputs: true, ..base },
    ];
    // Matrix units are emulated: no software adapter has any.
    for gpu in testing::gpus().iter().filter(|gpu| gpu.caps().f16 && gpu.caps().subgroups.is_some()).take(1) {
        let caps = Caps { software: false, cooperative: true, ..gpu.caps().clone() };
        let mut random = Random::new(0xc009);
        for shape in &shapes {
            let case = Case::new(&mut random, shape);
            let mut variant = dispatches(&caps, &case.call).unwrap().pop().unwrap();
            let kernel = &mut variant.dispatch.kernel;
            assert_eq!(kernel.name, "linear_coop");
            kernel.defines = kernel.defines.clone().without("COOPERATIVE").flag("EMULATED", true);
            let error = case.error(gpu, &variant);
            // Factors are rounded to f16, each by up to 2^-12 of itself.
            assert!(error < 5e-4, "{:?}: {error:e}", variant.dispatch.kernel);
        }
    }
}

#[test]
fn grids_fold_where_a_dimension_is_short() {
    // As they are and with the kernels for hardware.
    for gpu in testing::gpus().iter().take(2) {
        let caps = Caps { max_workgroups: 3, ..gpu.caps().clone() };
        let mut random = Random::new(0xf01d);
        let shape = Shape { k: 64, parts: vec![(DType::Q4_0, 470), (DType::Q8_0, 300)], rows: 2, ..Shape::default() };
        let case = Case::new(&mut random, &shape);
        for variant in dispatches(&caps, &case.call).unwrap() {
            let short = |d: &Dim| matches!(d, Dim::Fixed(..=3) | Dim::RowsOver(_));
            assert!(variant.dispatch.grid[..2].iter().all(short));
            assert!(case.error(gpu, &variant) < bound(&variant), "{:?}", variant.dispatch.kernel);
        }
    }
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let mut random = Random::new(0xbad);
    let shape = Shape { k: 64, parts: vec![(DType::Q4_1, 7)], rows: 1, ..Shape::default() };
    let good = Case::new(&mut random, &shape).call;
    let caps = match testing::gpus().first() {
        Some(gpu) => gpu.caps().clone(),
        None => return,
    };
    let refused = |change: fn(&mut LinearCall)| {
        let mut call = good.clone();
        change(&mut call);
        assert!(matches!(dispatches(&caps, &call), Err(GpuError::Unsupported { .. })), "{call:?}");
    };
    refused(|c| c.parts.clear());
    refused(|c| c.parts = vec![c.parts[0].clone(); 5]);
    refused(|c| c.k = 48);
    refused(|c| c.parts[0].weight_byte += 2);
    refused(|c| c.parts[0].weight_byte += 1 << 32);
    refused(|c| c.gated = Some(Act::Silu));
}

#[test]
fn heads_have_matrices_of_their_own() {
    for (g, gpu) in testing::gpus().iter().enumerate() {
        let mut random = Random::new(0x4ead + g as u64);
        for (dtype, scales) in [(DType::F32, false), (DType::BF16, false), (DType::Q8_0, false), (DType::F8_E4M3, true)]
        {
            for (rows, k, n) in [(1, 64, 96), (3, 96, 160), (70, 32, 96)] {
                for transposed in [false, true] {
                    let heads = Some((3, transposed));
                    for (outputs, skew) in [(false, 0), (true, 1)] {
                        let parts = vec![(dtype, n)];
                        run(
                            gpu,
                            &mut random,
                            &Shape { k, parts, rows, heads, scales, outputs, skew, ..Shape::default() },
                        );
                    }
                }
            }
            // Lengths that nothing divides.
            if dtype.block_len() == 1 {
                for transposed in [false, true] {
                    let (heads, parts) = (Some((5, transposed)), vec![(dtype, 37)]);
                    run(gpu, &mut random, &Shape { k: 35, parts, rows: 5, heads, scales, ..Shape::default() });
                }
            }
        }
    }
}

#[test]
fn scales_of_blocks_multiply_weights() {
    for (g, gpu) in testing::gpus().iter().enumerate() {
        let mut random = Random::new(0x5ca1e + g as u64);
        for (rows, k, n) in [(1, 576, 33), (4, 96, 7), (70, 160, 70), (2, 35, 9)] {
            for (parts, gated) in
                [(vec![(DType::F8_E4M3, n)], None), (vec![(DType::F8_E4M3, n), (DType::F8_E4M3, n)], Some(Act::Silu))]
            {
                run(gpu, &mut random, &Shape { k, parts, rows, gated, scales: true, ..Shape::default() });
            }
        }
    }
}
