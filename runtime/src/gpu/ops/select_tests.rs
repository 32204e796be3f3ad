//! Rows into caches, the choice of keys and pooled blocks, on every device against the CPU's choice and f64.

use super::{
    Dispatch, Place,
    select::{self, CachedRows},
    step_tests::{PAGE, Sequence, TestStep, error},
};
use crate::{
    cpu::ops::{attention::select::choose, testing::random},
    gpu::{Gpu, testing},
    graph::{CacheId, CacheSpec, PoolOp, Rows, SelectOp, WeightId},
    quant::{f16_to_f32, f32_to_f16},
    step::{KvType, PAGE_BLOCKS},
};

/// A step over one of the test step's caches, with values of these widths and their places.
struct Case {
    step: TestStep,
    cache: CachedRows,
    places: Vec<Place>,
    arena: Vec<f32>,
    pages: Vec<u8>,
}

impl Case {
    /// All values but the last are random; so is what was cached before.
    fn new(spec: CacheSpec, kv: KvType, sequences: &[(usize, usize)], widths: &[usize]) -> Self {
        let drop = |cached: usize, rows: usize| spec.window.map_or(0, |w| (cached - rows + 1).saturating_sub(w)) / PAGE;
        let sequences: Vec<Sequence> = sequences
            .iter()
            .map(|&(rows, cached)| Sequence { rows, cached, dropped_pages: drop(cached, rows) })
            .collect();
        let step = TestStep::with_blocks(&sequences, &[], &[], 1, spec.every);
        let n = step.tokens();
        let mut offset = 3;
        let mut places = Vec::new();
        for width in widths {
            places.push(Place { base: 8, offset, stride: *width as u32 + 5, rows: Rows::Token });
            offset += *width as u32 + 5;
        }
        let mut arena = vec![f32::NAN; 8 + offset as usize * n];
        for (i, (place, width)) in places.iter().zip(widths).enumerate().take(widths.len() - 1) {
            for row in 0..n {
                let x = random((i * 1000 + row) as u64, *width);
                arena[at(place, n, row)..][..*width].copy_from_slice(&x);
            }
        }
        let cache = CachedRows { spec, group: if spec.every > 1 { 2 } else { 1 }, kv };
        let n_pages = if spec.every > 1 { step.n_block_pages } else { step.n_pages };
        let mut case = Self { step, cache, places, arena, pages: Vec::new() };
        case.pages = vec![0xff; n_pages * spec.page_entries() * spec.elements() * kv.bytes()];
        for (s, sequence) in sequences.iter().enumerate() {
            for entry in sequence.dropped_pages * PAGE..spec.seen(sequence.cached - 1) {
                for part in 0..parts(&spec) {
                    let x = case.earlier(s, entry, part);
                    case.put(s, entry, part, &x);
                }
            }
        }
        case
    }

    /// What an earlier step has left as key or value.
    fn earlier(&self, s: usize, entry: usize, part: usize) -> Vec<f32> {
        let dim = [self.cache.spec.head_dim, self.cache.spec.stored_v_dim()][part];
        random(((s * 3 + part) * 100_003 + entry) as u64, self.cache.spec.n_kv_heads * dim)
    }

    /// First element in the pages of a head's key or value.
    fn slot(&self, s: usize, entry: usize, part: usize, head: usize) -> usize {
        let spec = &self.cache.spec;
        let (size, pages) = match spec.every {
            1 => (PAGE, &self.step.pages),
            _ => (PAGE_BLOCKS, &self.step.block_pages),
        };
        let page = pages[s][entry / size] as usize * size * spec.elements();
        let row = head * size + entry % size;
        match part {
            0 => page + row * spec.head_dim,
            _ => page + size * spec.n_kv_heads * spec.head_dim + row * spec.v_dim,
        }
    }

    fn put(&mut self, s: usize, entry: usize, part: usize, x: &[f32]) {
        let dim = x.len() / self.cache.spec.n_kv_heads;
        for (i, x) in x.iter().enumerate() {
            let element = self.slot(s, entry, part, i / dim) + i % dim;
            match self.cache.kv {
                KvType::F16 => self.pages[2 * element..][..2].copy_from_slice(&f32_to_f16(*x).to_le_bytes()),
                KvType::F32 => self.pages[4 * element..][..4].copy_from_slice(&x.to_le_bytes()),
            }
        }
    }

    fn get(&self, pages: &[u8], s: usize, entry: usize, part: usize) -> Vec<f32> {
        let spec = &self.cache.spec;
        let dim = [spec.head_dim, spec.stored_v_dim()][part];
        let element = |i: usize| self.slot(s, entry, part, i / dim) + i % dim;
        let read = |i: usize| match self.cache.kv {
            KvType::F16 => f16_to_f32(u16::from_le_bytes([pages[2 * element(i)], pages[2 * element(i) + 1]])),
            KvType::F32 => bytemuck::pod_read_unaligned(&pages[4 * element(i)..][..4]),
        };
        (0..spec.n_kv_heads * dim).map(read).collect()
    }

    fn row(&self, arena: &[f32], place: usize, row: usize, width: usize) -> Vec<f32> {
        arena[at(&self.places[place], self.step.tokens(), row)..][..width].to_vec()
    }

    /// Has `write` write this step's rows into pages that are poison there, and checks all of them; the pages then.
    fn written(&mut self, gpu: &Gpu, write: &Dispatch, inputs: &[usize]) -> Vec<u8> {
        let spec = self.cache.spec;
        let mut made = Vec::new();
        for (row, (s, position)) in self.step.positions().into_iter().enumerate() {
            if (position + 1).is_multiple_of(spec.every) {
                made.extend((0..parts(&spec)).map(|part| (row, s, position / spec.every, part)));
            }
        }
        for &(row, s, entry, part) in &made {
            let width = spec.n_kv_heads * [spec.head_dim, spec.stored_v_dim()][part];
            let x = self.row(&self.arena, inputs[part], row, width);
            self.put(s, entry, part, &x);
        }
        let expected = self.pages.clone();
        for &(_, s, entry, part) in &made {
            let n = self.earlier(s, entry, part).len();
            self.put(s, entry, part, &vec![f32::NAN; n]);
        }
        let mut pages = std::mem::replace(&mut self.pages, expected);
        self.step.run(gpu, write, &mut self.arena.clone(), &[], &mut [&mut pages]);
        // Drivers may round to halves towards zero: within one unit of the last place.
        let close = match self.cache.kv {
            KvType::F32 => pages == self.pages,
            KvType::F16 => {
                let [a, b] = [&pages, &self.pages].map(|x| bytemuck::pod_collect_to_vec::<u8, u16>(x));
                a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 1)
            }
        };
        assert!(close, "{}: {:?}", gpu.name(), self.cache);
        pages
    }
}

/// Keys, and perhaps values.
fn parts(spec: &CacheSpec) -> usize {
    if spec.stored_v_dim() > 0 { 2 } else { 1 }
}

fn at(place: &Place, rows: usize, row: usize) -> usize {
    place.base as usize + place.offset as usize * rows + row * place.stride as usize
}

#[test]
fn rows_of_caches_are_written_where_they_belong() {
    let sequences = [(1, 70), (13, 15), (5, 132), (1, 1)];
    for kv in [KvType::F16, KvType::F32] {
        for spec in [
            CacheSpec::new(1, 20, 0),
            CacheSpec::new(2, 8, 12),
            CacheSpec { every: 4, v_in_k: true, ..CacheSpec::new(2, 12, 12) },
            CacheSpec { every: 3, ..CacheSpec::new(1, 300, 0) },
        ] {
            let widths = [spec.n_kv_heads * spec.head_dim, spec.n_kv_heads * spec.stored_v_dim(), 1];
            let mut case = Case::new(spec, kv, &sequences, &widths);
            for gpu in testing::gpus() {
                let write = case.cache.write(gpu.caps(), [case.places[0], case.places[1]]);
                case.written(gpu, &write, &[0, 1]);
            }
        }
    }
}

/// As `lib/select.wgsl` has scores.
fn ordered(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

#[test]
fn scores_match_f64() {
    let sequences = [(1, 300), (3, 131), (2, 9), (1, 1)];
    for (heads, dim, k, every, kv) in [
        (64, 128, 8, 1, KvType::F16),
        (9, 16, 8, 1, KvType::F32),
        (3, 20, 2, 4, KvType::F16),
        (17, 300, 20, 7, KvType::F32),
    ] {
        let spec = CacheSpec { every, ..CacheSpec::new(1, dim, 0) };
        let mut case = Case::new(spec, kv, &sequences, &[heads * dim, dim, heads, k]);
        let op = SelectOp { cache: CacheId(0), n_heads: heads, head_dim: dim, k };
        for gpu in testing::gpus() {
            let p = &case.places;
            let d = select::choice(gpu.caps(), "test", &op, &case.cache, [p[0], p[1], p[2]], p[3]).unwrap();
            let pages = case.written(gpu, &d.write, &[1]);
            let len = select::scores_len(case.step.tokens(), case.step.longest, every);
            let mut scores: Vec<u8> = bytemuck::cast_slice(&vec![0xdead_beefu32; len]).to_vec();
            let mut arena = case.arena.clone();
            case.step.run(gpu, &d.scores, &mut arena, &[], &mut [&mut scores, &mut pages.clone()]);
            let scores: Vec<u32> = bytemuck::pod_collect_to_vec(&scores);
            let stride = len / case.step.tokens();
            for (row, (s, position)) in case.step.positions().into_iter().enumerate() {
                let seen = spec.seen(position);
                let own = &scores[row * stride..][..stride];
                if seen <= k {
                    assert!(own.iter().all(|x| *x == 0xdead_beef), "{}", gpu.name());
                    continue;
                }
                let q = case.row(&case.arena, 0, row, heads * dim);
                let weights = case.row(&case.arena, 2, row, heads);
                let score = |entry: usize| -> f64 {
                    let key = case.get(&pages, s, entry, 0);
                    let dot = |q: &[f32]| q.iter().zip(&key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                    q.chunks(dim).zip(&weights).map(|(q, w)| f64::from(*w) * dot(q).max(0.0)).sum()
                };
                let expected: Vec<f64> = (0..seen).map(score).collect();
                let got = own[..seen].iter().map(|b| f32::from_bits(if b >> 31 == 1 { b ^ 1 << 31 } else { !b }));
                let e = error(got, &expected);
                assert!(e < 3e-6, "{}: {heads} heads of {dim}, row {row}: {e:e}", gpu.name());
                assert!(own[seen..].iter().all(|x| *x == 0xdead_beef), "{}", gpu.name());
            }
        }
    }
}

#[test]
fn the_best_keys_are_chosen_as_on_the_cpu() {
    // Many equal, all equal, spread over all exponents, and no numbers at all.
    let few = |seed: u64, n: usize| random(seed, n).iter().map(|x| (x * 3.0).round()).collect::<Vec<f32>>();
    let same = |_: u64, n: usize| vec![-1.5f32; n];
    let spread = |seed: u64, n: usize| random(seed, n).iter().map(|x| x * (x * 80.0).exp()).collect();
    let odd = |seed: u64, n: usize| {
        let all = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, f32::MIN_POSITIVE];
        random(seed, n).iter().map(|x| all[(x.abs() * 7.99) as usize]).collect()
    };
    let kinds: [&dyn Fn(u64, usize) -> Vec<f32>; 4] = [&few, &same, &spread, &odd];
    for (sequences, k, every) in [
        (&[(2, 300), (4, 70), (1, 1)][..], 37, 1),
        (&[(2, 3000), (70, 1300)], 16, 4),
        (&[(1, 30_000)], 2048, 1),
        (&[(1, 200_000)], 512, 2),
    ] {
        let spec = CacheSpec { every, ..CacheSpec::new(1, 4, 0) };
        let case = Case::new(spec, KvType::F16, sequences, &[4, 4, 1, k]);
        let op = SelectOp { cache: CacheId(0), n_heads: 1, head_dim: 4, k };
        let rows = case.step.positions();
        let len = select::scores_len(rows.len(), case.step.longest, every);
        let stride = len / rows.len();
        let mut scores = vec![u32::MAX; len];
        let mut expected = Vec::new();
        for (row, (_, position)) in rows.iter().enumerate() {
            let seen = spec.seen(*position);
            let own: Vec<f32> = kinds[row % 4](row as u64, seen).iter().map(|x| x + 0.0).collect();
            scores[row * stride..][..seen].iter_mut().zip(&own).for_each(|(to, x)| *to = ordered(*x));
            let mut chosen = vec![f32::NAN; k];
            choose(&own, &mut vec![0; seen], &mut chosen);
            expected.push(chosen);
        }
        for gpu in testing::gpus() {
            let p = &case.places;
            let d = select::choice(gpu.caps(), "test", &op, &case.cache, [p[0], p[1], p[2]], p[3]).unwrap();
            let mut arena = case.arena.clone();
            let mut scores: Vec<u8> = bytemuck::cast_slice(&scores).to_vec();
            case.step.run(gpu, &d.keys, &mut arena, &[], &mut [&mut scores]);
            for (row, expected) in expected.iter().enumerate() {
                assert!(case.row(&arena, 3, row, k) == *expected, "{}: row {row} of {sequences:?}", gpu.name());
                assert!(arena[at(&p[3], rows.len(), row) + k..].iter().take(5).all(|x| x.is_nan()));
            }
        }
    }
}

#[test]
fn pooled_blocks_match_f64() {
    for (block, width, overlap, kv) in [
        (4, 32, true, KvType::F16),
        (8, 16, false, KvType::F32),
        (5, 68, true, KvType::F32),
        (1, 12, false, KvType::F16),
        (128, 512, false, KvType::F16),
    ] {
        let op = PoolOp { cache: CacheId(0), block, width, overlap, bias: WeightId(0) };
        let channels = op.channels();
        let sequences = [(1, 2 * block.max(80) / block * block), (block + 3, 2 * block + 3), (1, 1)];
        let mut case = Case::new(op.cache_spec(), kv, &sequences, &[channels, channels, width]);
        let bias = random(5, 3 + block * channels);
        for gpu in testing::gpus() {
            let places = ([case.places[0], case.places[1]], case.places[2]);
            let [write, pool] = select::pool(gpu.caps(), "test", &op, &case.cache, 3, places).unwrap();
            let pages = case.written(gpu, &write, &[0, 1]);
            let mut arena = case.arena.clone();
            case.step.run(gpu, &pool, &mut arena, &bias, &mut [&mut pages.clone()]);
            for (row, (s, position)) in case.step.positions().into_iter().enumerate() {
                let got = case.row(&arena, 2, row, width);
                if !(position + 1).is_multiple_of(block) {
                    assert!(got.iter().all(|x| *x == 0.0), "{}: row {row}", gpu.name());
                    continue;
                }
                let b = position / block;
                let first = if overlap { b.saturating_sub(1) } else { b };
                let tokens: Vec<[Vec<f32>; 2]> =
                    (first * block..=position).map(|t| [0, 1].map(|part| case.get(&pages, s, t, part))).collect();
                let expected = |c: usize| {
                    let mut terms = Vec::new();
                    for (t, [x, gates]) in (first * block..).zip(&tokens) {
                        let c = if overlap && t >= b * block { width + c } else { c };
                        let bias = f64::from(bias[3 + t % block * channels + c]);
                        terms.push(((f64::from(gates[c]) + bias).exp(), f64::from(x[c])));
                    }
                    let sum: f64 = terms.iter().map(|t| t.0).sum();
                    terms.iter().map(|(p, x)| p * x).sum::<f64>() / sum
                };
                let e = error(got, &(0..width).map(expected).collect::<Vec<_>>());
                assert!(e < 3e-6, "{}: {op:?} row {row}: {e:e}", gpu.name());
            }
        }
    }
}
