//! Cases of attention over cached keys and values.

use super::paged::{Paged, PagedShape, stored_rows};
use crate::{
    cpu::ops::{
        attention::{AttentionParams, KeyRope},
        rope_cos_sin,
    },
    graph::{AttentionOp, CacheId, RopeFreqs, RopeId, RopeLayout, RopeSpec, WeightId},
    step::{KvType, turn_key},
};

/// Attention of one layer over some sequences.
#[derive(Clone, Debug)]
pub struct AttentionCase {
    /// The op. Its sinks are [`AttentionCase::SINKS`] from the number of the weight on, its rotation on read is number 1.
    pub op: AttentionOp,
    /// How keys and values are stored.
    pub kv: KvType,
    /// Which elements of keys form a pair that turns on read, and how many elements turn.
    pub rotary: (RopeLayout, usize),
    /// Rows of each sequence, and tokens cached with them.
    pub sequences: Vec<(usize, usize)>,
    /// Tokens of a block, where there are blocks.
    pub every: usize,
    /// Tokens of a page, where it is not the device's own affair.
    pub page_tokens: usize,
    /// Workers that share a cached head on the CPU.
    pub share: usize,
    /// Whether later keys are hidden. No model's op says otherwise.
    pub causal: bool,
    /// The adapters that run it.
    pub devices: Devices,
    /// Whether benches time it.
    pub speed: bool,
}

/// Adapters that a case runs on: a pipeline can take one of them a second to compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The CPU alone.
    None,
    /// One of them.
    One,
    /// All.
    Every,
}

/// The op that the tables' cases vary.
pub const BASE: AttentionOp = AttentionOp {
    v_in_k: false,
    selected: None,
    shared: false,
    cache: CacheId(0),
    n_heads: 6,
    n_kv_heads: 2,
    head_dim: 16,
    v_dim: 16,
    scale: 0.25,
    softcap: None,
    window: None,
    chunk: None,
    sinks: None,
    rotate_on_read: None,
    blocks: None,
};

/// Sequences that attention on the CPU is tested with where nothing else is said: a prompt.
const PROMPT: [(usize, usize); 1] = [(75, 75)];
/// A token behind some, a prompt's second part, and a first token.
const MIXED: [(usize, usize); 3] = [(1, 70), (11, 75), (1, 1)];

fn case(op: AttentionOp, sequences: &[(usize, usize)]) -> AttentionCase {
    AttentionCase::new(op, sequences)
}

fn heads(n_heads: usize, n_kv_heads: usize, [head_dim, v_dim]: [usize; 2]) -> AttentionOp {
    AttentionOp { n_heads, n_kv_heads, head_dim, v_dim, ..BASE }
}

/// How caches of these heads can be stored.
fn kv_types(dims: [usize; 2]) -> impl Iterator<Item = KvType> {
    let blocks = dims.iter().all(|dim| dim.is_multiple_of(32)).then_some(KvType::Q8_0);
    [KvType::F16, KvType::F32].into_iter().chain(blocks)
}

/// Numbers and sizes of heads.
pub fn shapes() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for (n_heads, n_kv_heads, dims) in [
        (6, 2, [16, 16]),
        (4, 4, [24, 24]),
        (9, 3, [64, 64]),
        (4, 1, [32, 40]),
        (7, 1, [80, 13]),
        (5, 1, [128, 128]),
        (8, 2, [96, 32]),
        (2, 1, [7, 3]),
    ] {
        for kv in kv_types(dims) {
            let op = heads(n_heads, n_kv_heads, dims);
            cases.push(AttentionCase { kv, page_tokens: 32, devices: Devices::None, ..case(op, &PROMPT) });
        }
    }
    for (n_heads, n_kv_heads, dims, kv, devices) in [
        (6, 2, [16, 16], KvType::F32, Devices::One),
        (9, 3, [64, 64], KvType::F16, Devices::Every),
        (9, 3, [64, 64], KvType::Q8_0, Devices::Every),
        (4, 2, [96, 32], KvType::Q8_0, Devices::One),
        (4, 4, [80, 96], KvType::F16, Devices::One),
        (8, 1, [128, 128], KvType::F16, Devices::One),
        (9, 1, [4, 8], KvType::F16, Devices::Every),
    ] {
        cases.push(AttentionCase { kv, devices, ..case(heads(n_heads, n_kv_heads, dims), &MIXED) });
    }
    for dim in [256, 512] {
        let op = AttentionOp { scale: 0.05, ..heads(if dim == 256 { 4 } else { 3 }, 1, [dim, dim]) };
        cases.push(case(op, &[(2, 66), (1, 3)]));
    }
    cases
}

/// Values within keys: DeepSeek's latents, and small ones with groups that no tile divides or that workers share.
pub fn latents() -> Vec<AttentionCase> {
    let op = |n_heads, n_kv_heads, dims| AttentionOp { scale: 0.05, v_in_k: true, ..heads(n_heads, n_kv_heads, dims) };
    let mut cases = Vec::new();
    for (n_heads, n_kv_heads, share, dims) in
        [(4, 1, 2, [576, 512]), (5, 1, 1, [48, 32]), (12, 2, 2, [13, 13]), (6, 2, 3, [21, 9])]
    {
        for kv in kv_types(dims) {
            let sequences = if dims[0] > 100 { [(5, 75)] } else { PROMPT };
            let op = op(n_heads, n_kv_heads, dims);
            cases.push(AttentionCase { kv, share, devices: Devices::None, ..case(op, &sequences) });
        }
    }
    for (n_heads, n_kv_heads, dims, kv) in [
        (5, 1, [576, 512], KvType::F16),
        (11, 1, [48, 32], KvType::F32),
        (4, 2, [16, 16], KvType::F16),
        (6, 2, [96, 64], KvType::Q8_0),
    ] {
        cases.push(AttentionCase { kv, ..case(op(n_heads, n_kv_heads, dims), &MIXED) });
    }
    cases
}

/// Windows and chunks, over pages of all sizes.
pub fn masks() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for causal in [true, false] {
        for (window, chunk) in [(None, None), (Some(9), None), (Some(1), None), (None, Some(10)), (Some(9), Some(32))] {
            for page_tokens in [1, 7, 64] {
                let op = AttentionOp { window, chunk, ..BASE };
                cases.push(AttentionCase { page_tokens, causal, devices: Devices::None, ..case(op, &PROMPT) });
            }
        }
    }
    for (window, chunk) in [(Some(9), None), (Some(70), None), (None, Some(100)), (Some(1), Some(64))] {
        cases.push(case(AttentionOp { window, chunk, ..BASE }, &[(3, 331), (1, 130), (40, 200)]));
    }
    cases
}

/// Bounded scores, sinks, keys that turn on read, and scores far beyond exp's range.
pub fn scores() -> Vec<AttentionCase> {
    let sequences = [(1, 300), (5, 67)];
    let mut cases = Vec::new();
    for (softcap, sinks) in [(Some(5.0), None), (None, Some(WeightId(0))), (Some(50.0), Some(WeightId(0)))] {
        let op = AttentionOp { softcap, sinks, ..BASE };
        cases.push(AttentionCase { devices: Devices::None, ..case(op, &PROMPT) });
    }
    cases.push(case(AttentionOp { softcap: Some(5.0), sinks: Some(WeightId(7)), ..BASE }, &sequences));
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        let op = AttentionOp { rotate_on_read: Some(RopeId(1)), ..BASE };
        for kv in [KvType::F16, KvType::F32] {
            let rotary = (layout, 10);
            cases.push(AttentionCase { kv, rotary, devices: Devices::None, ..case(op.clone(), &[(20, 300)]) });
        }
        let kv = if layout == RopeLayout::Half { KvType::F16 } else { KvType::F32 };
        let op = AttentionOp { sinks: Some(WeightId(3)), ..op };
        cases.push(AttentionCase { kv, rotary: (layout, 12), ..case(op.clone(), &sequences) });
        if layout == RopeLayout::Half {
            let op = AttentionOp { head_dim: 32, v_dim: 32, ..op };
            cases.push(AttentionCase { kv: KvType::Q8_0, rotary: (layout, 32), ..case(op, &sequences) });
        }
    }
    let op = AttentionOp { scale: 10.0, window: Some(100), ..BASE };
    cases.push(case(op.clone(), &sequences));
    // Whose first tiles are all masked.
    cases.push(AttentionCase { devices: Devices::None, ..case(op, &[(400, 400)]) });
    cases
}

/// Several pieces and key tiles, the last tokens only, and pages that a window has left behind.
pub fn long() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for window in [None, Some(300), Some(17)] {
        for (len, n_tokens) in [(256, 1), (257, 2), (700, 3), (700, 30)] {
            let op = AttentionOp { window, ..BASE };
            cases.push(AttentionCase { devices: Devices::None, ..case(op, &[(n_tokens, len)]) });
        }
    }
    // More turns of loops than llvmpipe makes, were they not written out.
    let op = AttentionOp { scale: 0.05, ..heads(2, 1, [256, 256]) };
    cases.push(case(op, &[(9, 1030), (1, 1500)]));
    cases
}

/// Prompts over several pieces that begin behind cached tokens: all head sizes and groups of real models, with masks,
/// bounded scores, sinks, keys that turn on read, and values within keys.
pub fn behind_others() -> Vec<AttentionCase> {
    let sinks = Some(WeightId(0));
    let mut cases = Vec::new();
    for (op, page_tokens) in [
        (heads(2, 2, [64, 64]), 32),
        (AttentionOp { window: Some(100), ..heads(9, 3, [64, 48]) }, 32),
        (AttentionOp { chunk: Some(90), softcap: Some(5.0), ..heads(7, 1, [80, 80]) }, 16),
        (AttentionOp { sinks, window: Some(130), ..heads(8, 1, [96, 64]) }, 64),
        (AttentionOp { sinks, softcap: Some(50.0), ..heads(3, 1, [128, 128]) }, 32),
        (AttentionOp { scale: 0.05, ..heads(4, 1, [256, 256]) }, 7),
        (AttentionOp { rotate_on_read: Some(RopeId(1)), ..heads(6, 2, [20, 12]) }, 32),
        (AttentionOp { rotate_on_read: Some(RopeId(1)), ..heads(5, 1, [32, 32]) }, 32),
        (AttentionOp { v_in_k: true, scale: 0.05, ..heads(4, 1, [192, 128]) }, 32),
    ] {
        for kv in kv_types([op.head_dim, op.v_dim]) {
            cases.push(AttentionCase { kv, page_tokens, devices: Devices::None, ..case(op.clone(), &[(150, 420)]) });
        }
    }
    cases
}

/// Chosen keys: DeepSeek V3.2's, and small ones; as many as are seen, and fewer.
pub fn chosen() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for (n_heads, n_kv_heads, dims, v_in_k, kv) in [
        (5, 1, [576, 512], true, KvType::F16),
        (11, 1, [48, 32], true, KvType::F32),
        (6, 2, [16, 24], false, KvType::F16),
        (6, 2, [32, 64], false, KvType::Q8_0),
    ] {
        for k in [9, 70, 100] {
            let op = AttentionOp { v_in_k, scale: 0.1, selected: Some(k), ..heads(n_heads, n_kv_heads, dims) };
            let devices = if k == 9 { Devices::Every } else { Devices::One };
            cases.push(AttentionCase { kv, devices, ..case(op, &MIXED) });
        }
    }
    let op = AttentionOp { selected: Some(300), v_in_k: true, ..BASE };
    cases.push(case(op, &[(3, 900), (1, 400)]));
    cases
}

/// Keys of blocks of tokens beside those of a window, all or chosen.
pub fn blocks() -> Vec<AttentionCase> {
    let sequences = [(1, 300), (9, 75), (2, 3), (1, 1)];
    let base = AttentionOp { v_in_k: true, window: Some(20), blocks: Some(CacheId(1)), ..BASE };
    let mut cases = Vec::new();
    for (selected, every, kv) in [(None, 7, KvType::F16), (Some(10), 4, KvType::F16), (Some(40), 3, KvType::F32)] {
        for (n_heads, n_kv_heads, head_dim) in [(6, 2, 16), (11, 1, 48)] {
            let sinks = Some(WeightId(7));
            let op = AttentionOp { n_heads, n_kv_heads, head_dim, v_dim: head_dim, selected, sinks, ..base.clone() };
            let devices = if n_heads == 6 { Devices::Every } else { Devices::One };
            cases.push(AttentionCase { kv, every, devices, ..case(op, &sequences) });
        }
    }
    let op = AttentionOp { head_dim: 64, v_dim: 64, selected: Some(10), ..base.clone() };
    cases.push(AttentionCase { kv: KvType::Q8_0, ..case(op, &sequences) });
    // DeepSeek V4's.
    let op = AttentionOp { n_heads: 9, n_kv_heads: 1, head_dim: 512, v_dim: 512, scale: 0.05, ..base };
    let op = AttentionOp { window: Some(128), ..op };
    cases.push(AttentionCase { every: 128, ..case(op.clone(), &[(1, 700), (3, 130)]) });
    let op = AttentionOp { selected: Some(64), softcap: Some(9.0), ..op };
    cases.push(case(op, &[(1, 700), (3, 130)]));
    cases
}

/// Cases that benches time: a prompt of 512 tokens, and one token after cached ones, of SmolLM2-135M, Qwen2.5-0.5B,
/// gemma-3-270m.
pub fn models() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for sequence in [(512, 512), (1, 64), (1, 1024), (1, 8192)] {
        for (n_heads, n_kv_heads, head_dim) in [(9, 3, 64), (14, 2, 64), (4, 1, 256)] {
            let op = AttentionOp { scale: 0.1, ..heads(n_heads, n_kv_heads, [head_dim, head_dim]) };
            for kv in [KvType::F16, KvType::Q8_0] {
                cases.push(AttentionCase { kv, speed: true, page_tokens: 32, ..case(op.clone(), &[sequence]) });
            }
        }
    }
    cases
}

/// Keys and values of a sequence by head, position, element, as they are once stored.
#[derive(Clone, Debug)]
pub struct Cached {
    /// Keys.
    pub k: Vec<Vec<Vec<f32>>>,
    /// Values.
    pub v: Vec<Vec<Vec<f32>>>,
}

impl AttentionCase {
    /// Logits that join the softmax, from weight 0 on.
    pub const SINKS: [f32; 18] =
        [0.0, -3.0, 2.5, 40.0, -200.0, 1.0, 0.5, -0.5, 3.0, 0.25, -1.0, 1.5, -2.0, 2.0, 0.75, -4.0, 0.1, -0.1];

    /// Of f16, on one adapter, with nothing special beside the op.
    pub fn new(op: AttentionOp, sequences: &[(usize, usize)]) -> Self {
        Self {
            op,
            kv: KvType::F16,
            rotary: (RopeLayout::Half, 8),
            sequences: sequences.to_vec(),
            every: 4,
            page_tokens: 16,
            share: 1,
            causal: true,
            devices: Devices::One,
            speed: false,
        }
    }

    /// Heads, what is special about them, and sequences.
    pub fn name(&self) -> String {
        let op = &self.op;
        let mut name = format!("{}/{} heads of {}/{} {:?}", op.n_heads, op.n_kv_heads, op.head_dim, op.v_dim, self.kv);
        let mut add = |what: &str, n: Option<String>| name.extend(n.map(|n| format!(", {what} {n}")));
        add("window", op.window.map(|n| n.to_string()));
        add("chunk", op.chunk.map(|n| n.to_string()));
        add("softcap", op.softcap.map(|n| n.to_string()));
        add("sinks", op.sinks.map(|w| format!("from {}", w.0)));
        add("turned", op.rotate_on_read.map(|_| format!("{:?} {}", self.rotary.0, self.rotary.1)));
        add("chosen", op.selected.map(|n| n.to_string()));
        add("blocks", op.blocks.map(|_| format!("of {}", self.every)));
        add("values", op.v_in_k.then(|| format!("in keys, shared by {}", self.share)));
        add("seeing", (!self.causal).then(|| "all".to_owned()));
        add("scale", Some(op.scale.to_string()));
        add("pages", Some(format!("of {}, rows of tokens {:?}", self.page_tokens, self.sequences)));
        name
    }

    /// How keys that are cached unturned turn: otherwise with each length.
    pub fn key_rope(&self) -> RopeSpec {
        let freqs = RopeFreqs::Dynamic { theta: 100.0, factor: 2.0, max_position: 50 };
        RopeSpec { attention_factor: 1.1, ..RopeSpec::new(self.rotary.0, self.rotary.1, freqs) }
    }

    /// Whether a query sees a key of its own sequence, as masks say.
    pub fn sees(&self, query: usize, key: usize) -> bool {
        (!self.causal || key <= query)
            && self.op.window.is_none_or(|w| key + w > query)
            && self.op.chunk.is_none_or(|c| key / c == query / c)
    }

    /// The sink of a query head.
    pub fn sink(&self, head: usize) -> Option<f64> {
        self.op.sinks.map(|w| f64::from(Self::SINKS[w.0 as usize + head]))
    }

    /// The keys and values of sequence `s`.
    pub fn cached(&self, s: usize) -> Cached {
        let (op, len) = (&self.op, self.sequences[s].1);
        let all = |seed: usize, dim: usize| -> Vec<Vec<Vec<f32>>> {
            let head = |h: usize| {
                let seed = ((seed * 7 + s) * 11 + h) as u64 + 1;
                stored_rows(self.kv, seed, len, dim, 2.0).chunks(dim).map(<[f32]>::to_vec).collect()
            };
            (0..op.n_kv_heads).map(head).collect()
        };
        let mut k = all(1, op.head_dim);
        if self.turns_keys() {
            // Products of a byte and a half, and 32 of them: exact.
            k.iter_mut().flatten().for_each(|key| {
                turn_key(key);
                key.iter_mut().for_each(|x| *x /= 32.0);
            });
        }
        let within = |keys: &Vec<Vec<f32>>| keys.iter().map(|k| k[..op.v_dim].to_vec()).collect();
        let v = if op.v_in_k { k.iter().map(within).collect() } else { all(2, op.v_dim) };
        Cached { k, v }
    }

    /// `[rows][n_heads][head_dim]` of sequence `s`.
    pub fn queries(&self, s: usize) -> Vec<f32> {
        super::scaled(3 + s as u64, self.sequences[s].0 * self.op.n_heads * self.op.head_dim, 3.0)
    }

    /// The keys and values of sequence `s` in pages, without pages that none of its rows sees.
    pub fn paged(&self, s: usize, cached: &Cached) -> Paged {
        let (op, (rows, len)) = (&self.op, self.sequences[s]);
        let shape = PagedShape {
            kv: self.kv,
            page_entries: self.page_tokens,
            heads: op.n_kv_heads,
            k_dim: op.head_dim,
            v_dim: if op.v_in_k { 0 } else { op.v_dim },
        };
        let seen = |key: &usize| (len - rows..len).any(|query| self.sees(query, *key));
        let first = (0..len).find(seen).unwrap_or(0);
        let mut keys = cached.k.clone();
        if self.turns_keys() {
            keys.iter_mut().flatten().for_each(|key| turn_key(key));
        }
        Paged::new(shape, len, first, |h, p| &keys[h][p], |h, p| &cached.v[h][p])
    }

    fn turns_keys(&self) -> bool {
        self.kv.turns_keys(self.op.v_in_k, self.op.rotate_on_read.is_some())
    }

    /// Cosines and sines of all positions of a sequence of `len`, where keys turn on read.
    pub fn key_angles(&self, len: usize) -> Option<[Vec<f32>; 2]> {
        self.op.rotate_on_read.map(|_| {
            let spec = self.key_rope();
            let (half, freqs) = (self.rotary.1 / 2, spec.inv_freq(len));
            let [mut cos, mut sin] = [(); 2].map(|()| vec![f32::NAN; len * half]);
            for (position, (cos, sin)) in cos.chunks_mut(half).zip(sin.chunks_mut(half)).enumerate() {
                rope_cos_sin(&freqs, spec.factor(len), position, cos, sin);
            }
            [cos, sin]
        })
    }

    /// The op as the CPU's kernels have it.
    pub fn params<'a>(&self, angles: &'a Option<[Vec<f32>; 2]>) -> AttentionParams<'a> {
        let op = &self.op;
        let turn = |[cos, sin]: &'a [Vec<f32>; 2]| KeyRope { cos, sin, half: self.rotary.1 / 2, layout: self.rotary.0 };
        AttentionParams {
            n_heads: op.n_heads,
            n_kv_heads: op.n_kv_heads * self.share,
            share: self.share,
            head_dim: op.head_dim,
            v_dim: op.v_dim,
            scale: op.scale,
            softcap: op.softcap,
            window: op.window,
            chunk: op.chunk,
            sinks: op.sinks.map(|w| &Self::SINKS[w.0 as usize..][..op.n_heads]),
            causal: self.causal,
            k_rope: angles.as_ref().map(turn),
            v_in_k: op.v_in_k,
        }
    }

    /// The result of query head `head` over keys (rotated, where they are to be) and values, in f64.
    pub fn attend<'a>(&self, head: usize, q: &[f32], keys: impl Iterator<Item = (Vec<f64>, &'a [f32])>) -> Vec<f64> {
        let op = &self.op;
        let score = |k: &[f64]| {
            let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * k).sum();
            let s = dot * f64::from(op.scale);
            op.softcap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh())
        };
        let scored: Vec<(f64, &[f32])> = keys.map(|(k, v)| (score(&k), v)).collect();
        let all = || scored.iter().map(|s| s.0).chain(self.sink(head));
        let top = all().fold(f64::MIN, f64::max);
        let total: f64 = all().map(|s| (s - top).exp()).sum();
        let mut out = vec![0.0; op.v_dim];
        for (s, v) in &scored {
            out.iter_mut().zip(*v).for_each(|(o, v)| *o += (s - top).exp() / total * f64::from(*v));
        }
        out
    }
}
