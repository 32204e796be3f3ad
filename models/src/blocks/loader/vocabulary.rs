//! The two matrices with a row for each token: the embedding table and the output head. A tied checkpoint has one matrix
//! for both, under either name.

use handmill_runtime::{
    format::{FormatError, Tensor},
    graph::{GraphBuilder, WeightId},
    quant::DType,
};

use super::{Loader, VOCAB_SIZE};
use crate::{
    Error,
    config::{Config, TIED},
};

/// Other names of the head: tools that unpack a wrapper leave it under either.
const OTHER_HEADS: [&str; 4] =
    ["lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight", "model.language_model.lm_head.weight"];

impl Loader<'_> {
    /// The embedding table, `[vocab, width]`, with a row for each token that the configuration counts.
    ///
    /// # Errors
    /// No table, or a shape that contradicts the configuration.
    pub fn embedding(&self, b: &mut GraphBuilder, width: usize) -> Result<WeightId, Error> {
        let (name, tensor) = match self.find_embedding()? {
            Some(found) => found,
            None if self.checkpoint.is_synthetic() => {
                let rows = Config::new(self.checkpoint)?.require_usize(VOCAB_SIZE)?;
                (self.embedding_name(), self.tensor(&self.embedding_name(), &[rows, width])?)
            }
            None => return Err(self.checkpoint.missing(&self.embedding_name()).into()),
        };
        self.check_shape(&name, &tensor, &[tensor.rows(), width])?;
        self.check_vocabulary(&name, &tensor)?;
        Ok(b.weight(&name, tensor))
    }

    /// The embedding table's format in the file, if there is a file.
    pub fn embedding_dtype(&self) -> Result<Option<DType>, Error> {
        Ok(self.find_embedding()?.map(|(_, tensor)| tensor.dtype()))
    }

    /// The output head and its bias, if any: its own weight, or the embedding table where they are `tied`. A GGUF file
    /// without a head has them tied.
    ///
    /// # Errors
    /// A missing head that is not tied, and shapes that do not fit.
    pub fn head(
        &self,
        b: &mut GraphBuilder,
        embedding: WeightId,
        tied: bool,
    ) -> Result<(WeightId, Option<WeightId>), Error> {
        let shape = b.graph().weight(embedding).shape().to_vec();
        let own = match tied && !self.gguf {
            true => None,
            false => self.find_head(&shape)?,
        };
        let (name, weight) = match own {
            Some((name, _))
                if name == b.graph().weight_name(embedding) && !self.gguf && !tied && !self.wrapper_ties()? =>
            {
                return Err(self.without(&self.embedding_name(), "embedding table"));
            }
            Some((name, tensor)) => {
                self.check_shape(&name, &tensor, &shape)?;
                let weight = b.weight(&name, tensor);
                (name, weight)
            }
            None if tied || self.gguf || self.wrapper_ties()? => (self.head_names()[0].to_owned(), embedding),
            None => return Err(self.without(self.head, "head")),
        };
        let name = name.replace(".weight", ".bias");
        let Some(bias) = self.checkpoint.find(&name)? else { return Ok((weight, None)) };
        self.check_shape(&name, &bias, &shape[..1])?;
        Ok((weight, Some(b.weight(&name, bias))))
    }

    fn embedding_name(&self) -> String {
        self.name("token_embd.weight", self.embedding)
    }

    /// The possible names of the head, most likely first.
    fn head_names(&self) -> Vec<&'static str> {
        if self.gguf { vec!["output.weight"] } else { [self.head].into_iter().chain(OTHER_HEADS).collect() }
    }

    /// The embedding table by its own name or, unless the configuration says that they differ, by the head's.
    fn find_embedding(&self) -> Result<Option<(String, Tensor)>, Error> {
        let name = self.embedding_name();
        if let Some(tensor) = self.checkpoint.find(&name)? {
            return Ok(Some((name, tensor)));
        }
        // An index may place the table in a missing part.
        let promised = !matches!(self.checkpoint.missing(&name), FormatError::MissingTensor { .. });
        let may_be_head = !promised && (self.gguf || Config::new(self.checkpoint)?.tied(true)?);
        if may_be_head { self.find_file_head() } else { Ok(None) }
    }

    /// The head; where weights are made up, one of `shape`.
    fn find_head(&self, shape: &[usize]) -> Result<Option<(String, Tensor)>, Error> {
        if self.checkpoint.is_synthetic() {
            let tensor = self.checkpoint.shaped(self.head, &[shape])?;
            return Ok(tensor.map(|tensor| (self.head.to_owned(), tensor)));
        }
        self.find_file_head()
    }

    fn find_file_head(&self) -> Result<Option<(String, Tensor)>, Error> {
        for name in self.head_names() {
            if let Some(tensor) = self.checkpoint.find(name)? {
                return Ok(Some((name.to_owned(), tensor)));
            }
        }
        Ok(None)
    }

    /// Refuses a table whose number of rows differs from the file's number of tokens. A GGUF file has that number
    /// twice.
    fn check_vocabulary(&self, name: &str, table: &Tensor) -> Result<(), Error> {
        let c = Config::new(self.checkpoint)?;
        let Some(said) = c.own_vocab_size()? else { return Ok(()) };
        let tokens = match c.gguf() {
            Some(gguf) => gguf.get_array("tokenizer.ggml.tokens")?.map(|tokens| tokens.len()),
            None => None,
        };
        if said == table.rows() || tokens == Some(table.rows()) {
            return Ok(());
        }
        Err(c.error(VOCAB_SIZE, format!("is {said}, and tensor `{name}` has the shape {:?}", table.shape())))
    }

    fn wrapper_ties(&self) -> Result<bool, Error> {
        Ok(Config::new(self.checkpoint)?.tied_by_wrapper())
    }

    /// The error for a checkpoint that is not tied and has one matrix.
    fn without(&self, name: &str, what: &str) -> Error {
        match self.checkpoint.missing(name) {
            FormatError::MissingTensor { path, tensor } => Error::Config {
                path: path.display().to_string(),
                key: TIED.hf.into(),
                what: format!("does not tie the head to the embedding table, and the file has no {what} `{tensor}`"),
            },
            other => other.into(),
        }
    }
}
