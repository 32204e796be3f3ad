//! Both attention kernels against a softmax in f64 that stores all scores, and bit by bit against each other: the cases
//! of `cases::attention`.

use super::{join::exp2_negative, *};
use crate::cases::{
    attention::{self, AttentionCase, Cached},
    paged::Paged,
    relative_error, wide,
};
use crate::cpu::arch::Isa;
use crate::cpu::ops::op_kernels;

/// One sequence of a case: the queries of its last tokens over what is cached.
struct Run<'a> {
    params: AttentionParams<'a>,
    cache: &'a Paged,
    q: &'a [f32],
    len: usize,
    n_tokens: usize,
}

/// `[n_tokens][n_heads * v_dim]` of sequence `s`, in f64.
fn reference(case: &AttentionCase, s: usize, cached: &Cached, q: &[f32]) -> Vec<f64> {
    let (op, (n_tokens, len)) = (&case.op, case.sequences[s]);
    let rope = op.rotate_on_read.map(|_| case.key_rope());
    let turned = |key: &[f32], position: usize| {
        let mut key = wide(key);
        if let Some(spec) = &rope {
            crate::cases::rows::rotate_f64(&mut key, spec, &spec.inv_freq(len), position);
        }
        key
    };
    let mut out = Vec::new();
    for (row, q) in q.chunks(op.head_dim).enumerate() {
        let (position, head) = (len - n_tokens + row / op.n_heads, row % op.n_heads);
        let kv_head = head / (op.n_heads / op.n_kv_heads);
        let (keys, values) = (&cached.k[kv_head], &cached.v[kv_head]);
        let seen = (0..len).filter(|key| case.sees(position, *key));
        out.extend(case.attend(head, q, seen.map(|key| (turned(&keys[key], key), &values[key][..]))));
    }
    out
}

impl Run<'_> {
    /// All tokens through the prompt kernel, in parts of `part` tokens.
    fn prompt(&self, isa: Isa, part: usize) -> Vec<f32> {
        let p = &self.params;
        // Strides longer than the rows, poisoned between them.
        let (q_stride, out_stride) = (p.n_heads * p.head_dim + 3, p.n_heads * p.v_dim + 5);
        let mut strided = vec![f32::NAN; self.n_tokens * q_stride];
        for (to, from) in strided.chunks_mut(q_stride).zip(self.q.chunks(p.n_heads * p.head_dim)) {
            to[..from.len()].copy_from_slice(from);
        }
        let mut out = vec![f32::NAN; self.n_tokens * out_stride];
        let mut scratch = vec![f32::NAN; p.scratch_len()];
        let mut done = 0;
        while done < self.n_tokens {
            let n_tokens = part.min(self.n_tokens - done);
            let first_position = self.len - self.n_tokens + done;
            // A part is computed as soon as its own keys are there.
            let kv = self.cache.view(if p.causal { first_position + n_tokens } else { self.len });
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
    fn decode(&self, isa: Isa) -> Vec<f32> {
        let p = &self.params;
        let mut out = vec![f32::NAN; self.n_tokens * p.n_heads * p.v_dim];
        let mut scratch = vec![f32::NAN; p.scratch_len()];
        for token in 0..self.n_tokens {
            let position = self.len - self.n_tokens + token;
            let kv = self.cache.view(if p.causal { position + 1 } else { self.len });
            let pieces = p.pieces(position, kv.len);
            let row = &mut out[token * p.n_heads * p.v_dim..][..p.n_heads * p.v_dim];
            for (kv_head, out) in row.chunks_mut(p.group() * p.v_dim).enumerate() {
                let mut partials = vec![f32::NAN; pieces.len() * p.partial_len()];
                for (partial, piece) in partials.chunks_mut(p.partial_len()).zip(pieces.clone()) {
                    let q = &self.q[token * p.n_heads * p.head_dim..][..p.n_heads * p.head_dim];
                    let item = DecodeItem { params: p, kv: &kv, kv_head, q, position, piece, keys: None };
                    // SAFETY: `kv` describes the cache's bytes.
                    unsafe { (op_kernels(isa).attention_decode)(&item, &mut scratch, partial) };
                }
                (op_kernels(isa).attention_merge)(p, kv_head, &partials, out);
                // Joined in a place of their own they merge to the same.
                let (first, more) = partials.split_at_mut(p.partial_len());
                more.chunks(p.partial_len()).for_each(|more| (op_kernels(isa).attention_join)(p, more, first));
                let mut joined = vec![f32::NAN; out.len()];
                (op_kernels(isa).attention_merge)(p, kv_head, first, &mut joined);
                assert!(bits(&joined) == bits(out), "{} pieces joined", pieces.len());
            }
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The results are those of f64, and the same bits from both kernels, for all parts of the prompt, and with all
/// instruction sets that fuse multiply-adds.
fn check(cases: Vec<AttentionCase>) {
    for case in cases {
        for s in 0..case.sequences.len() {
            let (n_tokens, len) = case.sequences[s];
            let (cached, q) = (case.cached(s), case.queries(s));
            let (cache, angles) = (case.paged(s, &cached), case.key_angles(len));
            let run = Run { params: case.params(&angles), cache: &cache, q: &q, len, n_tokens };
            let expected = reference(&case, s, &cached, &q);
            let what = format!("{}, sequence {s}", case.name());
            let mut fused: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                let (whole, single) = (run.prompt(isa, n_tokens), run.decode(isa));
                for (kernel, out) in [("prompt", &whole), ("decode", &single)] {
                    let error = relative_error(out, &expected);
                    assert!(error < 3e-6, "{what}, {kernel}, {}: {error:e}", isa.name());
                }
                let whole = bits(&whole);
                assert!(whole == bits(&single), "{what}: prompt and decode differ, {}", isa.name());
                for part in [1, 5, 23].into_iter().filter(|part| *part < n_tokens) {
                    assert!(whole == bits(&run.prompt(isa, part)), "{what}: parts of {part}, {}", isa.name());
                }
                if isa != Isa::Generic {
                    let fused = fused.get_or_insert_with(|| whole.clone());
                    assert!(*fused == whole, "{what}: {} differs", isa.name());
                }
            }
        }
    }
}

#[test]
fn shapes_match_f64() {
    check(attention::shapes());
}

#[test]
fn masks_match_f64() {
    check(attention::masks());
}

#[test]
fn bounded_sunk_turned_and_huge_scores_match_f64() {
    check(attention::scores());
}

#[test]
fn long_sequences_match_f64() {
    check(attention::long());
}

#[test]
fn prompts_behind_other_tokens_match_f64() {
    check(attention::behind_others());
}

#[test]
fn infinite_keys_and_values_of_later_tokens_change_nothing() {
    for case in attention::behind_others().into_iter().filter(|case| case.causal) {
        let (n_tokens, len) = case.sequences[0];
        let (cached, q, angles) = (case.cached(0), case.queries(0), case.key_angles(len));
        let mut spoiled = cached.clone();
        let last = case.op.n_heads * case.op.v_dim;
        for rows in spoiled.k.iter_mut().chain(&mut spoiled.v) {
            let row = &mut rows[len - 1];
            row.iter_mut().enumerate().for_each(|(i, x)| *x = if i % 2 == 0 { f32::INFINITY } else { f32::NAN });
        }
        let caches = [cached, spoiled].map(|cached| case.paged(0, &cached));
        for isa in Isa::available() {
            let [clean, spoiled] = caches.each_ref().map(|cache| {
                let run = Run { params: case.params(&angles), cache, q: &q, len, n_tokens };
                let out = run.prompt(isa, n_tokens);
                bits(&out[..out.len() - last])
            });
            assert!(clean == spoiled, "{}, {}", case.name(), isa.name());
        }
    }
}

#[test]
fn latent_keys_match_f64() {
    check(attention::latents());
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
