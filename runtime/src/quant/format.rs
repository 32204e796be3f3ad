//! The declaration of a format: all that tables, kernels and tests need to know of it beside its bits. Each format's
//! file has one; `docs/adding-a-format.md` lists the other files of a format.

use super::{Block, DType, Encode};

/// A format, as its file declares it.
#[derive(Debug)]
pub struct Format {
    /// The name that files and people use (`q4_k`, `f16`, …), in lower case; also that of its WGSL file.
    pub name: &'static str,
    /// Consecutive elements of a row that a block holds; 1 for floats.
    pub block_len: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// A power of two, 4 at most: where the first block's address is a multiple of it, every block's is. WGSL reads
    /// words by it.
    pub alignment: usize,
    /// The integers that elements are made of; `None` for floats, each of which stands by itself.
    pub quants: Option<Quants>,
    /// The form in which mat-vec takes activations.
    pub acts: ActForm,
    /// Whether elements may lie beyond an f16's range or precision, so that GPUs must not stage them as f16.
    pub beyond_f16: bool,
    /// Whether the scales lie in a tensor of their own. Without that tensor they count as 1.
    pub apart: bool,
    /// A constant table that the decode reads, four bytes a word: its name in WGSL defines, its words.
    pub table: Option<(&'static str, &'static [u32])>,
    /// The scalar decode of whole blocks.
    pub decode: Decoder,
    /// The encoder, for formats that this runtime can write.
    pub encode: Option<Encoder>,
    /// The format that llama.cpp's quantiser takes for rows that blocks of 256 elements do not divide.
    pub smaller: Option<DType>,
    /// The numbers of a block that scale its elements. Tests fill blocks with random bits, except these.
    pub scales: &'static [Scale],
}

/// Elements made of integers: x = scale · (q − zero) + minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quants {
    /// Bits of an unpacked quant: the fewest that hold every q.
    pub bits: u32,
    /// Whether q has a sign. Without one it is 0 or more.
    pub signed: bool,
    /// The q that stands for zero: 0 or a power of two; 0 where quants are signed.
    pub zero: u8,
    /// Elements that share scale and minimum: 16 or 32.
    pub group: usize,
    /// Whether groups have minima.
    pub minima: bool,
}

/// The form in which a kernel reads activations. The CPU's kernels document the layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActForm {
    /// Plain floats, for mat-vec.
    F32,
    /// Floats for mat-mat: the chains of a row's sum one after the other, element i as number i / 16 of chain i mod 16.
    F32Chains,
    /// int8 for mat-vec over 32-element blocks: groups of as many blocks as a vector has 16-byte pieces, so that one
    /// load matches one load of packed quants. With V bytes a vector and P = V / 16 blocks a group:
    ///
    /// ```text
    /// [first 16 q of blocks 0..P][last 16 q of blocks 0..P][scale, each 4 times][Σq, an i32, each 4 times]   4 V bytes
    /// ```
    Q8Groups,
    /// As [`ActForm::Q8Groups`], but with the even elements of a block for the first 16 and the odd ones for the last.
    Q8Pairs,
    /// int8 in natural order, in chunks of 256 elements with their scales and sums.
    Q8Chunks,
}

/// A number of a block that scales its elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// An f16 at byte `at`. Up to `size` it gives elements of about the size of a weight.
    Half {
        /// Its first byte.
        at: usize,
        /// Its plausible magnitude.
        size: f32,
    },
    /// An exponent of 2, biased by 127, at byte `at`; plausible weights have `least` to `least + 7`.
    Exponent {
        /// Its byte.
        at: usize,
        /// Its least plausible value.
        least: u8,
    },
}

/// Decodes whole blocks, one value an element; `None` where bytes and elements do not make the same number of blocks.
pub type Decoder = fn(&[u8], &mut [f32]) -> Option<()>;

/// Turns floats into blocks.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// Appends whole blocks; `None` where elements do not make whole blocks.
    pub row: fn(&[f32], &mut Vec<u8>) -> Option<()>,
    /// The largest distance of a decoded element from the encoded one, as a share of the range of its block.
    pub error: f32,
}

impl Format {
    /// The decoder of blocks `B`.
    pub(super) const fn decoder<B: Block<N>, const N: usize>() -> Decoder {
        |bytes, out| {
            let blocks: &[B] = bytemuck::try_cast_slice(bytes).ok()?;
            let (out, rest) = out.as_chunks_mut::<N>();
            if blocks.len() != out.len() || !rest.is_empty() {
                return None;
            }
            for (block, out) in blocks.iter().zip(out) {
                *out = block.decode();
            }
            Some(())
        }
    }

    /// The encoder of blocks `B`, with its [`Encoder::error`].
    pub(super) const fn encoder<B: Encode<N>, const N: usize>(error: f32) -> Option<Encoder> {
        let row: fn(&[f32], &mut Vec<u8>) -> Option<()> = |x, out| {
            let (x, rest) = x.as_chunks::<N>();
            if !rest.is_empty() {
                return None;
            }
            for x in x {
                out.extend_from_slice(bytemuck::bytes_of(&B::encode(x)));
            }
            Some(())
        };
        Some(Encoder { row, error })
    }

    /// Whether the declaration contradicts itself.
    pub(super) const fn is_consistent(&self) -> bool {
        let quants = match self.quants {
            None => self.block_len == 1 && matches!(self.acts, ActForm::F32),
            Some(q) => {
                let centre = if q.signed { q.zero == 0 } else { q.zero == 0 || q.zero.is_power_of_two() };
                let groups = (q.group == 16 || q.group == 32) && self.block_len.is_multiple_of(q.group);
                // Some instruction sets multiply signed bytes only: quants without a sign must be below 128.
                let bits = q.bits <= if q.signed { 8 } else { 7 };
                centre && groups && bits && !matches!(self.acts, ActForm::F32)
            }
        };
        quants && self.alignment <= 4 && self.block_bytes.is_multiple_of(self.alignment)
    }
}
