//! Weights by name, from either kind of file.

use std::ops::Range;

use handmill_runtime::{
    format::{Checkpoint, Tensor},
    graph::{GraphBuilder, NormKind, NormOp, WeightId},
    quant::DType,
};

use crate::{
    Error,
    config::{Config, Key, key},
};

/// Finds a checkpoint's tensors for a family's graph: GGUF names as they are, safetensors names behind whatever
/// prefix the checkpoint's wrapper gives its text model.
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    gguf: bool,
    /// Before `layers.0…`, `embed_tokens…` and `norm…` in safetensors.
    prefix: &'static str,
    /// Added to norm scales: Gemma's safetensors store `weight - 1`.
    norm_offset: f32,
    norm_kind: NormKind,
    eps: f32,
}

/// Prefixes of a text model, and the one of its head beside each.
const PREFIXES: [(&str, &str); 4] = [
    ("model.", "lm_head.weight"),
    ("language_model.model.", "language_model.lm_head.weight"),
    ("model.language_model.", "lm_head.weight"),
    ("", "lm_head.weight"),
];

const VOCAB_SIZE: Key = key("vocab_size", "vocab_size");

impl<'a> Loader<'a> {
    /// A loader for `checkpoint` whose norms add `eps`.
    pub fn new(checkpoint: &'a Checkpoint, eps: f32) -> Result<Self, Error> {
        let gguf = matches!(checkpoint.kind(), handmill_runtime::format::Kind::Gguf(_));
        let mut prefix = "model.";
        for (p, _) in PREFIXES {
            if checkpoint.find(&format!("{p}embed_tokens.weight"))?.is_some() {
                prefix = p;
                break;
            }
        }
        Ok(Self { checkpoint, gguf, prefix, norm_offset: 0.0, norm_kind: NormKind::Rms, eps })
    }

    /// Norm scales of safetensors get `offset` added (GGUF files have it added already).
    pub fn with_norm_offset(mut self, offset: f32) -> Self {
        self.norm_offset = if self.gguf { 0.0 } else { offset };
        self
    }

    /// The residual stream's norms are layer norms, with biases where the file has them.
    pub fn with_layer_norms(mut self) -> Self {
        self.norm_kind = NormKind::Layer;
        self
    }

    /// Whether the names are GGUF's.
    pub fn is_gguf(&self) -> bool {
        self.gguf
    }

    fn name(&self, gguf: &str, hf: &str) -> String {
        if self.gguf { gguf.to_owned() } else { format!("{}{hf}", self.prefix) }
    }

    fn layer_name(&self, layer: usize, gguf: &str, hf: &str) -> String {
        if self.gguf { format!("blk.{layer}.{gguf}") } else { format!("{}layers.{layer}.{hf}", self.prefix) }
    }

    /// The tensor `name`, which must have that shape.
    fn required(&self, b: &mut GraphBuilder, name: &str, shape: &[usize]) -> Result<WeightId, Error> {
        let tensor = self.checkpoint.shaped(name, shape)?.ok_or_else(|| self.checkpoint.missing(name))?;
        self.check_shape(name, &tensor, shape)?;
        Ok(b.weight(name, tensor))
    }

    fn check_shape(&self, name: &str, tensor: &Tensor, expected: &[usize]) -> Result<(), Error> {
        if tensor.shape() == expected {
            return Ok(());
        }
        Err(Error::Shape {
            path: self.checkpoint.path().display().to_string(),
            tensor: name.to_owned(),
            found: tensor.shape().to_vec(),
            expected: expected.to_vec(),
        })
    }

    /// A weight of that shape outside the layers; `hf` without the prefix.
    pub fn global(&self, b: &mut GraphBuilder, gguf: &str, hf: &str, shape: &[usize]) -> Result<WeightId, Error> {
        self.required(b, &self.name(gguf, hf), shape)
    }

    /// A GGUF tensor that other files do not have.
    pub fn gguf_tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        if self.gguf { Ok(self.checkpoint.find(name)?) } else { Ok(None) }
    }

    /// A layer's weight of that shape, `[out, in]` for matrices.
    pub fn layer(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        shape: &[usize],
    ) -> Result<WeightId, Error> {
        self.required(b, &self.layer_name(layer, gguf, hf), shape)
    }

    /// A layer's weight, if the file has it. Where weights are made up, those that may be missing are.
    pub fn layer_if_present(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        shape: &[usize],
    ) -> Result<Option<WeightId>, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let Some(tensor) = self.checkpoint.find(&name)? else { return Ok(None) };
        self.check_shape(&name, &tensor, shape)?;
        Ok(Some(b.weight(&name, tensor)))
    }

    /// Rows `rows` of a layer's weight whose whole shape is `shape`; of a vector, elements. What a file holds fused
    /// (q‖k‖v, gate‖up) is so read as the parts that it is made of.
    pub fn layer_rows(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<WeightId, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let tensor = self.checkpoint.tensor(&name)?;
        self.view(b, &name, &tensor, shape, rows)
    }

    /// As [`Loader::layer_rows`], if the file has the weight.
    pub fn layer_rows_if_present(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Option<WeightId>, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let Some(tensor) = self.checkpoint.find(&name)? else { return Ok(None) };
        self.view(b, &name, &tensor, shape, rows).map(Some)
    }

    fn view(
        &self,
        b: &mut GraphBuilder,
        name: &str,
        tensor: &Tensor,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<WeightId, Error> {
        self.check_shape(name, tensor, shape)?;
        let part = format!("{name}[{}..{}]", rows.start, rows.end);
        let view = tensor.rows_view(rows).ok_or_else(|| Error::Shape {
            path: self.checkpoint.path().display().to_string(),
            tensor: part.clone(),
            found: tensor.shape().to_vec(),
            expected: shape.to_vec(),
        })?;
        Ok(b.weight(&part, view))
    }

    /// Whether the file has a layer's weight.
    pub fn has(&self, layer: usize, gguf: &str, hf: &str) -> Result<bool, Error> {
        Ok(self.checkpoint.find(&self.layer_name(layer, gguf, hf))?.is_some())
    }

    /// The output head and its bias, if any: its own weight, or the embedding table where the file has none.
    pub fn head(&self, b: &mut GraphBuilder, embedding: WeightId) -> Result<(WeightId, Option<WeightId>), Error> {
        let hf = PREFIXES.iter().find(|(p, _)| *p == self.prefix).map_or("lm_head.weight", |(_, h)| h);
        let name = if self.gguf { "output.weight" } else { hf };
        let shape = b.graph().weight(embedding).shape().to_vec();
        let Some(weight) = self.checkpoint.shaped(name, &shape)? else { return Ok((embedding, None)) };
        let rows = weight.rows();
        let weight = b.weight(name, weight);
        let name = name.replace(".weight", ".bias");
        let Some(bias) = self.checkpoint.find(&name)? else { return Ok((weight, None)) };
        self.check_shape(&name, &bias, &[rows])?;
        Ok((weight, Some(b.weight(&name, bias))))
    }

    /// An RMS norm over `group` elements with this scale.
    pub fn rms(&self, weight: WeightId, group: usize) -> NormOp {
        NormOp {
            kind: NormKind::Rms,
            weight: Some(weight),
            weight_offset: self.norm_offset,
            bias: None,
            eps: self.eps,
            group,
        }
    }

    /// A layer's RMS norm over `group` elements.
    pub fn layer_rms(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        group: usize,
    ) -> Result<NormOp, Error> {
        Ok(self.rms(self.layer(b, layer, gguf, hf, &[group])?, group))
    }

    /// A layer's norm of the family's kind over `group` elements; names without `.weight`.
    pub fn layer_norm(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        group: usize,
    ) -> Result<NormOp, Error> {
        let weight = self.layer(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), &[group])?;
        let bias = match self.norm_kind {
            NormKind::Rms => None,
            NormKind::Layer => {
                self.layer_if_present(b, layer, &format!("{gguf}.bias"), &format!("{hf}.bias"), &[group])?
            }
        };
        Ok(NormOp { kind: self.norm_kind, bias, ..self.rms(weight, group) })
    }

    /// The norm before the head, of the family's kind; `hf` without `.weight`.
    pub fn final_norm(&self, b: &mut GraphBuilder, hf: &str, group: usize) -> Result<NormOp, Error> {
        let weight = self.global(b, "output_norm.weight", &format!("{hf}.weight"), &[group])?;
        let name = self.name("output_norm.bias", &format!("{hf}.bias"));
        let bias = match (self.norm_kind, self.checkpoint.find(&name)?) {
            (NormKind::Layer, Some(tensor)) => {
                self.check_shape(&name, &tensor, &[group])?;
                Some(b.weight(&name, tensor))
            }
            _ => None,
        };
        Ok(NormOp { kind: self.norm_kind, bias, ..self.rms(weight, group) })
    }

    /// The format of the embedding table.
    pub fn embedding_dtype(&self) -> Result<DType, Error> {
        Ok(self.checkpoint.tensor(&self.name("token_embd.weight", "embed_tokens.weight"))?.dtype())
    }

    /// The embedding table, `[vocab, width]`. Its rows may be more or fewer than the configuration says.
    pub fn embedding(&self, b: &mut GraphBuilder, width: usize) -> Result<WeightId, Error> {
        let name = self.name("token_embd.weight", "embed_tokens.weight");
        let rows = match self.checkpoint.find(&name)? {
            Some(tensor) => tensor.rows(),
            None if self.checkpoint.is_synthetic() => Config::new(self.checkpoint)?.require_usize(VOCAB_SIZE)?,
            None => return Err(self.checkpoint.missing(&name).into()),
        };
        self.required(b, &name, &[rows, width])
    }
}
