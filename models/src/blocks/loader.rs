//! Weights by name, from either kind of file.

mod vocabulary;

use std::ops::Range;

use handmill_runtime::{
    format::{Checkpoint, Kind, ScaleType, Scales, Tensor},
    graph::{GraphBuilder, NormKind, NormOp, WeightId},
    quant::DType,
};

use super::Experts;
use crate::{
    Error,
    config::{Config, Key, key},
};

/// Finds a checkpoint's tensors for a family's graph: by GGUF's names, or by safetensors names behind the prefix that
/// the checkpoint's wrapper gives its text model.
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    gguf: bool,
    /// Before `layers.0…`, `embed_tokens…` and `norm…` in safetensors.
    prefix: &'static str,
    /// The embedding table's name in safetensors, behind the prefix.
    embedding: &'static str,
    /// The head's name in safetensors.
    head: &'static str,
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

/// Prefix of the text model's tensors in safetensors, as in `{prefix}layers.0…`.
pub fn text_prefix(checkpoint: &Checkpoint) -> &'static str {
    let names: Vec<&str> = checkpoint.tensors().map(|t| t.name).collect();
    let text = |name: &str| name.starts_with("embed_tokens.") || name.starts_with("layers.");
    let has = |prefix: &str| names.iter().any(|name| name.strip_prefix(prefix).is_some_and(text));
    PREFIXES.iter().map(|(prefix, _)| *prefix).find(|prefix| has(prefix)).unwrap_or("model.")
}

impl<'a> Loader<'a> {
    /// A loader for `checkpoint` whose norms add `eps`.
    pub fn new(checkpoint: &'a Checkpoint, eps: f32) -> Self {
        let prefix = text_prefix(checkpoint);
        Self {
            checkpoint,
            gguf: matches!(checkpoint.kind(), Kind::Gguf(_)),
            prefix,
            embedding: "embed_tokens.weight",
            head: PREFIXES.iter().find(|(p, _)| *p == prefix).map_or("lm_head.weight", |(_, head)| head),
            norm_offset: 0.0,
            norm_kind: NormKind::Rms,
            eps,
        }
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

    /// Names in safetensors stand without a prefix; these are the embedding table's and the head's.
    pub fn bare(self, embedding: &'static str, head: &'static str) -> Self {
        Self { prefix: "", embedding, head, ..self }
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
        let tensor = self.tensor(name, shape)?;
        self.check_shape(name, &tensor, shape)?;
        Ok(b.weight(name, tensor))
    }

    /// The tensor `name`; where weights are made up, a tensor of that shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(self.checkpoint.shaped(name, &[shape])?.ok_or_else(|| self.checkpoint.missing(name))?)
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

    /// A tensor that only GGUF files have.
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

    /// A layer's weight, if the file has it. Where weights are made up, optional weights are missing.
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

    /// Rows `rows` of a layer's weight whose whole shape is `shape`; of a vector, elements. A fused tensor (q‖k‖v,
    /// gate‖up) is read as its parts this way.
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
        let tensor = self.tensor(&name, shape)?;
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

    /// The matrices of `n` experts out of one tensor `[n, rows, len]`, of each the rows `part`.
    pub fn stacked(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        [n, rows, len]: [usize; 3],
        part: Range<usize>,
    ) -> Result<Vec<WeightId>, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let shape = [n, rows, len];
        let tensor = self.tensor(&name, &shape)?;
        (0..n).map(|e| self.view(b, &name, &tensor, &shape, e * rows + part.start..e * rows + part.end)).collect()
    }

    /// The gates (0), ups (1) or downs (2) of `n` experts, `[rows, len]` each.
    pub fn experts(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        experts: &Experts<'_>,
        part: usize,
        [n, rows, len]: [usize; 3],
    ) -> Result<Vec<WeightId>, Error> {
        if self.gguf {
            const BOTH: &str = "ffn_gate_up_exps.weight";
            if part < 2 && self.has(layer, BOTH, "")? {
                return self.stacked(b, layer, BOTH, "", [n, 2 * rows, len], part * rows..(part + 1) * rows);
            }
            let name = ["gate", "up", "down"][part];
            return self.stacked(b, layer, &format!("ffn_{name}_exps.weight"), "", [n, rows, len], 0..rows);
        }
        match (experts, part) {
            (Experts::Each(prefix, names), _) => (0..n)
                .map(|e| self.layer(b, layer, "", &format!("{prefix}.{e}.{}.weight", names[part]), &[rows, len]))
                .collect(),
            (Experts::Fused([_, down]), 2) => self.stacked(b, layer, "", down, [n, rows, len], 0..rows),
            (Experts::Fused([gate_up, _]), _) => {
                self.stacked(b, layer, "", gate_up, [n, 2 * rows, len], part * rows..(part + 1) * rows)
            }
            // Only where the file's rows are outputs.
            (Experts::InputMajor([gate_up, _]), 0 | 1) => {
                self.stacked(b, layer, "", gate_up, [n, 2 * rows, len], part * rows..(part + 1) * rows)
            }
            (Experts::InputMajor([_, down]), _) => self.stacked(b, layer, "", down, [n, rows, len], 0..rows),
            // Gate and up alternate in these tensors.
            (Experts::Interleaved(prefix), _) => {
                Err(self.checkpoint.missing(&self.layer_name(layer, "", prefix)).into())
            }
        }
    }

    /// Whether the tensor of `n` experts has a row for each of `input` inputs, as safetensors of families with
    /// [`Experts::InputMajor`] and [`Experts::Interleaved`] have. GGUF files, and tensors of the other shape, have a
    /// row for each of `output` outputs.
    pub fn rows_are_inputs(&self, layer: usize, hf: &str, [n, input, output]: [usize; 3]) -> Result<bool, Error> {
        if self.gguf {
            return Ok(false);
        }
        let (name, own, turned) = (self.layer_name(layer, "", hf), [n, input, output], [n, output, input]);
        let tensor = self.checkpoint.shaped(&name, &[&own, &turned])?.ok_or_else(|| self.checkpoint.missing(&name))?;
        Ok(tensor.shape() != turned || own == turned)
    }

    /// The matrices of `n` experts in MXFP4 with their scales in a tensor of its own, if there is `{hf}_blocks`.
    pub fn mxfp4(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        hf: &str,
        [n, rows, len]: [usize; 3],
    ) -> Result<Option<Vec<WeightId>>, Error> {
        let name = self.layer_name(layer, "", hf);
        let (blocks_name, scales_name) = (format!("{name}_blocks"), format!("{name}_scales"));
        let expected = [n, rows, len / 32, 16];
        let bytes = |name: &str, shape: &[usize]| self.checkpoint.shaped_bytes(name, "u8", shape);
        let Some((shape, blocks)) = bytes(&blocks_name, &expected)? else { return Ok(None) };
        let (scale_shape, scales) =
            bytes(&scales_name, &expected[..3])?.ok_or_else(|| self.checkpoint.missing(&scales_name))?;
        let fail = |tensor: &str, found: &[usize], expected: &[usize]| Error::Shape {
            path: self.checkpoint.path().display().to_string(),
            tensor: tensor.to_owned(),
            found: found.to_vec(),
            expected: expected.to_vec(),
        };
        if shape != expected || !len.is_multiple_of(32) {
            return Err(fail(&blocks_name, &shape, &expected));
        }
        if scale_shape != expected[..3] {
            return Err(fail(&scales_name, &scale_shape, &expected[..3]));
        }
        let scales = Scales { dtype: ScaleType::E8M0, block: [1, 32], first_row: 0, bytes: scales };
        let tensor = Tensor::new(DType::MXFP4_SPLIT, vec![n, rows, len], blocks).and_then(|t| t.with_scales(scales));
        let tensor = tensor.ok_or_else(|| fail(&blocks_name, &shape, &expected))?;
        let view = |e| self.view(b, &name, &tensor, &[n, rows, len], e * rows..(e + 1) * rows);
        (0..n).map(view).collect::<Result<_, _>>().map(Some)
    }

    /// A layer's table of whole numbers below `limit` as one vector, `shape` elements of f32.
    pub fn layer_integers(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        shape: [usize; 2],
        limit: usize,
    ) -> Result<WeightId, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let fail = |found: Vec<usize>, expected: Vec<usize>| Error::Shape {
            path: self.checkpoint.path().display().to_string(),
            tensor: name.clone(),
            found,
            expected,
        };
        let values: Vec<i64> = match self.checkpoint.integers(&name)? {
            Some((found, values)) if found == shape => values,
            Some((found, _)) => return Err(fail(found, shape.to_vec())),
            // Neighbours in a row must differ, because an expert is chosen once.
            None if self.checkpoint.is_synthetic() => {
                (0..shape[0] * shape[1]).map(|i| ((i / shape[1] + i % shape[1]) % limit) as i64).collect()
            }
            None => return Err(self.checkpoint.missing(&name).into()),
        };
        let path = self.checkpoint.path().display().to_string();
        if let Some(bad) = values.iter().find(|v| !(0..limit as i64).contains(*v)) {
            let what = format!("holds {bad}, and there are numbers below {limit} alone");
            return Err(Error::Config { path, key: name, what });
        }
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        let flat = Tensor::from_f32(vec![values.len()], &values).ok_or_else(|| fail(vec![], shape.to_vec()))?;
        Ok(b.weight(&name, flat))
    }

    /// A layer's weight of one row, `[1, len]`, which GGUF files have as a vector.
    pub fn row(&self, b: &mut GraphBuilder, layer: usize, gguf: &str, hf: &str, len: usize) -> Result<WeightId, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let tensor = self.tensor(&name, &[1, len])?;
        let tensor = match tensor.shape() {
            [_] => Tensor::new(tensor.dtype(), vec![1, tensor.row_len()], tensor.shared_bytes().clone()),
            _ => Some(tensor),
        };
        let tensor = tensor.ok_or_else(|| self.checkpoint.missing(&name))?;
        self.check_shape(&name, &tensor, &[1, len])?;
        Ok(b.weight(&name, tensor))
    }

    /// A table of rows of `width` outside the layers; `config.json` may give the number of rows under `rows`; `hf`
    /// without the prefix.
    pub fn table(
        &self,
        b: &mut GraphBuilder,
        [gguf, hf]: [&str; 2],
        width: usize,
        rows: Key,
    ) -> Result<WeightId, Error> {
        let (name, c) = (self.name(gguf, hf), Config::new(self.checkpoint)?);
        let said = c.usize(rows)?;
        let found = match self.checkpoint.find(&name)? {
            Some(tensor) => tensor.rows(),
            None if self.checkpoint.is_synthetic() => said.map_or_else(|| c.require_usize(VOCAB_SIZE), Ok)?,
            None => return Err(self.checkpoint.missing(&name).into()),
        };
        if let Some(said) = said.filter(|said| *said != found) {
            return Err(c.error(rows, format!("is {said}, and tensor `{name}` has {found} rows")));
        }
        self.required(b, &name, &[found, width])
    }

    /// A matrix outside the layers: in safetensors a tensor of its own, in GGUF part `index` of a stack of `shape`.
    pub fn global_part(
        &self,
        b: &mut GraphBuilder,
        gguf: &str,
        hf: &str,
        shape: [usize; 3],
        index: usize,
    ) -> Result<WeightId, Error> {
        let [_, rows, len] = shape;
        if !self.gguf {
            return self.global(b, "", hf, &[rows, len]);
        }
        let tensor = self.checkpoint.tensor(gguf)?;
        self.view(b, gguf, &tensor, &shape, index * rows..(index + 1) * rows)
    }

    /// Rows of a layer's weight in GGUF, for widths that no key gives.
    pub fn layer_rows_of(&self, layer: usize, gguf: &str) -> Result<usize, Error> {
        Ok(self.checkpoint.tensor(&self.layer_name(layer, gguf, ""))?.rows())
    }

    /// A layer's single number.
    pub fn layer_scalar(&self, layer: usize, gguf: &str, hf: &str) -> Result<f32, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let tensor = self.tensor(&name, &[1])?;
        self.check_shape(&name, &tensor, &[1])?;
        let mut value = [0.0];
        tensor.decode_row(0, &mut value);
        Ok(value[0])
    }

    /// A layer's depthwise convolution `[channels, taps]` (safetensors have a dimension of 1 between) as one vector.
    pub fn layer_taps(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        gguf: &str,
        hf: &str,
        [channels, taps]: [usize; 2],
    ) -> Result<WeightId, Error> {
        let name = self.layer_name(layer, gguf, hf);
        let shape = if self.gguf { vec![channels, taps] } else { vec![channels, 1, taps] };
        let tensor = self.tensor(&name, &shape)?;
        self.check_shape(&name, &tensor, &shape)?;
        let flat = tensor.flat().ok_or_else(|| Error::Shape {
            path: self.checkpoint.path().display().to_string(),
            tensor: name.clone(),
            found: tensor.shape().to_vec(),
            expected: vec![channels * taps],
        })?;
        Ok(b.weight(&name, flat))
    }

    /// Whether the file has a layer's weight.
    pub fn has(&self, layer: usize, gguf: &str, hf: &str) -> Result<bool, Error> {
        Ok(self.checkpoint.find(&self.layer_name(layer, gguf, hf))?.is_some())
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
            NormKind::Rms | NormKind::None => None,
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
}
