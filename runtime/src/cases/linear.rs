//! The cases of products with weights, and of rows that are looked up in a table: every format, at shapes that fit no tile
//! and at a small model's.

use crate::quant::{
    DType,
    testing::{Random, random_weights},
};

/// `tokens` rows of `k` activations times `rows` rows of `k` weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearCase {
    /// Format of the weights.
    pub dtype: DType,
    /// Rows of weights, so elements of a result.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
    /// Rows of activations.
    pub tokens: usize,
    /// It spans tiles of a GPU's kernel for prompts.
    pub tiles: bool,
}

/// Rows of weights and tokens that span tiles.
const TILES: [(usize, usize); 8] = [(130, 1), (7, 2), (33, 3), (1, 5), (130, 8), (33, 9), (70, 33), (130, 70)];

/// The cases of `dtypes` that a reference in f64 can follow.
pub fn linears(dtypes: impl IntoIterator<Item = DType>) -> Vec<LinearCase> {
    let mut cases = Vec::new();
    for dtype in dtypes {
        let case = |rows, k, tokens, tiles| LinearCase { dtype, rows, k, tokens, tiles };
        let (lengths, of_tiles): (&[usize], &[usize]) = match dtype.block_len() {
            1 => (&[1, 100, 3, 16, 63, 320], &[35, 576]),
            32 => (&[32, 96, 64, 160, 576], &[32, 96, 576]),
            _ => (&[256, 768], &[256, 768]),
        };
        for &k in lengths {
            for rows in [1, 2, 3, 4, 5, 6, 7, 17, 67] {
                for tokens in [1, 2, 3, 4, 5, 16, 33] {
                    // The corner of many rows and many tokens once, with a middling length.
                    if rows * tokens < 200 || k == lengths[1] {
                        cases.push(case(rows, k, tokens, false));
                    }
                }
            }
        }
        for &k in of_tiles {
            cases.extend(TILES.map(|(rows, tokens)| case(rows, k, tokens, true)));
        }
    }
    cases
}

/// Bytes of weights that benches of single tokens read: more than the second-level cache holds.
const STREAMED: usize = 4 << 20;

/// The cases of a model of 135 M parameters: few tokens over many rows, and a prompt's; too large for
/// references in f64.
pub fn model_linears() -> Vec<LinearCase> {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        let whole = |k: usize| k.next_multiple_of(dtype.block_len());
        let case = |rows, k, tokens| LinearCase { dtype, rows, k, tokens, tiles: false };
        let row_bytes = dtype.row_bytes(whole(576)).unwrap_or(1);
        cases.extend([1, 4].map(|tokens| case(STREAMED / row_bytes, whole(576), tokens)));
        cases.push(case(1536, whole(576), 64));
        cases.push(case(576, whole(1536), 256));
    }
    cases
}

impl LinearCase {
    /// Format and shape.
    pub fn name(&self) -> String {
        format!("{} {}x{}x{}", self.dtype, self.rows, self.k, self.tokens)
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> usize {
        2 * self.rows * self.k * self.tokens
    }

    /// A generator of the case's own.
    fn random(&self) -> Random {
        Random::new(0x9e37_79b9_7f4a_7c15 ^ (self.rows * 1_000_003 + self.k * 1009 + self.tokens) as u64)
    }

    /// Its weights, row by row.
    pub fn weights(&self) -> Vec<u8> {
        random_weights(&mut self.random(), self.dtype, self.rows * self.k)
    }

    /// Its activations, a row a token.
    pub fn activations(&self) -> Vec<Vec<f32>> {
        let mut random = self.random();
        random.bits();
        (0..self.tokens).map(|_| (0..self.k).map(|_| random.float()).collect()).collect()
    }
}

/// Rows of a table, looked up by id. Their decode is the format's scalar one; on GPUs a kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedCase {
    /// Format of the table.
    pub dtype: DType,
    /// Rows of the table.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// It has a model's size.
    pub speed: bool,
}

/// The cases of every format.
pub fn embeds() -> Vec<EmbedCase> {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        let widths = [96, 256, 576usize.next_multiple_of(dtype.block_len())];
        for (i, width) in widths.into_iter().enumerate().filter(|(_, width)| width.is_multiple_of(dtype.block_len())) {
            cases.push(EmbedCase { dtype, rows: 300, width, speed: i == 2 });
        }
    }
    cases
}

impl EmbedCase {
    /// The table.
    pub fn table(&self) -> Vec<u8> {
        random_weights(&mut Random::new(77), self.dtype, self.rows * self.width)
    }
}
