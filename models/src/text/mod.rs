//! Text in and out: tokenizers, streaming decode, stop strings.

mod bpe;
mod byte_level;
mod error;
mod gguf;
mod hf;
mod merge;
mod pre_split;
mod sentencepiece;
mod special;
mod spm;
mod stop;
mod stream;
mod tokenizer;
mod vocab;

pub use error::{Result, TextError};
pub use stop::StopStrings;
pub use stream::StreamDecoder;
pub use tokenizer::Tokenizer;
pub use vocab::TokenKind;
