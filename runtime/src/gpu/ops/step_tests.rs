//! What the tests of row and attention kernels share: a step's batch, and running dispatches over it.

use super::{Dim, Dispatch};
use crate::{
    cpu::ops::rope_cos_sin,
    gpu::{Access, Gpu},
    graph::{RopeSpec, Rows},
    step::PAGE_BLOCKS,
};

/// Tokens of a page.
pub(super) const PAGE: usize = 64;

/// One sequence's part of a step.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub rows: usize,
    pub cached: usize,
    pub dropped_pages: usize,
}

/// A step with its batch. There are three groups of caches, of which group 1 has pages of tokens and group 2 pages of blocks.
pub(super) struct TestStep {
    pub sequences: Vec<Sequence>,
    pub outputs: Vec<u32>,
    pub batch: Vec<u32>,
    pub ropes: Vec<f32>,
    /// Parts of all rows' keys.
    pub parts: u32,
    /// By sequence, by page from the first.
    pub pages: Vec<Vec<u32>>,
    pub n_pages: usize,
    /// The same of group 2.
    pub block_pages: Vec<Vec<u32>>,
    pub n_block_pages: usize,
    pub longest: usize,
    /// Tokens that are chosen.
    pub choices: usize,
}

impl TestStep {
    pub fn new(sequences: &[Sequence], outputs: &[u32], specs: &[RopeSpec]) -> Self {
        Self::with_blocks(sequences, outputs, specs, 1, 1000)
    }

    /// With blocks of `every` tokens. The keys of rows are divided into `most` parts, one fewer, and so on down to one, and
    /// again.
    pub fn with_blocks(sequences: &[Sequence], outputs: &[u32], specs: &[RopeSpec], most: u32, every: usize) -> Self {
        let tokens: usize = sequences.iter().map(|s| s.rows).sum();
        let mut batch = vec![0xdead_beefu32; 16];
        batch[0] = tokens as u32;
        batch[1] = outputs.len() as u32;
        batch[2] = sequences.len() as u32;
        let section = |batch: &mut Vec<u32>, header: usize, words: Vec<u32>| {
            // Sections lie apart, so that a wrong offset shows.
            batch.push(0xdead_beef);
            batch[header] = batch.len() as u32;
            batch.extend(words);
        };
        let positions = sequences.iter().flat_map(|s| s.cached - s.rows..s.cached).map(|p| p as u32).collect();
        section(&mut batch, 3, positions);
        let owner = sequences.iter().enumerate().flat_map(|(i, s)| vec![i as u32; s.rows]).collect();
        section(&mut batch, 4, owner);
        section(&mut batch, 5, outputs.to_vec());
        let (mut pages, mut block_pages) = (Vec::new(), Vec::new());
        let (mut n_pages, mut n_block_pages) = (0, 0);
        // Page numbers count down, and a page lies between the sequences' ones.
        let numbered = |n: usize, made: &mut usize| -> Vec<u32> {
            let own = (0..n).map(|i| (*made + n - 1 - i) as u32).collect();
            *made += n + 1;
            own
        };
        let mut records = Vec::new();
        let mut first_row = 0;
        for s in sequences {
            let own = numbered(s.cached.div_ceil(PAGE), &mut n_pages);
            let at = batch.len() as u32;
            batch.extend(&own[s.dropped_pages..]);
            let blocks = numbered((s.cached / every).div_ceil(PAGE_BLOCKS), &mut n_block_pages);
            let blocks_at = batch.len() as u32;
            batch.extend(&blocks);
            records.extend([first_row as u32, s.rows as u32, s.cached as u32, 0, 0xdead_beef, 0xdead_beef]);
            records.extend([at, s.dropped_pages as u32, blocks_at, 0]);
            pages.push(own);
            block_pages.push(blocks);
            first_row += s.rows;
        }
        section(&mut batch, 6, records);
        batch[7] = 10;
        let parts_of = |row: usize| most - row as u32 % most;
        let first = |row: usize| (0..row).map(parts_of).sum::<u32>();
        let of_rows = (0..tokens).flat_map(|row| vec![row as u32; parts_of(row) as usize]);
        let lists = batch.len() as u32 + 3;
        section(
            &mut batch,
            10,
            [0xdead_beef, lists].into_iter().chain((0..=tokens).map(first)).chain(of_rows).collect(),
        );
        let mut ropes = vec![f32::NAN];
        let (mut rows_at, mut tables_at) = (Vec::new(), Vec::new());
        for spec in specs {
            let half = spec.rotary_dims / 2;
            rows_at.push(ropes.len() as u32);
            let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
            let mut angles = |s: &Sequence, position: usize| {
                rope_cos_sin(&spec.inv_freq(s.cached), spec.factor(s.cached), position, &mut cos, &mut sin);
                (cos.clone(), sin.clone())
            };
            for s in sequences {
                for position in s.cached - s.rows..s.cached {
                    let (cos, sin) = angles(s, position.saturating_sub(spec.back));
                    ropes.extend(cos);
                    ropes.extend(sin);
                }
            }
            for s in sequences {
                ropes.push(f32::NAN);
                tables_at.push(ropes.len() as u32);
                for position in 0..s.cached {
                    let (cos, sin) = angles(s, position);
                    ropes.extend(cos);
                    ropes.extend(sin);
                }
            }
        }
        section(&mut batch, 8, rows_at);
        section(&mut batch, 9, tables_at);
        let longest = sequences.iter().map(|s| s.cached).max().unwrap_or(0);
        batch[13] = longest as u32;
        Self {
            sequences: sequences.to_vec(),
            outputs: outputs.to_vec(),
            batch,
            ropes,
            parts: first(tokens),
            pages,
            n_pages,
            block_pages,
            n_block_pages,
            longest,
            choices: 0,
        }
    }

    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.rows).sum()
    }

    pub fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Token => self.tokens(),
            Rows::Output => self.outputs.len(),
        }
    }

    /// Sequence and position of each token row.
    pub fn positions(&self) -> Vec<(usize, usize)> {
        let each = |(i, s): (usize, &Sequence)| (s.cached - s.rows..s.cached).map(move |p| (i, p)).collect::<Vec<_>>();
        self.sequences.iter().enumerate().flat_map(each).collect()
    }

    /// Runs a dispatch; what it may write of `arena` and `more` (bindings 4 and on) is updated.
    pub fn run(&self, gpu: &Gpu, dispatch: &Dispatch, arena: &mut [f32], vectors: &[f32], more: &mut [&mut Vec<u8>]) {
        let size = |d: Dim| match d {
            Dim::Fixed(n) => n,
            Dim::RowsOver(n) => (self.count(dispatch.rows) as u32).div_ceil(n),
            Dim::Sequences => self.sequences.len() as u32,
            Dim::Choices => self.choices as u32,
            Dim::Parts(kind) => {
                assert_eq!(kind, 1);
                self.parts
            }
            Dim::Entries { every, over } => (self.longest as u32 / every).div_ceil(over),
        };
        // The poisoned element behind the vectors makes the buffer a multiple of four.
        let vectors: Vec<f32> = vectors.iter().copied().chain([f32::NAN; 4]).collect();
        let before = arena.to_vec();
        let mut data: Vec<&[u8]> = vec![
            &dispatch.params,
            bytemuck::cast_slice(&self.batch),
            bytemuck::cast_slice(&before),
            bytemuck::cast_slice(&vectors),
        ];
        let copies: Vec<Vec<u8>> = more.iter().map(|m| m.to_vec()).collect();
        data.extend(copies.iter().map(|m| &m[..]));
        assert_eq!(data.len(), dispatch.kernel.bindings.len());
        let out = gpu.dispatch_once(&dispatch.kernel, &data, dispatch.grid.map(size)).unwrap();
        let mut out = out.into_iter();
        arena.copy_from_slice(&bytemuck::pod_collect_to_vec::<u8, f32>(&out.next().unwrap()));
        for (access, bytes) in dispatch.kernel.bindings[4..].iter().zip(more) {
            if *access == Access::ReadWrite {
                **bytes = out.next().unwrap();
            }
        }
    }
}

/// Largest difference relative to the largest element.
pub(super) fn error(out: impl IntoIterator<Item = f32>, expected: &[f64]) -> f64 {
    let peak = expected.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    let mut n = 0;
    let worst = out.into_iter().zip(expected).fold(0.0, |m: f64, (a, b)| {
        n += 1;
        let e = (f64::from(a) - b).abs();
        if e.is_nan() { f64::INFINITY } else { m.max(e) }
    });
    assert_eq!(n, expected.len());
    worst / peak
}
