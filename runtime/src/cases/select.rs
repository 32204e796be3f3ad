//! Cases of the choice of keys: scores of all keys, and the best of given scores.

use super::{
    paged::{Paged, PagedShape, stored_rows},
    random, scaled,
};
use crate::{
    cpu::ops::{
        OpKernels,
        attention::{AttentionParams, select::SelectItem},
    },
    graph::{CacheId, CacheSpec, SelectOp},
    step::KvType,
};

/// Scores of keys by small heads.
#[derive(Clone, Copy, Debug)]
pub struct SelectCase {
    /// The op.
    pub op: SelectOp,
    /// Tokens of a cached entry.
    pub every: usize,
    /// How keys are cached.
    pub kv: KvType,
    /// Whether benches time it.
    pub speed: bool,
}

/// All scores.
pub fn selects() -> Vec<SelectCase> {
    let case = |n_heads, head_dim, k, every, kv, speed| {
        let op = SelectOp { cache: CacheId(0), n_heads, head_dim, k };
        SelectCase { op, every, kv, speed }
    };
    vec![
        case(9, 16, 8, 1, KvType::F32, false),
        case(3, 20, 2, 4, KvType::F16, false),
        case(3, 96, 5, 4, KvType::Q8_0, false),
        case(17, 300, 20, 7, KvType::F32, false),
        // DeepSeek V3.2's heads.
        case(64, 128, 8, 1, KvType::F16, true),
    ]
}

impl SelectCase {
    /// Rows and cached tokens of sequences, of which some are shorter than what may be chosen.
    pub const SEQUENCES: [(usize, usize); 4] = [(1, 300), (3, 131), (2, 9), (1, 1)];

    /// Heads, and how keys are stored.
    pub fn name(&self) -> String {
        format!("{} heads of {} {:?}", self.op.n_heads, self.op.head_dim, self.kv)
    }

    /// The cache's.
    pub fn spec(&self) -> CacheSpec {
        CacheSpec { every: self.every, ..CacheSpec::new(1, self.op.head_dim, 0) }
    }

    /// `[entries][head_dim]`, as they are once cached.
    pub fn keys(&self, entries: usize) -> Vec<f32> {
        stored_rows(self.kv, 7, entries, self.op.head_dim, 1.0)
    }

    /// Queries and weights of a token's heads.
    pub fn query(&self) -> [Vec<f32>; 2] {
        [random(3, self.op.n_heads * self.op.head_dim), random(4, self.op.n_heads)]
    }

    /// Keys in pages.
    pub fn cache(&self, keys: &[f32]) -> Paged {
        let dim = self.op.head_dim;
        let shape = PagedShape { kv: self.kv, page_entries: 16, heads: 1, k_dim: dim, v_dim: 0 };
        Paged::new(shape, keys.len() / dim, 0, |_, i| &keys[i * dim..][..dim], |_, _| &[])
    }

    /// Scores of the first `scores.len()` keys.
    pub fn run(&self, ops: &OpKernels, cache: &Paged, [q, weights]: &[Vec<f32>; 2], scores: &mut [f32]) {
        let one = AttentionParams::one_head(self.op.head_dim, 0);
        let params = AttentionParams { n_heads: self.op.n_heads, ..one };
        let kv = cache.view(scores.len());
        // SAFETY: the cache has all of its pages, and nobody writes them.
        unsafe { (ops.select_scores)(&SelectItem { params: &params, kv: &kv, q, weights }, scores) };
    }

    /// The score of a key in f64.
    pub fn reference(&self, [q, weights]: [&[f32]; 2], key: &[f32]) -> f64 {
        let dot = |q: &[f32]| q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        q.chunks(self.op.head_dim).zip(weights).map(|(q, w)| f64::from(*w) * dot(q).max(0.0)).sum()
    }
}

/// The best of given scores, for the rows of some sequences.
#[derive(Clone, Copy, Debug)]
pub struct ChoiceCase {
    /// Rows and cached tokens.
    pub sequences: &'static [(usize, usize)],
    /// Chosen at most.
    pub k: usize,
    /// Tokens of an entry.
    pub every: usize,
    /// Whether benches time it.
    pub speed: bool,
}

impl ChoiceCase {
    /// Entries that the longest sequence has.
    pub fn longest(&self) -> usize {
        self.sequences.iter().map(|s| s.1 / self.every).max().unwrap_or(0)
    }
}

/// All choices.
pub const CHOICES: [ChoiceCase; 5] = [
    ChoiceCase { sequences: &[(7, 7)], k: 8, every: 1, speed: false },
    ChoiceCase { sequences: &[(2, 300), (4, 70), (1, 1)], k: 37, every: 1, speed: false },
    ChoiceCase { sequences: &[(2, 3000), (70, 1300)], k: 16, every: 4, speed: false },
    ChoiceCase { sequences: &[(1, 30_000)], k: 2048, every: 1, speed: true },
    ChoiceCase { sequences: &[(1, 200_000)], k: 512, every: 2, speed: false },
];

/// `n` scores for row `row`: by turns many equal, all equal, spread over all exponents, and no numbers at all.
pub fn scores(row: usize, n: usize) -> Vec<f32> {
    let seed = row as u64;
    let odd = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, f32::MIN_POSITIVE];
    let scores: Vec<f32> = match row % 4 {
        0 => scaled(seed, n, 3.0).iter().map(|x| x.round()).collect(),
        1 => vec![-1.5; n],
        2 => random(seed, n).iter().map(|x| x * (x * 80.0).exp()).collect(),
        _ => random(seed, n).iter().map(|x| odd[(x.abs() * 7.99) as usize]).collect(),
    };
    // As kernels leave them: a negative zero is a plain one.
    scores.iter().map(|x| x + 0.0).collect()
}

/// The positions of the `k` best scores (of equals the first), in ascending order, and -1 where there are fewer.
pub fn best(scores: &[f32], k: usize) -> Vec<f32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(k);
    order.sort_unstable();
    order.iter().map(|i| *i as f32).chain(std::iter::repeat(-1.0)).take(k).collect()
}
