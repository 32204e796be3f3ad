//! Walks the header of one GGUF file. Every count, length and offset is checked against the file before it is used, and
//! no claim of the file alone decides how much memory is allocated.
//!
//! ```text
//! "GGUF" | version u32 | n_tensors u64 | n_keys u64
//! n_keys   × ( key string | type u32 | value )
//! n_tensors × ( name string | n_dims u32 | dims u64 × n_dims, innermost first | type u32 | offset u64 )
//! padding to general.alignment (32) | data: every tensor at its offset from here, a multiple of the alignment
//!
//! string = length u64 | bytes          array = element type u32 | count u64 | elements
//! ```

use super::{Array, Value, ValueType};
use crate::{
    format::{FormatError, table::Entry},
    quant::GgmlType,
};
use std::{collections::HashMap, ops::Range, path::Path};

/// Longer keys and tensor names are damage: the format itself limits keys to this.
const MAX_NAME: usize = 65_535;
/// Arrays of arrays deeper than this are refused; no known file has any.
const MAX_DEPTH: usize = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value without its bytes: scalars by value, strings and arrays as ranges of the file.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Scalar(ValueType, Range<usize>),
    Str(Range<usize>),
    Array(ValueType, usize, Range<usize>),
}

impl Stored {
    /// The value in `file`, the bytes that it was parsed from.
    pub fn value<'a>(&self, file: &'a [u8]) -> Option<Value<'a>> {
        match self {
            Stored::Scalar(ty, range) => Value::read(*ty, file.get(range.clone())?),
            Stored::Str(range) => {
                let bytes = file.get(range.clone())?;
                Some(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str))
            }
            Stored::Array(ty, len, range) => Some(Value::Array(Array::new(*ty, *len, file.get(range.clone())?))),
        }
    }
}

/// The parsed header of one file.
#[derive(Debug)]
pub(super) struct Header {
    pub version: u32,
    pub keys: Vec<(String, Stored)>,
    pub index: HashMap<String, usize>,
    pub tensors: Vec<Entry>,
}

impl Header {
    /// Parses the header of `file`, whose `path` is for messages.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, FormatError> {
        let mut at = Reader { path, file, pos: 0 };
        let magic = at.take(4, "the GGUF magic")?;
        if magic != b"GGUF" {
            return Err(super::not_a_model(path, file));
        }
        let version = at.u32("the GGUF version")?;
        // A big-endian file has its small version number in the upper half.
        if version != 0 && version & 0xffff == 0 {
            return Err(FormatError::BigEndian { path: path.into() });
        }
        if !matches!(version, 2 | 3) {
            return Err(FormatError::Version { path: path.into(), version });
        }
        let n_tensors = at.u64("the number of tensors")?;
        let n_keys = at.u64("the number of metadata keys")?;
        let (mut keys, mut index) = (Vec::new(), HashMap::new());
        for _ in 0..n_keys {
            let start = at.pos;
            let key = at.name("a metadata key")?;
            let ty = at.value_type()?;
            let stored = at.value(ty)?;
            if index.insert(key.clone(), keys.len()).is_some() {
                return Err(at.corrupt(start, format!("metadata key `{key}` occurs twice")));
            }
            keys.push((key, stored));
        }
        let mut header = Self { version, keys, index, tensors: Vec::new() };
        let alignment = header.alignment(&at)?;
        // Offsets are relative to the data's start, which is known only after the last description.
        let mut described = Vec::new();
        for _ in 0..n_tensors {
            described.push(at.tensor()?);
        }
        let Some(data) = (at.pos as u64).checked_next_multiple_of(alignment) else {
            return Err(at.corrupt(at.pos, format!("alignment {alignment} is absurd")));
        };
        header.tensors = place(path, described, data, alignment, file.len() as u64)?;
        Ok(header)
    }

    fn alignment(&self, at: &Reader<'_>) -> Result<u64, FormatError> {
        let Some(stored) = self.index.get("general.alignment").map(|i| &self.keys[*i].1) else {
            return Ok(DEFAULT_ALIGNMENT);
        };
        match stored.value(at.file) {
            Some(Value::Unsigned(_, v)) if v.is_power_of_two() && v <= u32::MAX.into() => Ok(v),
            other => {
                let found = other.map_or_else(String::new, Value::describe);
                let expected = "a power of two";
                Err(FormatError::WrongType { path: at.path.into(), key: "general.alignment".into(), expected, found })
            }
        }
    }
}

/// A tensor's description before its place in the file is known.
struct Described {
    name: String,
    shape: Vec<usize>,
    ty: GgmlType,
    offset: u64,
    /// Bytes; `None` where the type is unknown, and therefore its size.
    bytes: Option<u64>,
}

/// Checks every tensor's extent against alignment, file and each other.
fn place(
    path: &Path,
    described: Vec<Described>,
    data: u64,
    alignment: u64,
    file_len: u64,
) -> Result<Vec<Entry>, FormatError> {
    let bad = |d: &Described, what: String| FormatError::BadTensor { path: path.into(), tensor: d.name.clone(), what };
    let (mut needed, mut last) = (0, None);
    for d in &described {
        if !d.offset.is_multiple_of(alignment) {
            return Err(bad(d, format!("its offset {} is not a multiple of the alignment {alignment}", d.offset)));
        }
        let end = d.offset.checked_add(d.bytes.unwrap_or(0)).and_then(|end| end.checked_add(data));
        let end = end.ok_or_else(|| bad(d, format!("its offset {} overflows", d.offset)))?;
        if end > needed {
            (needed, last) = (end, Some(&d.name));
        }
    }
    if let Some(name) = last.filter(|_| needed > file_len) {
        let what = format!("the data of tensor `{name}`");
        return Err(FormatError::Truncated { path: path.into(), what, expected: needed, actual: file_len });
    }
    let mut by_offset: Vec<&Described> = described.iter().filter(|d| d.bytes != Some(0)).collect();
    by_offset.sort_by_key(|d| d.offset);
    for pair in by_offset.windows(2) {
        // No sum here overflows: all of them were formed above. A tensor of unknown size takes at least one byte.
        if pair[0].offset + pair[0].bytes.unwrap_or(1) > pair[1].offset {
            return Err(bad(pair[1], format!("it overlaps tensor `{}`", pair[0].name)));
        }
    }
    described
        .into_iter()
        .map(|d| {
            let (start, end) = (data + d.offset, data + d.offset + d.bytes.unwrap_or(0));
            // Both ends are within the file, which is mapped whole, or they are equal and the range is empty.
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let (start, end) = range.ok_or_else(|| bad(&d, "it lies beyond the address space".into()))?;
            let dtype = d.ty.dtype().ok_or_else(|| d.ty.name());
            Ok(Entry { name: d.name, dtype, shape: d.shape, file: 0, range: start..end })
        })
        .collect()
}

/// A position in the file; every read is checked.
struct Reader<'a> {
    path: &'a Path,
    file: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    fn corrupt(&self, offset: usize, what: String) -> FormatError {
        FormatError::Corrupt { path: self.path.into(), offset: offset as u64, what }
    }

    fn truncated(&self, len: u64, what: &str) -> FormatError {
        let expected = (self.pos as u64).saturating_add(len);
        let (path, actual) = (self.path.into(), self.file.len() as u64);
        FormatError::Truncated { path, what: what.into(), expected, actual }
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], FormatError> {
        let end = usize::try_from(len).ok().and_then(|len| self.pos.checked_add(len));
        match end.and_then(|end| self.file.get(self.pos..end)) {
            Some(bytes) => {
                self.pos += bytes.len();
                Ok(bytes)
            }
            None => Err(self.truncated(len, what)),
        }
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        match self.file.get(self.pos..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(N as u64, what)),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    /// A string as the range of its bytes.
    fn string(&mut self, what: &str) -> Result<Range<usize>, FormatError> {
        let len = self.u64(what)?;
        let start = self.pos;
        self.take(len, what)?;
        Ok(start..self.pos)
    }

    fn name(&mut self, what: &str) -> Result<String, FormatError> {
        let start = self.pos;
        let range = self.string(what)?;
        if range.len() > MAX_NAME {
            return Err(self.corrupt(start, format!("{what} of {} bytes", range.len())));
        }
        match std::str::from_utf8(&self.file[range]) {
            Ok(name) => Ok(name.into()),
            Err(_) => Err(self.corrupt(start, format!("{what} is not UTF-8"))),
        }
    }

    fn value_type(&mut self) -> Result<ValueType, FormatError> {
        let number = self.u32("a metadata type")?;
        ValueType::from_u32(number)
            .ok_or_else(|| self.corrupt(self.pos - 4, format!("{number} is no metadata type of GGUF 2 or 3")))
    }

    fn value(&mut self, ty: ValueType) -> Result<Stored, FormatError> {
        let what = "a metadata value";
        if let Some(size) = ty.size() {
            let start = self.pos;
            self.take(size as u64, what)?;
            return Ok(Stored::Scalar(ty, start..self.pos));
        }
        if ty == ValueType::Str {
            return self.string(what).map(Stored::Str);
        }
        self.array(0)
    }

    /// Walks over an array: string by string, or past all elements at once where they have a fixed size.
    fn array(&mut self, depth: usize) -> Result<Stored, FormatError> {
        let what = "a metadata array";
        if depth == MAX_DEPTH {
            return Err(self.corrupt(self.pos, format!("arrays nested deeper than {MAX_DEPTH}")));
        }
        let element = self.value_type()?;
        let count = self.u64(what)?;
        let start = self.pos;
        match element.size() {
            Some(size) => {
                let len = count.checked_mul(size as u64).ok_or_else(|| self.truncated(u64::MAX, what))?;
                self.take(len, what)?;
            }
            // Each turn takes at least 8 bytes, so an absurd count ends at the end of the file.
            None if element == ValueType::Str => {
                for _ in 0..count {
                    self.skip_string()?;
                }
            }
            None => {
                for _ in 0..count {
                    self.array(depth + 1)?;
                }
            }
        }
        let count = usize::try_from(count).map_err(|_| self.truncated(u64::MAX, what))?;
        Ok(Stored::Array(element, count, start..self.pos))
    }

    /// `string` without the message of an error, which costs an allocation: a vocabulary has a quarter of a million
    /// strings.
    fn skip_string(&mut self) -> Result<(), FormatError> {
        let next = self.file.get(self.pos..).and_then(|rest| rest.first_chunk()).and_then(|len| {
            let end = usize::try_from(u64::from_le_bytes(*len)).ok()?.checked_add(self.pos + 8)?;
            (end <= self.file.len()).then_some(end)
        });
        match next {
            Some(next) => {
                self.pos = next;
                Ok(())
            }
            None => self.string("a string of a metadata array").map(drop),
        }
    }

    fn tensor(&mut self) -> Result<Described, FormatError> {
        let start = self.pos;
        let name = self.name("a tensor name")?;
        let n_dims = self.u32("a tensor's number of dimensions")?;
        if n_dims > 4 {
            return Err(self.corrupt(start, format!("tensor `{name}` has {n_dims} dimensions; GGUF has up to 4")));
        }
        let mut dims = [0u64; 4];
        for dim in &mut dims[..n_dims as usize] {
            *dim = self.u64("a tensor's shape")?;
        }
        let number = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let bad = |what: String| FormatError::BadTensor { path: self.path.into(), tensor: name.clone(), what };
        let dims = &dims[..n_dims as usize];
        let shape: Option<Vec<usize>> = dims.iter().rev().map(|d| usize::try_from(*d).ok()).collect();
        let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let Some((shape, elements)) = shape.zip(elements.filter(|n| i64::try_from(*n).is_ok())) else {
            return Err(bad(format!("its shape {dims:?} overflows")));
        };
        let ty = GgmlType::from_number(number);
        let bytes = match ty.block() {
            None => None,
            Some((block_len, block_bytes)) => {
                let row = dims.first().copied().unwrap_or(1);
                if !row.is_multiple_of(block_len as u64) {
                    return Err(bad(format!("rows of {row} are not whole {} blocks of {block_len}", ty.name())));
                }
                let bytes = (elements / block_len as u64).checked_mul(block_bytes as u64);
                Some(bytes.ok_or_else(|| bad(format!("its shape {dims:?} overflows")))?)
            }
        };
        Ok(Described { name, shape, ty, offset, bytes })
    }
}
