//! Choice of tokens on the device, so that the next step can begin before the host has seen them.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    params::{NONE, Params, reduction, workgroup},
};
use crate::{
    gpu::{Access, Caps, Kernel},
    graph::Rows,
};

/// Logits of a chunk. Smaller chunks are too many to save work; larger ones rule out less of the row.
const CHUNK: u32 = 1024;

/// The rule by which the token of one output row is chosen: the host sampler's, without penalties and biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Keep the likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest tokens that together reach this probability, out of those that `top_k` left.
    pub top_p: f32,
    /// Keep tokens whose probability is at least this share of the likeliest one's.
    pub min_p: f32,
    /// Decides the draw, together with the row's position.
    pub seed: u64,
    /// The row of the `tokens` buffer that gets the token.
    pub token_row: Option<u32>,
}

impl Choice {
    /// The likeliest token.
    pub fn greedy(token_row: Option<u32>) -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, token_row }
    }

    /// Its record in `samplers`.
    pub fn words(&self) -> [u32; 8] {
        [
            self.temperature.to_bits(),
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.top_k,
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.token_row.unwrap_or(NONE),
            0,
        ]
    }
}

/// The two dispatches that choose a token for every output row.
#[derive(Clone, Debug)]
pub struct SampleDispatches {
    /// The first dispatch. Binding 4: `chunks`.
    pub chunks: Dispatch,
    /// The second. Bindings 4 to 7: `chunks`, `samplers` (a [`Choice`] an output row), `tokens`, `chosen`.
    pub choose: Dispatch,
}

/// Words of the `chunks` buffer for `rows` output rows.
pub fn chunks_len(vocab: usize, rows: usize) -> usize {
    4 * vocab.div_ceil(CHUNK as usize) * rows
}

/// Chooses from rows of `vocab` logits.
pub fn dispatches(caps: &Caps, logits: Place, vocab: usize) -> SampleDispatches {
    let chunks = (vocab as u32).div_ceil(CHUNK);
    let params = || Params::default().place(&logits).u(&[vocab as u32, chunks]).finish();
    let invocations = workgroup(caps, 256, if caps.software { 32 } else { 256 });
    let dispatch = |name, more: &[Access], grid| {
        let mut bindings = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read];
        bindings.extend(more);
        let defines: Defines = reduction(caps, invocations).with("CHUNK", CHUNK);
        let kernel = Kernel { name, defines, constants: Vec::new(), bindings };
        Dispatch { kernel, params: params(), grid, rows: Rows::Output }
    };
    let by_chunk = [Dim::Fixed(chunks), Dim::RowsOver(1), Dim::Fixed(1)];
    let by_row = [Dim::RowsOver(1), Dim::Fixed(1), Dim::Fixed(1)];
    SampleDispatches {
        chunks: dispatch("logit_chunks", &[Access::ReadWrite], by_chunk),
        choose: dispatch("sample", &[Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite], by_row),
    }
}
