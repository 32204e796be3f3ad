//! One case of an attention step, run on every device against f64, over random pages with poison wherever nothing was
//! cached.

use super::{
    Dispatch, Place,
    attention::{AttentionDispatches, AttentionPlaces, BlockPlaces, dispatches},
    step_tests::{PAGE, Sequence, TestStep, error},
};
use crate::{
    cases::{
        attention::{AttentionCase, Cached, Devices},
        paged::{load, store, stored_rows},
        random,
        rows::rotate_f64,
        wide,
    },
    gpu::{Gpu, testing},
    graph::{AttentionStage, Graph, GraphBuilder, HeadOp, RopeFreqs, RopeSpec, Rows, ValueId},
    step::{KvType, PAGE_BLOCKS},
};

/// A case with what comes before attention.
pub(super) struct Case {
    pub case: AttentionCase,
    /// The first element that is rotated.
    pub first_dim: usize,
    pub head_ops: [Vec<HeadOp>; 3],
}

/// Everything a dispatch works on.
struct Data {
    graph: Graph,
    step: TestStep,
    attention: AttentionStage,
    /// q, k, v, the result, the keys of blocks, the list of those that are chosen.
    places: [Place; 6],
    arena: Vec<f32>,
    vectors: Vec<f32>,
    cached: Vec<Cached>,
    pages: Vec<u8>,
    /// The keys of blocks: by sequence, head, block.
    blocks: Vec<Vec<Vec<Vec<f32>>>>,
    block_pages: Vec<u8>,
    /// By row: what was chosen.
    chosen: Vec<Vec<usize>>,
}

const POISON: f32 = f32::NAN;

impl Case {
    /// With up to `parts` parts a row.
    fn data(&self, parts: u32) -> Data {
        let op = &self.case.op;
        let mut g = GraphBuilder::new();
        // Rope 0 is there to be confused with rope 1.
        let fixed = |n| RopeFreqs::Fixed(RopeSpec::base_inv_freq(100.0, n));
        g.rope_spec(RopeSpec {
            layout: self.case.rotary.0,
            rotary_dims: 2,
            first_dim: 0,
            freqs: fixed(2),
            attention_factor: 9.0,
            back: 0,
        });
        g.rope_spec(match op.rotate_on_read {
            None => RopeSpec {
                layout: self.case.rotary.0,
                rotary_dims: self.case.rotary.1,
                first_dim: self.first_dim,
                freqs: fixed(self.case.rotary.1),
                attention_factor: 1.1,
                back: 0,
            },
            Some(_) => self.case.key_rope(),
        });
        let graph = g.finish(ValueId(0));
        let sequences: Vec<Sequence> = self
            .case
            .sequences
            .iter()
            .map(|&(rows, cached)| {
                // As the cache does it: pages that the first of these rows cannot see are gone.
                let first = op.window.map_or(0, |w| (cached - rows + 1).saturating_sub(w));
                Sequence { rows, cached, dropped_pages: first / PAGE }
            })
            .collect();
        let step = TestStep::with_blocks(&sequences, &[], graph.ropes(), parts, self.case.every);
        let n = step.tokens();
        let key = op.n_kv_heads * op.head_dim;
        let (q, v, y) = (op.n_heads * op.head_dim, op.n_kv_heads * op.v_dim, op.n_heads * op.v_dim);
        let widths = [q, key, v, y, key, op.selected.unwrap_or(0)];
        let mut offset = 3;
        let places = widths.map(|width| {
            let place = Place { base: 8, offset, stride: width as u32 + 5, rows: Rows::Token };
            offset += place.stride;
            place
        });
        let mut arena = vec![POISON; 8 + offset as usize * n];
        let mut chosen = Vec::new();
        for (row, (_, position)) in step.positions().into_iter().enumerate().filter(|_| op.selected.is_some()) {
            let list = self.chosen(row, position);
            let to = &mut arena[at(&places[5], n, row)..][..widths[5]];
            to.fill(-1.0);
            to.iter_mut().zip(&list).for_each(|(to, i)| *to = *i as f32);
            chosen.push(list);
        }
        for (i, width) in widths.iter().enumerate().take(3) {
            for row in 0..n {
                let x = random((i * 1000 + row) as u64, *width);
                let at = at(&places[i], n, row);
                arena[at..at + width].iter_mut().zip(x).for_each(|(to, x)| *to = 3.0 * x);
            }
        }
        let cached: Vec<Cached> = (0..sequences.len()).map(|s| self.case.cached(s)).collect();
        let attention = AttentionStage {
            op: op.clone(),
            inputs: [ValueId(0), ValueId(1), ValueId(2)],
            blocks: op.blocks.map(|_| ValueId(4)),
            selected: op.selected.map(|_| ValueId(5)),
            head_ops: self.head_ops.clone(),
            output: ValueId(3),
        };
        let pages = vec![0xff; step.n_pages * self.page_bytes()];
        let mut vectors = random(55, 200);
        if op.sinks.is_some() {
            vectors[..AttentionCase::SINKS.len()].copy_from_slice(&AttentionCase::SINKS);
        }
        let blocks = (0..sequences.len()).map(|s| {
            let block = |h: usize, b: usize| {
                stored_rows(self.case.kv, ((s * 13 + h) * 100_003 + b) as u64 + 5, 1, op.head_dim, 2.0)
            };
            let all = 0..sequences[s].cached / self.case.every;
            (0..op.n_kv_heads).map(|h| all.clone().map(|b| block(h, b)).collect()).collect()
        });
        let blocks = blocks.collect();
        let block_bytes = PAGE_BLOCKS * op.n_kv_heads * self.case.kv.row_bytes(op.head_dim);
        let block_pages = vec![0xff; step.n_block_pages * block_bytes];
        let mut data =
            Data { graph, step, attention, places, arena, vectors, cached, pages, blocks, block_pages, chosen };
        self.fill(&mut data);
        data
    }

    /// What a row at `position` chooses: all that it sees, or where those are too many about as many as it may.
    fn chosen(&self, row: usize, position: usize) -> Vec<usize> {
        let k = self.case.op.selected.unwrap_or(0);
        let seen = if self.case.op.blocks.is_some() { (position + 1) / self.case.every } else { position + 1 };
        if seen <= k {
            return (0..seen).collect();
        }
        let luck = random(row as u64 + 99, seen);
        let mut all: Vec<usize> = (0..seen).collect();
        all.sort_by(|a, b| luck[*a].total_cmp(&luck[*b]));
        all.truncate(k - k.min(row) / 2);
        all.sort_unstable();
        all
    }

    /// Bytes of rows of keys and of values in the pages.
    fn row_bytes(&self) -> [usize; 2] {
        let op = &self.case.op;
        [op.head_dim, if op.v_in_k { 0 } else { op.v_dim }].map(|dim| self.case.kv.row_bytes(dim))
    }

    fn page_bytes(&self) -> usize {
        PAGE * self.case.op.n_kv_heads * self.row_bytes().iter().sum::<usize>()
    }

    /// First bytes of a key and a value in the pages.
    fn slots(&self, step: &TestStep, s: usize, head: usize, position: usize) -> [usize; 2] {
        let op = &self.case.op;
        let page = step.pages[s][position / PAGE] as usize * self.page_bytes();
        let row = head * PAGE + position % PAGE;
        let [k_bytes, v_bytes] = self.row_bytes();
        let key = page + row * k_bytes;
        [key, if op.v_in_k { key } else { page + op.n_kv_heads * PAGE * k_bytes + row * v_bytes }]
    }

    fn fill(&self, data: &mut Data) {
        for (s, sequence) in data.step.sequences.iter().enumerate() {
            for head in 0..self.case.op.n_kv_heads {
                for position in sequence.dropped_pages * PAGE..sequence.cached {
                    let [key, value] = self.slots(&data.step, s, head, position);
                    self.put(&mut data.pages, key, &data.cached[s].k[head][position]);
                    if !self.case.op.v_in_k {
                        self.put(&mut data.pages, value, &data.cached[s].v[head][position]);
                    }
                }
                for (b, key) in data.blocks[s][head].iter().enumerate() {
                    let page = data.step.block_pages[s][b / PAGE_BLOCKS] as usize;
                    let slot = (page * self.case.op.n_kv_heads + head) * PAGE_BLOCKS + b % PAGE_BLOCKS;
                    self.put(&mut data.block_pages, slot * self.row_bytes()[0], key);
                }
            }
        }
    }

    fn put(&self, pages: &mut [u8], at: usize, x: &[f32]) {
        store(self.case.kv, x, &mut pages[at..][..self.case.kv.row_bytes(x.len())]);
    }

    fn get(&self, pages: &[u8], at: usize, dim: usize) -> Vec<f32> {
        load(self.case.kv, &pages[at..][..self.case.kv.row_bytes(dim)], dim)
    }

    fn lower(&self, gpu: &Gpu, data: &Data) -> AttentionDispatches {
        let places = AttentionPlaces {
            inputs: [data.places[0], data.places[1], data.places[2]],
            output: data.places[3],
            cache_group: 1,
            kind: 1,
            blocks: self.case.op.blocks.map(|_| BlockPlaces { keys: data.places[4], group: 2, every: self.case.every }),
            chosen: self.case.op.selected.map(|_| data.places[5]),
            kv: self.case.kv,
            vector: &|w| w.0,
        };
        dispatches(gpu.caps(), &data.graph, "test", &data.attention, &places).unwrap()
    }

    /// `[rows][n_heads * v_dim]`
    fn reference(&self, data: &Data) -> Vec<Vec<f64>> {
        let op = &self.case.op;
        let n = data.step.tokens();
        let row = |(row, (s, position)): (usize, &(usize, usize))| {
            let q = &data.arena[at(&data.places[0], n, row)..];
            let head = |head: usize| {
                let q = &q[head * op.head_dim..][..op.head_dim];
                let kv_head = head / (op.n_heads / op.n_kv_heads);
                let len = data.step.sequences[*s].cached;
                let (keys, values) = (&data.cached[*s].k[kv_head], &data.cached[*s].v[kv_head]);
                let blocks = &data.blocks[*s][kv_head];
                let chosen = op.selected.map(|_| data.chosen[row].iter().copied());
                let own = (0..=*position).filter(|p| self.case.sees(*position, *p)).map(|p| (p, &keys[p], &values[p]));
                let attended: Vec<(usize, &Vec<f32>, &Vec<f32>)> = match (op.blocks, chosen) {
                    (None, None) => own.collect(),
                    (None, Some(chosen)) => chosen.map(|p| (p, &keys[p], &values[p])).collect(),
                    (Some(_), None) => {
                        own.chain(blocks[..(position + 1) / self.case.every].iter().map(|b| (0, b, b))).collect()
                    }
                    (Some(_), Some(chosen)) => own.chain(chosen.map(|b| (0, &blocks[b], &blocks[b]))).collect(),
                };
                let turned = |key: &[f32], position: usize| {
                    let mut key = wide(key);
                    if let Some(rope) = op.rotate_on_read {
                        let spec = &data.graph.ropes()[rope.0 as usize];
                        rotate_f64(&mut key, spec, &spec.inv_freq(len), position);
                    }
                    key
                };
                self.case.attend(head, q, attended.iter().map(|(p, k, v)| (turned(k, *p), &v[..])))
            };
            (0..op.n_heads).flat_map(head).collect()
        };
        data.step.positions().iter().enumerate().map(row).collect()
    }

    /// Every kernel that attends, on every device.
    pub fn check(&self) {
        let what = self.case.name();
        let data = self.data(1);
        let split = self.data(3).step;
        let expected = self.reference(&data);
        let n = data.step.tokens();
        let gpus = testing::gpus();
        // One driver sees all cases, the others some: a pipeline can take a second to compile.
        let most = gpus.iter().map(|gpu| gpu.summary().index).max();
        let runs = |gpu: &&Gpu| match self.case.devices {
            Devices::None => false,
            Devices::One => Some(gpu.summary().index) == most,
            Devices::Every => true,
        };
        for gpu in gpus.iter().filter(runs) {
            let d = self.lower(gpu, &data);
            let mut ropes: Vec<u8> = bytemuck::cast_slice(&data.step.ropes).to_vec();
            let mut pages = data.pages.clone();
            let partials = AttentionDispatches::partials_len(&self.case.op, split.parts);
            let mut partials: Vec<u8> = bytemuck::cast_slice(&vec![POISON; partials]).to_vec();
            let mut blocks = data.block_pages.clone();
            let mut run = |step: &TestStep, kernels: &[&Dispatch]| {
                let mut arena = data.arena.clone();
                for k in kernels {
                    let mut more = vec![&mut ropes, &mut pages, &mut partials, &mut blocks];
                    more.truncate(k.kernel.bindings.len() - 4);
                    step.run(gpu, k, &mut arena, &data.vectors, &mut more);
                }
                let width = self.case.op.n_heads * self.case.op.v_dim;
                for (row, expected) in expected.iter().enumerate() {
                    let at = at(&data.places[3], n, row);
                    let e = error(arena[at..at + width].iter().copied(), expected);
                    let name = kernels[0].kernel.name;
                    assert!(e < 2e-5, "{what}, {name} on {}, row {row}: {e:e}", gpu.name());
                    // Nothing is written between rows.
                    assert!(arena[at + width..].iter().take(5).all(|x| x.is_nan()), "{what}, {name}");
                }
            };
            run(&data.step, &[&d.rows]);
            run(&split, &[&d.rows, &d.merge]);
            if let Some(prompt) =
                d.prompt.as_ref().filter(|_| self.case.op.selected.is_none_or(|k| data.step.longest <= k))
            {
                run(&data.step, &[prompt]);
            }
        }
    }

    /// The kernel before attention, on every device.
    pub fn check_heads(&self, what: &str) {
        let op = &self.case.op;
        let data = self.data(1);
        let n = data.step.tokens();
        let written = 2 - usize::from(op.v_in_k);
        let input = |i: usize, dim: usize, row: usize, head: usize| {
            let x = &data.arena[at(&data.places[i], n, row) + head * dim..][..dim];
            let mut x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let (s, position) = data.step.positions()[row];
            for op in &self.head_ops[i] {
                match op {
                    HeadOp::Norm(norm) => {
                        let squares = x.iter().map(|x| x * x).sum::<f64>() / dim as f64;
                        for (i, x) in x.iter_mut().enumerate() {
                            let w = norm.weight.map_or(1.0, |w| f64::from(data.vectors[w.0 as usize + i]));
                            *x = *x / (squares + f64::from(norm.eps)).sqrt() * (w + f64::from(norm.weight_offset));
                        }
                    }
                    HeadOp::PositionScale(scale) => {
                        x.iter_mut().for_each(|x| *x *= f64::from(scale.factor(position)));
                    }
                    HeadOp::Rope(rope) => {
                        let spec = &data.graph.ropes()[rope.0 as usize];
                        rotate_f64(&mut x, spec, &spec.inv_freq(data.step.sequences[s].cached), position);
                    }
                }
            }
            x
        };
        for gpu in testing::gpus() {
            let d = self.lower(gpu, &data);
            let mut arena = data.arena.clone();
            // The rows of this step are still poison.
            let mut pages = data.pages.clone();
            let mut poisoned = vec![false; pages.len()];
            for (s, position) in data.step.positions() {
                for head in 0..op.n_kv_heads {
                    let slots = self.slots(&data.step, s, head, position);
                    for (slot, dim) in slots.into_iter().zip([op.head_dim, op.v_dim]).take(written) {
                        self.put(&mut pages, slot, &vec![POISON; dim]);
                        poisoned[slot..][..self.case.kv.row_bytes(dim)].fill(true);
                    }
                }
            }
            let before = pages.clone();
            let mut ropes: Vec<u8> = bytemuck::cast_slice(&data.step.ropes).to_vec();
            data.step.run(gpu, &d.heads, &mut arena, &data.vectors, &mut [&mut ropes, &mut pages]);
            for row in 0..n {
                for head in 0..op.n_heads {
                    let x = arena[at(&data.places[0], n, row) + head * op.head_dim..][..op.head_dim].iter().copied();
                    let e = error(x, &input(0, op.head_dim, row, head));
                    assert!(e < 3e-6, "{what}, q, {}: {e:e}", gpu.name());
                }
                let (s, position) = data.step.positions()[row];
                for head in 0..op.n_kv_heads {
                    let slots = self.slots(&data.step, s, head, position);
                    for (i, (slot, dim)) in slots.into_iter().zip([op.head_dim, op.v_dim]).take(written).enumerate() {
                        let e = error(self.get(&pages, slot, dim), &input(1 + i, dim, row, head));
                        // Drivers may round to halves towards zero.
                        let limit = match self.case.kv {
                            KvType::F16 => 1e-3,
                            KvType::F32 => 3e-6,
                            KvType::Q8_0 => 1e-2,
                        };
                        assert!(e < limit, "{what}, kv {i}, {}: {e:e}", gpu.name());
                    }
                }
            }
            for (i, poisoned) in poisoned.into_iter().enumerate() {
                assert!(poisoned || before[i] == pages[i], "{what}: something else was written");
            }
        }
    }
}

fn at(place: &Place, rows: usize, row: usize) -> usize {
    place.base as usize + place.offset as usize * rows + row * place.stride as usize
}
