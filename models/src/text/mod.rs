//! Text in and out: tokenizers, streaming decode, stop strings.

mod added;
mod bpe;
mod byte_level;
mod decode;
mod ends;
mod error;
mod file;
mod folder;
mod gguf;
mod hf;
mod merge;
mod normalize;
mod parts;
mod pattern;
mod pipeline;
mod pre_split;
mod pre_tokenizers;
mod sentencepiece;
mod special;
mod spm;
mod stop;
mod stream;
mod tekken;
mod tokenizer;
mod vocab;
mod vocab_files;

pub use error::{Result, TextError};
pub use stop::StopStrings;
pub use stream::StreamDecoder;
pub use tokenizer::Tokenizer;
pub use vocab::TokenKind;
