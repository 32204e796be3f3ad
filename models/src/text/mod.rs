//! Text in and out: tokenizers, chat templates, typed replies, streaming decode, stop strings.

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
mod reply;
mod sentencepiece;
mod special;
mod spm;
mod stop;
mod stream;
mod tekken;
mod template;
mod tokenizer;
mod vocab;
mod vocab_files;

pub use error::{Result, TextError};
pub use reply::{ReplyEvent, ReplyParser, ReplySyntax};
pub use stop::StopStrings;
pub use stream::StreamDecoder;
pub(crate) use template::is_system;
pub use template::{ChatTemplate, Conversation, LocalTime, Prompt};
pub use tokenizer::Tokenizer;
pub use vocab::TokenKind;
