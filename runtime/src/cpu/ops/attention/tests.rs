//! Both attention kernels against a softmax in f64 that stores all scores, over every parameter and page geometry.

use super::*;
use crate::cpu::arch::Isa;
use crate::cpu::ops::testing::{random, relative_error};
use crate::cpu::ops::{op_kernels, rope_cos_sin};

/// One sequence: what is in the cache, where, and the queries of its last tokens.
struct Case {
    params: AttentionParams<'static>,
    kv: KvType,
    page_tokens: usize,
    len: usize,
    /// Query tokens, the last of which is the last of the sequence.
    n_tokens: usize,
}

const BASE: AttentionParams<'static> =
    AttentionParams { n_heads: 6, n_kv_heads: 2, scale: 0.25, ..AttentionParams::one_head(16, 16) };

/// A cache with shuffled pages, and the same numbers in plain order.
struct Cache {
    bytes: Vec<u8>,
    pages: Vec<u32>,
    page_bytes: usize,
    v_offset: usize,
    first_page: usize,
    /// `[cached heads][len][head_dim]` and `[cached heads][len][v_dim]`
    k: Vec<f32>,
    v: Vec<f32>,
}

const K_OFFSET: usize = 64;

impl Case {
    fn cache(&self) -> Cache {
        let p = &self.params;
        let round = |x: f32| if self.kv == KvType::F16 { half::f16::from_f32(x).to_f32() } else { x };
        let heads = p.n_kv_heads / p.share;
        let k: Vec<f32> = random(1, heads * self.len * p.head_dim).iter().map(|x| round(x * 3.0)).collect();
        let v: Vec<f32> = if p.v_in_k {
            k.chunks(p.head_dim).flat_map(|key| key[..p.v_dim].to_vec()).collect()
        } else {
            random(2, heads * self.len * p.v_dim).into_iter().map(round).collect()
        };
        let v_offset = K_OFFSET + heads * self.page_tokens * p.head_dim * self.kv.bytes();
        let page_bytes = v_offset + heads * self.page_tokens * p.v_dim * self.kv.bytes() + 32;
        let n_pages = self.len.div_ceil(self.page_tokens);
        // Pages that no query sees are dropped; unused bytes are NaN in both formats.
        let first_key = (self.len - self.n_tokens..self.len).map(|q| p.visible(q, self.len).start).min().unwrap_or(0);
        let first_page = first_key / self.page_tokens;
        // 7 has an inverse modulo this, so no two are the same.
        let shuffle = n_pages + usize::from(n_pages.is_multiple_of(7));
        let pages: Vec<u32> = (0..n_pages).map(|i| ((i * 7 + 3) % shuffle) as u32).collect();
        let mut bytes = vec![0xff; (*pages.iter().max().unwrap() as usize + 1) * page_bytes];
        for key in first_page * self.page_tokens..self.len {
            for head in 0..heads {
                let both = [(&k, p.head_dim, K_OFFSET), (&v, p.v_dim, v_offset)];
                for (rows, dim, offset) in both.into_iter().take(2 - usize::from(p.v_in_k)) {
                    let page = pages[key / self.page_tokens] as usize * page_bytes + offset;
                    let row = head * self.page_tokens + key % self.page_tokens;
                    for d in 0..dim {
                        let x = rows[(head * self.len + key) * dim + d];
                        let at = page + (row * dim + d) * self.kv.bytes();
                        match self.kv {
                            KvType::F16 => {
                                bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(x).to_bits().to_ne_bytes());
                            }
                            KvType::F32 => bytes[at..at + 4].copy_from_slice(&x.to_ne_bytes()),
                        }
                    }
                }
            }
        }
        Cache { bytes, pages: pages[first_page..].to_vec(), page_bytes, v_offset, first_page, k, v }
    }

    fn pages<'a>(&self, cache: &'a Cache) -> KvPages<'a> {
        KvPages {
            base: cache.bytes.as_ptr(),
            pages: &cache.pages,
            page_bytes: cache.page_bytes,
            page_tokens: self.page_tokens,
            k_offset: K_OFFSET,
            v_offset: if self.params.v_in_k { K_OFFSET } else { cache.v_offset },
            kv: self.kv,
            first_page: cache.first_page,
            len: self.len,
        }
    }

    fn queries(&self) -> Vec<f32> {
        random(3, self.n_tokens * self.params.n_heads * self.params.head_dim).iter().map(|x| x * 3.0).collect()
    }

    fn reference(&self, cache: &Cache, q: &[f32]) -> Vec<f64> {
        let p = &self.params;
        let mut out = Vec::new();
        for token in 0..self.n_tokens {
            let position = self.len - self.n_tokens + token;
            for head in 0..p.n_heads {
                let kv_head = head / (p.n_heads / p.n_kv_heads) / p.share;
                let q = &q[(token * p.n_heads + head) * p.head_dim..][..p.head_dim];
                let mut weights = Vec::new();
                for key in 0..self.len {
                    let seen = (!p.causal || key <= position)
                        && p.window.is_none_or(|w| key + w > position)
                        && p.chunk.is_none_or(|c| key / c == position / c);
                    let mut row: Vec<f64> = cache.k[(kv_head * self.len + key) * p.head_dim..][..p.head_dim]
                        .iter()
                        .map(|&x| f64::from(x))
                        .collect();
                    if let Some(rope) = &p.k_rope {
                        for i in 0..rope.half {
                            let (a, b) = match rope.layout {
                                RopeLayout::Half => (i, i + rope.half),
                                RopeLayout::Interleaved => (2 * i, 2 * i + 1),
                            };
                            let (c, s) = (rope.cos[key * rope.half + i], rope.sin[key * rope.half + i]);
                            let (c, s, x, y) = (f64::from(c), f64::from(s), row[a], row[b]);
                            (row[a], row[b]) = (x * c - y * s, x * s + y * c);
                        }
                    }
                    let dot: f64 = q.iter().zip(&row).map(|(&a, &b)| f64::from(a) * b).sum();
                    let score = dot * f64::from(p.scale);
                    let score = p.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
                    weights.push(if seen { score.exp() } else { 0.0 });
                }
                let total = weights.iter().sum::<f64>() + p.sinks.map_or(0.0, |s| f64::from(s[head]).exp());
                for d in 0..p.v_dim {
                    let value = |key: usize| f64::from(cache.v[(kv_head * self.len + key) * p.v_dim + d]);
                    out.push(weights.iter().enumerate().map(|(key, w)| w * value(key)).sum::<f64>() / total);
                }
            }
        }
        out
    }

    /// All tokens through the prompt kernel, in parts of `part` tokens.
    fn prompt(&self, isa: Isa, cache: &Cache, q: &[f32], part: usize) -> Vec<f32> {
        let p = &self.params;
        // Strides longer than the rows, poisoned between them.
        let (q_stride, out_stride) = (p.n_heads * p.head_dim + 3, p.n_heads * p.v_dim + 5);
        let mut strided = vec![f32::NAN; self.n_tokens * q_stride];
        for (to, from) in strided.chunks_mut(q_stride).zip(q.chunks(p.n_heads * p.head_dim)) {
            to[..from.len()].copy_from_slice(from);
        }
        let mut out = vec![f32::NAN; self.n_tokens * out_stride];
        let mut scratch = vec![f32::NAN; p.scratch_len()];
        let mut done = 0;
        while done < self.n_tokens {
            let n_tokens = part.min(self.n_tokens - done);
            let first_position = self.len - self.n_tokens + done;
            // A part is computed as soon as its own keys are there.
            let kv = KvPages { len: if p.causal { first_position + n_tokens } else { self.len }, ..self.pages(cache) };
            for kv_head in 0..p.n_kv_heads {
                for tile in 0..p.prompt_tiles(n_tokens) {
                    let item = PromptItem {
                        params: p,
                        kv: &kv,
                        kv_head,
                        tile,
                        q: &strided[done * q_stride..],
                        q_stride,
                        out: out[done * out_stride..].as_mut_ptr(),
                        out_stride,
                        n_tokens,
                        first_position,
                    };
                    // SAFETY: `kv` describes the cache's bytes, and `out` has a row for every token.
                    unsafe { (op_kernels(isa).attention_prompt)(&item, &mut scratch) };
                }
            }
            done += n_tokens;
        }
        out.chunks(out_stride)
            .flat_map(|row| {
                assert!(row[p.n_heads * p.v_dim..].iter().all(|x| x.is_nan()), "written between rows");
                row[..p.n_heads * p.v_dim].to_vec()
            })
            .collect()
    }

    /// All tokens, one by one, through the decode kernel.
    fn decode(&self, isa: Isa, cache: &Cache, q: &[f32]) -> Vec<f32> {
        let p = &self.params;
        let mut out = vec![f32::NAN; self.n_tokens * p.n_heads * p.v_dim];
        let mut scratch = vec![f32::NAN; p.scratch_len()];
        for token in 0..self.n_tokens {
            let position = self.len - self.n_tokens + token;
            let kv = KvPages { len: if p.causal { position + 1 } else { self.len }, ..self.pages(cache) };
            let pieces = p.pieces(position, kv.len);
            let row = &mut out[token * p.n_heads * p.v_dim..][..p.n_heads * p.v_dim];
            for (kv_head, out) in row.chunks_mut(p.group() * p.v_dim).enumerate() {
                let mut partials = vec![f32::NAN; pieces.len() * p.partial_len()];
                for (partial, piece) in partials.chunks_mut(p.partial_len()).zip(pieces.clone()) {
                    let q = &q[token * p.n_heads * p.head_dim..][..p.n_heads * p.head_dim];
                    let item = DecodeItem { params: p, kv: &kv, kv_head, q, position, piece, keys: None };
                    // SAFETY: `kv` describes the cache's bytes.
                    unsafe { (op_kernels(isa).attention_decode)(&item, &mut scratch, partial) };
                }
                (op_kernels(isa).attention_merge)(p, kv_head, &partials, out);
                // Joined one after the other they merge to the same.
                let (first, more) = partials.split_at_mut(p.partial_len());
                more.chunks(p.partial_len()).for_each(|more| (op_kernels(isa).attention_join)(p, more, first));
                let mut joined = vec![f32::NAN; out.len()];
                (op_kernels(isa).attention_merge)(p, kv_head, first, &mut joined);
                let merged: Vec<f64> = out.iter().copied().map(f64::from).collect();
                assert!(relative_error(&joined, &merged) < 1e-6, "{} pieces joined", pieces.len());
            }
        }
        out
    }

    fn check(&self, what: &str) {
        let (cache, q) = (self.cache(), self.queries());
        let reference = self.reference(&cache, &q);
        for isa in Isa::available() {
            let whole = self.prompt(isa, &cache, &q, self.n_tokens);
            for (kernel, out) in [("prompt", &whole), ("decode", &self.decode(isa, &cache, &q))] {
                let error = relative_error(out, &reference);
                assert!(error < 3e-6, "{what}, {kernel}, {}: {error:e}", isa.name());
            }
            for part in [1, 5, 23] {
                assert!(whole == self.prompt(isa, &cache, &q, part), "{what}: parts of {part}, {}", isa.name());
            }
        }
    }
}

fn case(params: AttentionParams<'static>) -> Case {
    Case { params, kv: KvType::F16, page_tokens: 16, len: 75, n_tokens: 75 }
}

#[test]
fn shapes_match_f64() {
    for (n_heads, n_kv_heads, head_dim, v_dim) in
        [(6, 2, 16, 16), (4, 4, 24, 24), (9, 3, 64, 64), (4, 1, 32, 40), (7, 1, 80, 13), (5, 1, 128, 128), (2, 1, 7, 3)]
    {
        for kv in [KvType::F16, KvType::F32] {
            let params = AttentionParams { n_heads, n_kv_heads, head_dim, v_dim, ..BASE };
            Case { kv, page_tokens: 32, ..case(params) }
                .check(&format!("{n_heads}/{n_kv_heads} of {head_dim}/{v_dim} {kv:?}"));
        }
    }
}

#[test]
fn masks_match_f64() {
    for causal in [true, false] {
        for (window, chunk) in [(None, None), (Some(9), None), (Some(1), None), (None, Some(10)), (Some(9), Some(32))] {
            for page_tokens in [1, 7, 64] {
                let params = AttentionParams { causal, window, chunk, ..BASE };
                Case { page_tokens, ..case(params) }
                    .check(&format!("causal {causal}, {window:?}, {chunk:?}, {page_tokens}"));
            }
        }
    }
}

#[test]
fn softcap_and_sinks_match_f64() {
    const SINKS: [f32; 6] = [0.0, -3.0, 2.5, 40.0, -200.0, 1.0];
    for (softcap, sinks) in [(Some(5.0), None), (None, Some(&SINKS[..])), (Some(50.0), Some(&SINKS[..]))] {
        case(AttentionParams { softcap, sinks, ..BASE }).check(&format!("{softcap:?} {sinks:?}"));
    }
}

/// Several pieces and key tiles, the last tokens only, and pages that a window has left behind.
#[test]
fn long_sequences_match_f64() {
    for window in [None, Some(300), Some(17)] {
        for (len, n_tokens) in [(256, 1), (257, 2), (700, 3), (700, 30)] {
            let params = AttentionParams { window, ..BASE };
            Case { len, n_tokens, ..case(params) }.check(&format!("{window:?} {n_tokens} of {len}"));
        }
    }
}

#[test]
fn keys_turned_on_read_match_f64() {
    let half = 5;
    let (mut cos, mut sin) = (vec![0.0; 300 * half], vec![0.0; 300 * half]);
    for (position, (cos, sin)) in cos.chunks_mut(half).zip(sin.chunks_mut(half)).enumerate() {
        rope_cos_sin(&[1.0, 0.5, 0.1, 0.02, 0.001], 1.1, position, cos, sin);
    }
    // The cases live as long as the program, which a test may afford.
    let (cos, sin): (&'static [f32], &'static [f32]) = (cos.leak(), sin.leak());
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        for kv in [KvType::F16, KvType::F32] {
            let params = AttentionParams { k_rope: Some(KeyRope { cos, sin, half, layout }), ..BASE };
            Case { kv, len: 300, n_tokens: 20, ..case(params) }.check(&format!("{layout:?} {kv:?}"));
        }
    }
}

/// Scores far beyond exp's range must not overflow, and a row whose first tiles are all masked must not be NaN.
#[test]
fn huge_scores_match_f64() {
    Case { len: 400, n_tokens: 400, ..case(AttentionParams { scale: 10.0, window: Some(100), ..BASE }) }.check("huge");
}

#[test]
fn powers_of_two_are_exact_to_two_ulp() {
    #[inline(always)]
    fn powers_impl<S: Simd>(s: S, x: &mut [f32]) {
        for x in x.chunks_exact_mut(S::LANES) {
            // SAFETY: LANES elements.
            unsafe { s.store(x.as_mut_ptr(), exp2_negative(s, s.load(x.as_ptr()))) };
        }
    }
    crate::simd_dispatch!(fn powers(x: &mut [f32]) = powers_impl);
    for isa in Isa::available() {
        let x: Vec<f32> = (0..1600).map(|i| -(i as f32) * 0.0787).collect();
        let mut out = x.clone();
        powers(isa)(&mut out);
        for (&x, &out) in x.iter().zip(&out) {
            let expected = f64::from(x).exp2();
            assert!((f64::from(out) - expected).abs() < expected * 2.4e-7, "{} {x}: {out} {expected}", isa.name());
        }
        let mut out = vec![f32::NEG_INFINITY; 16];
        out[..3].copy_from_slice(&[0.0, -1e30, f32::NAN]);
        powers(isa)(&mut out);
        assert!(out[0] == 1.0 && out[1] == 0.0 && out[2].is_nan() && out[3..].iter().all(|&x| x == 0.0));
    }
}

#[test]
fn latent_keys_match_f64() {
    // Values within keys, with heads cut for several workers: DeepSeek's 576 and 512 among odd ones.
    for (n_heads, n_kv_heads, share, head_dim, v_dim) in
        [(4, 2, 2, 576, 512), (5, 1, 1, 48, 32), (12, 4, 2, 13, 13), (6, 6, 3, 21, 9)]
    {
        for kv in [KvType::F16, KvType::F32] {
            let params =
                AttentionParams { n_heads, n_kv_heads, share, head_dim, v_dim, v_in_k: true, scale: 0.05, ..BASE };
            let n_tokens = if head_dim > 100 { 5 } else { 75 };
            Case { kv, n_tokens, ..case(params) }
                .check(&format!("{n_heads} {n_kv_heads} {share} {head_dim} {v_dim} {kv:?}"));
        }
    }
}
