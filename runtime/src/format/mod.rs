//! Files: bytes become typed views here, and hostile input ends here.

mod checkpoint;
mod error;
mod folder;
mod fp8;
pub mod gguf;
mod huge_pages;
mod json;
mod lfs;
mod map;
mod mapped;
mod safetensors;
mod synthetic;
mod table;
mod tensor;

pub use checkpoint::{Checkpoint, Integers, Kind};
pub use error::FormatError;
pub use folder::HfFolder;
pub use gguf::Gguf;
pub use huge_pages::{HUGE_PAGE, HugePages, Paging, WhySmall};
pub use json::read_object as read_json_object;
pub use lfs::refuse_pointer as refuse_lfs_pointer;
#[cfg(feature = "gpu")]
pub(crate) use map::PrivateCopy;
pub use map::{Bytes, Mapping};
pub use mapped::{MAPPED_NAME_BYTES, mapped_file_at};
pub use safetensors::SafeTensors;
pub use synthetic::TensorSource;
pub use table::TensorInfo;
pub use tensor::{ScaleType, Scales, Tensor};
