//! DeepSeek V4's attention: queries attend to the keys of a short window and to keys that pool a block of tokens each.
//! There is one key head, whose keys are the values, too, so results are rotated back by the query's position.
//!
//! ```text
//! latent = norm(W_qa x)        q = rms(W_qb latent) by head        k = v = norm(W_kv x)       q, k: last dimensions turn
//! blocks   softmax-weighted means of rows and gates of their tokens, normalised, turned by their first token
//!   heavy  all blocks of many tokens
//!   sparse the best of overlapping blocks of few, chosen by small heads (an indexer) with blocks of their own
//! out      turned back, W_a by groups of heads, W_b
//! ```

use handmill_runtime::graph::{
    AttentionOp, CacheId, CacheSpec, GraphBuilder, HeadLinearOp, Op, PoolOp, RopeSpec, SelectOp, ValueId, WeightId,
};

use super::{Loader, hyper::plain_norm, project};
use crate::Error;

/// The blocks that a layer attends to beside its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Nothing.
    None,
    /// The best of overlapping blocks of so many tokens.
    Sparse(usize),
    /// All blocks of so many tokens.
    Heavy(usize),
}

/// The attention of a model.
#[derive(Clone, Debug)]
pub struct CompressedAttention {
    /// Query heads.
    pub n_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of the latent that queries are made of.
    pub q_rank: usize,
    /// Tokens of the window.
    pub window: usize,
    /// Groups of heads in the output projection, and the rank of each.
    pub out: [usize; 2],
    /// Index heads, their elements, and the blocks that they choose.
    pub index: [usize; 3],
    /// Rotation of layers without blocks, and of those with them.
    pub ropes: [RopeSpec; 2],
    /// The inverses of `ropes`.
    pub back: [RopeSpec; 2],
    /// Added to the mean square by norms.
    pub eps: f32,
}

/// The attention of one layer, which finds its weights by their names in GGUF and in safetensors.
pub struct Layer<'a, 'l> {
    l: &'a Loader<'l>,
    i: usize,
    a: &'a CompressedAttention,
}

impl CompressedAttention {
    /// The attention of layer `i`.
    pub fn layer<'a, 'l>(&'a self, l: &'a Loader<'l>, i: usize) -> Layer<'a, 'l> {
        Layer { l, i, a: self }
    }
}

impl Layer<'_, '_> {
    /// A layer's weight by its names in GGUF and in safetensors.
    fn weight(&self, b: &mut GraphBuilder, [gguf, hf]: [&str; 2], shape: &[usize]) -> Result<WeightId, Error> {
        self.l.layer(b, self.i, gguf, hf, shape)
    }

    fn linear(
        &self,
        b: &mut GraphBuilder,
        name: &str,
        x: ValueId,
        names: [&str; 2],
        out: usize,
    ) -> Result<ValueId, Error> {
        project(b, self.l, self.i, name, x, names, out)
    }

    fn norm(&self, b: &mut GraphBuilder, name: &str, x: ValueId, [gguf, hf]: [&str; 2]) -> Result<ValueId, Error> {
        let norm = self.l.layer_norm(b, self.i, gguf, hf, b.graph().value(x).width)?;
        Ok(b.norm(name, x, norm)?)
    }

    /// The result of all heads for `x`, before its projection.
    ///
    /// # Errors
    /// Missing tensors, and shapes that do not fit.
    pub fn heads(&self, b: &mut GraphBuilder, x: ValueId, kind: Blocks) -> Result<ValueId, Error> {
        let (n_heads, dim) = (self.a.n_heads, self.a.head_dim);
        let spec = &self.a.ropes[usize::from(kind != Blocks::None)];
        let rope = b.rope_spec(spec.clone());
        let q = self.linear(b, "q_a", x, ["attn_q_a", "attn.wq_a"], self.a.q_rank)?;
        let k = self.linear(b, "kv", x, ["attn_kv", "attn.wkv"], dim)?;
        let latent = self.norm(b, "q_a_norm", q, ["attn_q_a_norm", "attn.q_norm"])?;
        let q = self.linear(b, "q_b", latent, ["attn_q_b", "attn.wq_b"], n_heads * dim)?;
        let (mut blocks, mut selected) = (None, None);
        if let Blocks::Sparse(every) | Blocks::Heavy(every) = kind {
            let overlap = matches!(kind, Blocks::Sparse(_));
            let row = self.pool(b, x, ["attn_compressor", "attn.compressor"], (every, dim, overlap))?;
            let cache = b.cache(CacheSpec { v_in_k: true, every, ..CacheSpec::new(1, dim, dim) });
            blocks = Some((row, cache));
            if overlap {
                selected = Some(self.choose(b, x, latent, every)?);
            }
        }
        let q = b.norm("q_norm", q, plain_norm(dim, self.a.eps))?;
        let q = b.rope("q_rope", q, rope, dim)?;
        let k = self.norm(b, "kv_norm", k, ["attn_kv_a_norm", "attn.kv_norm"])?;
        let k = b.rope("k_rope", k, rope, dim)?;
        let window = Some(self.a.window);
        let cache = b.cache(CacheSpec { v_in_k: true, window, ..CacheSpec::new(1, dim, dim) });
        let op = AttentionOp {
            cache,
            n_heads,
            n_kv_heads: 1,
            head_dim: dim,
            v_dim: dim,
            scale: (dim as f32).powf(-0.5),
            softcap: None,
            window,
            chunk: None,
            sinks: Some(self.weight(b, ["attn_sinks.weight", "attn.attn_sink"], &[n_heads])?),
            rotate_on_read: None,
            blocks: blocks.map(|(_, cache)| cache),
            v_in_k: true,
            selected: selected.map(|_| self.a.index[2]),
            shared: false,
        };
        let inputs: Vec<ValueId> = [q, k].into_iter().chain(blocks.map(|(row, _)| row)).chain(selected).collect();
        let y = b.op("attention", Op::Attention(op), &inputs)?;
        // Keys are rotated, and they are the values.
        let back = b.rope_spec(self.a.back[usize::from(kind != Blocks::None)].clone());
        Ok(b.rope("turned_back", y, back, dim)?)
    }

    /// The keys of blocks of `every` tokens, each with the block's last token: pooled, normalised, and rotated by the
    /// first token's position.
    fn pool(
        &self,
        b: &mut GraphBuilder,
        x: ValueId,
        [gguf, hf]: [&str; 2],
        (every, width, overlap): (usize, usize, bool),
    ) -> Result<ValueId, Error> {
        let mut op = PoolOp { cache: CacheId(0), block: every, width, overlap, bias: WeightId(0) };
        let channels = op.channels();
        let name = |part: &str| format!("{}_{part}", gguf.rsplit_once('_').map_or(gguf, |(first, _)| first));
        let names = |part: &str, hf_part: &str| (format!("{gguf}_{part}"), format!("{hf}.{hf_part}"));
        let (kv, gate, ape, norm) =
            (names("kv", "wkv"), names("gate", "wgate"), names("ape", "ape"), names("norm", "norm"));
        let rows = self.linear(b, &name("block_kv"), x, [&kv.0, &kv.1], channels)?;
        let gates = self.linear(b, &name("block_gate"), x, [&gate.0, &gate.1], channels)?;
        op.bias = self.weight(b, [&format!("{}.weight", ape.0), &ape.1], &[every, channels])?;
        let y = b.pool(&name("blocks"), [rows, gates], op)?;
        let y = self.norm(b, &name("block_norm"), y, [&norm.0, &norm.1])?;
        let spec = &self.a.ropes[1];
        let spec = RopeSpec { first_dim: width - spec.rotary_dims, back: every - 1, ..spec.clone() };
        let rope = b.rope_spec(spec);
        Ok(b.rope(&name("block_rope"), y, rope, width)?)
    }

    /// The blocks that each token attends to, from the latent of its queries.
    fn choose(&self, b: &mut GraphBuilder, x: ValueId, latent: ValueId, every: usize) -> Result<ValueId, Error> {
        let [n_heads, dim, k] = self.a.index;
        let weights = self.linear(b, "index_weights", x, ["indexer.proj", "attn.indexer.weights_proj"], n_heads)?;
        let keys = self.pool(b, x, ["indexer_compressor", "attn.indexer.compressor"], (every, dim, true))?;
        let q = self.linear(b, "index_q", latent, ["indexer.attn_q_b", "attn.indexer.wq_b"], n_heads * dim)?;
        let spec = &self.a.ropes[1];
        let rope = b.rope_spec(RopeSpec { first_dim: dim - spec.rotary_dims, ..spec.clone() });
        let q = b.rope("index_q_rope", q, rope, dim)?;
        let cache = b.cache(CacheSpec { every, ..CacheSpec::new(1, dim, 0) });
        let op = SelectOp { cache, n_heads, head_dim: dim, k };
        Ok(b.op("index", Op::SelectKeys(op), &[q, keys, weights])?)
    }

    /// Projects the heads' result to `width` elements: each group of heads by a matrix of its own, then all by one.
    ///
    /// # Errors
    /// Missing tensors, and shapes that do not fit.
    pub fn output(&self, b: &mut GraphBuilder, y: ValueId, width: usize) -> Result<ValueId, Error> {
        let [heads, rank] = self.a.out;
        let input = b.graph().value(y).width / heads;
        let shape = [heads * rank, input];
        let weight = self.weight(b, ["attn_output_a.weight", "attn.wo_a.weight"], &shape)?;
        let op = HeadLinearOp { weight, heads, period: rank, first: 0, input, output: rank, transposed: false };
        let y = b.head_linear("o_a", y, op)?;
        self.linear(b, "o_b", y, ["attn_output_b", "attn.wo_b"], width)
    }
}
