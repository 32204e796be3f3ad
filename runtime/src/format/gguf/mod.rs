//! GGUF, versions 2 and 3, little-endian, in one file or split over several.
//!
//! Opening walks the header once and keeps keys, tensor descriptions and the places of values; strings and arrays are
//! read from the map on request.

mod header;
mod value;
mod write;

pub use value::{Array, ByteStrings, FromValue, Value, ValueType};
pub use write::{GgufWriter, MetaValue};

use super::{
    Bytes, FormatError, Tensor, TensorInfo,
    table::{MappedFile, TensorTable},
};
use header::Header;
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// An open GGUF model: metadata and tensors over memory-mapped files.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    header: Header,
    table: TensorTable,
}

impl Gguf {
    /// Opens `path` and, where it is any part of a split model (`…-00001-of-00003.gguf`), all other parts from the same
    /// folder. The first part has the metadata.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = MappedFile::open(path)?;
        let mut header = Header::parse(path, &file.map)?;
        let mut table = TensorTable::default();
        let n_parts = part_number(path, &header, &file.map, "split.count")?.unwrap_or(1);
        if n_parts > 1 {
            header = open_parts(path, n_parts, &mut table)?;
        } else {
            let tensors = std::mem::take(&mut header.tensors);
            table.add(file, tensors)?;
        }
        Ok(Self { path: path.into(), header, table })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Bytes of all files together.
    pub fn file_size(&self) -> u64 {
        self.table.file_size()
    }

    /// The files, in order of their parts.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.table.files().iter().map(|f| f.path.as_path())
    }

    /// The metadata value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let stored = &self.header.keys[*self.header.index.get(key)?].1;
        // The first part has the metadata; its map is the first of the table.
        stored.value(&self.table.files().first()?.map)
    }

    /// All metadata in file order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.header.keys.iter().filter_map(|(key, _)| Some((key.as_str(), self.get(key)?)))
    }

    /// The value of `key` as `T`; `None` where the key is absent, an error where its value is of another type.
    pub fn get_as<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(&self.path, key, value).map(Some)
    }

    /// `value`, which is the value of `key` or an element of it, as `T`; an error where it is of another type.
    pub fn convert<'a, T: FromValue<'a>>(&self, key: &str, value: Value<'a>) -> Result<T, FormatError> {
        convert(&self.path, key, value)
    }

    /// The value of `key` as `T`; an error where the key is absent or its value is of another type.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, FormatError> {
        let missing = || FormatError::MissingKey { path: self.path.clone(), key: key.into() };
        self.get_as(key)?.ok_or_else(missing)
    }

    /// [`Gguf::get_as`] for integers of any stored width that fit u32.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.get_as(key)
    }

    /// [`Gguf::get_as`] for floats.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        self.get_as(key)
    }

    /// [`Gguf::get_as`] for truth values.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.get_as(key)
    }

    /// [`Gguf::get_as`] for text.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        self.get_as(key)
    }

    /// [`Gguf::get_as`] for arrays.
    pub fn get_array(&self, key: &str) -> Result<Option<Array<'_>>, FormatError> {
        self.get_as(key)
    }

    /// Descriptions of all tensors, in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.table.iter()
    }

    /// Shape and bytes of the tensor of that name and that type.
    pub(super) fn bytes(&self, name: &str, dtype: &str) -> Result<Option<(Vec<usize>, Bytes)>, FormatError> {
        self.table.bytes(name, dtype)
    }

    /// The tensor of that name; `None` where there is none, an error where its type has no kernels.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        self.table.find(name)
    }
}

fn convert<'a, T: FromValue<'a>>(path: &Path, key: &str, value: Value<'a>) -> Result<T, FormatError> {
    T::from_value(value).ok_or_else(|| FormatError::WrongType {
        path: path.into(),
        key: key.into(),
        expected: T::NAME,
        found: value.describe(),
    })
}

/// A number of the `split.*` keys, which only parts of split models have.
fn part_number(path: &Path, header: &Header, file: &[u8], key: &str) -> Result<Option<u32>, FormatError> {
    let stored = header.index.get(key).map(|i| &header.keys[*i].1);
    stored.and_then(|s| s.value(file)).map(|value| convert(path, key, value)).transpose()
}

/// Opens all parts of a split model into `table` and returns the first one's header.
fn open_parts(path: &Path, n_parts: u32, table: &mut TensorTable) -> Result<Header, FormatError> {
    let split = |path: &Path, what: String| FormatError::Split { path: path.into(), what };
    let prefix = part_prefix(path, n_parts).ok_or_else(|| {
        let what = format!(
            "the file says that it is one of {n_parts} parts, so its name has to end in -00001-of-{n_parts:05}.gguf, \
             with its own number"
        );
        split(path, what)
    })?;
    let mut first = None;
    let mut total = None;
    for i in 0..n_parts {
        let mut name = prefix.clone();
        name.push(format!("-{:05}-of-{n_parts:05}.gguf", i + 1));
        let part = path.with_file_name(name);
        let file = MappedFile::open(&part).map_err(|error| match error {
            FormatError::NotFound { path: shard } => FormatError::MissingShard { path: path.into(), shard },
            other => other,
        })?;
        let mut header = Header::parse(&part, &file.map)?;
        let (number, count) = (
            part_number(&part, &header, &file.map, "split.no")?,
            part_number(&part, &header, &file.map, "split.count")?,
        );
        if (number, count) != (Some(i), Some(n_parts)) {
            let shown = |n: Option<u32>| n.map_or("none".into(), |n| n.to_string());
            let what = format!(
                "it should be part {i} of {n_parts} (split.no, split.count) and says {} of {}",
                shown(number),
                shown(count)
            );
            return Err(split(&part, what));
        }
        if i == 0 {
            total = part_number(&part, &header, &file.map, "split.tensors.count")?;
        }
        let tensors = std::mem::take(&mut header.tensors);
        table.add(file, tensors)?;
        first.get_or_insert(header);
    }
    if let Some(total) = total.filter(|total| *total as usize != table.len()) {
        let what = format!("the first part announces {total} tensors and all parts have {}", table.len());
        return Err(split(path, what));
    }
    first.ok_or_else(|| split(path, "there are no parts".into()))
}

/// The part of a name before `-00001-of-0000N.gguf`, for a part of any number.
fn part_prefix(path: &Path, n_parts: u32) -> Option<OsString> {
    let (name, end) = (path.file_name()?, format!("-of-{n_parts:05}.gguf"));
    let (front, number) = name.as_encoded_bytes().strip_suffix(end.as_bytes())?.split_last_chunk::<5>()?;
    let is_part = front.ends_with(b"-") && number.iter().all(u8::is_ascii_digit);
    is_part.then(|| without_end(name, "-".len() + number.len() + end.len()))?
}

/// A name, which need not be Unicode, without its last `n` characters, which are ASCII.
fn without_end(name: &OsStr, n: usize) -> Option<OsString> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let bytes = name.as_bytes();
        Some(OsStr::from_bytes(bytes.get(..bytes.len().checked_sub(n)?)?).to_owned())
    }
    #[cfg(windows)]
    {
        use std::os::windows::ffi::{OsStrExt, OsStringExt};
        let wide: Vec<u16> = name.encode_wide().collect();
        Some(OsString::from_wide(wide.get(..wide.len().checked_sub(n)?)?))
    }
    #[cfg(not(any(unix, windows)))]
    {
        let name = name.to_str()?;
        Some(name.get(..name.len().checked_sub(n)?)?.into())
    }
}

/// The error for a file that does not start with GGUF's magic number.
pub(super) fn not_a_model(path: &Path, file: &[u8]) -> FormatError {
    let start = &file[..file.len().min(8)];
    FormatError::NotAModel { path: path.into(), start: format!("\"{}\"", start.escape_ascii()) }
}
