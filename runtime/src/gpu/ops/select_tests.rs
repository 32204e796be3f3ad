//! Rows into caches, the choice of keys and pooled blocks, on every device against f64.

use super::{
    Dispatch, Place,
    select::{self, CachedRows},
    step_tests::{PAGE, Sequence, TestStep, error},
};
use crate::{
    cases::{
        paged::{load, store},
        pool::pools,
        random,
        select::{CHOICES, SelectCase, best, scores, selects},
    },
    gpu::{Gpu, testing},
    graph::{CacheId, CacheSpec, Rows, SelectOp},
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
        case.pages = vec![0xff; n_pages * spec.page_entries() * spec.entry_bytes(kv)];
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

    /// First byte in the pages of a head's key or value.
    fn slot(&self, s: usize, entry: usize, part: usize, head: usize) -> usize {
        let spec = &self.cache.spec;
        let (size, pages) = match spec.every {
            1 => (PAGE, &self.step.pages),
            _ => (PAGE_BLOCKS, &self.step.block_pages),
        };
        let kv = self.cache.kv;
        let page = pages[s][entry / size] as usize * size * spec.entry_bytes(kv);
        let row = head * size + entry % size;
        let [k_bytes, v_bytes] = [spec.head_dim, spec.v_dim].map(|dim| kv.row_bytes(dim));
        match part {
            0 => page + row * k_bytes,
            _ => page + size * spec.n_kv_heads * k_bytes + row * v_bytes,
        }
    }

    fn put(&mut self, s: usize, entry: usize, part: usize, x: &[f32]) {
        let dim = x.len() / self.cache.spec.n_kv_heads;
        for (head, x) in x.chunks_exact(dim).enumerate() {
            let at = self.slot(s, entry, part, head);
            store(self.cache.kv, x, &mut self.pages[at..][..self.cache.kv.row_bytes(dim)]);
        }
    }

    fn get(&self, pages: &[u8], s: usize, entry: usize, part: usize) -> Vec<f32> {
        let spec = &self.cache.spec;
        let dim = [spec.head_dim, spec.stored_v_dim()][part];
        let head = |head: usize| load(self.cache.kv, &pages[self.slot(s, entry, part, head)..], dim);
        (0..spec.n_kv_heads).flat_map(head).collect()
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
            // Bytes by one as well. What fills a row up is all ones, or zeroes.
            KvType::Q8_0 => pages.iter().zip(&self.pages).all(|(a, b)| a.wrapping_sub(*b).wrapping_add(1) <= 2),
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
    // No kernel reads or writes pages in blocks.
    for select in selects().into_iter().filter(|case| case.kv != KvType::Q8_0) {
        let SelectCase { op, every, kv, .. } = select;
        let SelectOp { n_heads: heads, head_dim: dim, k, .. } = op;
        let spec = select.spec();
        let mut case = Case::new(spec, kv, &SelectCase::SEQUENCES, &[heads * dim, dim, heads, k]);
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
                let expected: Vec<f64> =
                    (0..seen).map(|entry| select.reference([&q, &weights], &case.get(&pages, s, entry, 0))).collect();
                let got = own[..seen].iter().map(|b| f32::from_bits(if b >> 31 == 1 { b ^ 1 << 31 } else { !b }));
                let e = error(got, &expected);
                assert!(e < 3e-6, "{}: {}, row {row}: {e:e}", gpu.name(), select.name());
                assert!(own[seen..].iter().all(|x| *x == 0xdead_beef), "{}", gpu.name());
            }
        }
    }
}

#[test]
fn the_best_keys_are_chosen() {
    for choice in CHOICES {
        let (sequences, k, every) = (choice.sequences, choice.k, choice.every);
        let spec = CacheSpec { every, ..CacheSpec::new(1, 4, 0) };
        let case = Case::new(spec, KvType::F16, sequences, &[4, 4, 1, k]);
        let op = SelectOp { cache: CacheId(0), n_heads: 1, head_dim: 4, k };
        let rows = case.step.positions();
        let len = select::scores_len(rows.len(), case.step.longest, every);
        let stride = len / rows.len();
        let mut words = vec![u32::MAX; len];
        let mut expected = Vec::new();
        for (row, (_, position)) in rows.iter().enumerate() {
            let own = scores(row, spec.seen(*position));
            words[row * stride..].iter_mut().zip(&own).for_each(|(to, x)| *to = ordered(*x));
            expected.push(best(&own, k));
        }
        for gpu in testing::gpus() {
            let p = &case.places;
            let d = select::choice(gpu.caps(), "test", &op, &case.cache, [p[0], p[1], p[2]], p[3]).unwrap();
            let mut arena = case.arena.clone();
            let mut words: Vec<u8> = bytemuck::cast_slice(&words).to_vec();
            case.step.run(gpu, &d.keys, &mut arena, &[], &mut [&mut words]);
            for (row, expected) in expected.iter().enumerate() {
                assert!(case.row(&arena, 3, row, k) == *expected, "{}: row {row} of {sequences:?}", gpu.name());
                assert!(arena[at(&p[3], rows.len(), row) + k..].iter().take(5).all(|x| x.is_nan()));
            }
        }
    }
}

#[test]
fn pooled_blocks_match_f64() {
    for pool in pools().into_iter().filter(|case| case.kv != KvType::Q8_0) {
        let op = pool.op;
        let (block, width, channels) = (op.block, op.width, op.channels());
        let sequences = [(1, 2 * block.max(80) / block * block), (block + 3, 2 * block + 3), (1, 1)];
        let mut case = Case::new(op.cache_spec(), pool.kv, &sequences, &[channels, channels, width]);
        let bias = [vec![f32::NAN; 3], pool.bias()].concat();
        for gpu in testing::gpus() {
            let places = ([case.places[0], case.places[1]], case.places[2]);
            let made = select::pool(gpu.caps(), "test", &op, &case.cache, 3, places);
            if !width.is_multiple_of(4) {
                assert!(made.is_err(), "{}: {}", gpu.name(), pool.name());
                continue;
            }
            let [write, pooled] = made.unwrap();
            let pages = case.written(gpu, &write, &[0, 1]);
            let mut arena = case.arena.clone();
            case.step.run(gpu, &pooled, &mut arena, &bias, &mut [&mut pages.clone()]);
            for (row, (s, position)) in case.step.positions().into_iter().enumerate() {
                let got = case.row(&arena, 2, row, width);
                if !(position + 1).is_multiple_of(block) {
                    assert!(got.iter().all(|x| *x == 0.0), "{}: row {row}", gpu.name());
                    continue;
                }
                let first = (position + 1).saturating_sub(op.reach());
                let tokens: Vec<[Vec<f32>; 2]> =
                    (first..=position).map(|t| [0, 1].map(|part| case.get(&pages, s, t, part))).collect();
                let expected = pool.reference(position / block, |t, c| {
                    let [x, gates] = &tokens[t - first];
                    [x[c], gates[c]]
                });
                let e = error(got, &expected);
                assert!(e < 3e-6, "{}: {} row {row}: {e:e}", gpu.name(), pool.name());
            }
        }
    }
}
