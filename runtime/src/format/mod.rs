//! Files: bytes become typed views here, and hostile input ends here.

mod error;
pub mod gguf;
mod map;
mod table;
mod tensor;

pub use error::FormatError;
pub use gguf::Gguf;
pub use map::{Bytes, Mapping};
pub use table::TensorInfo;
pub use tensor::Tensor;
