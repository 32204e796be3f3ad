//! Files: bytes become typed views here, and hostile input ends here.

mod map;
mod tensor;

pub use map::{Bytes, Mapping};
pub use tensor::Tensor;
