//! Safetensors: one file, or several joined by a `model.safetensors.index.json`.
//!
//! ```text
//! header length u64 | header: JSON | data
//! header: { "name": { "dtype": "F32", "shape": [out, in], "data_offsets": [begin, end] }, …, "__metadata__": {…} }
//! ```
//!
//! Offsets count from the data's start; tensors cover the data without hole or overlap. They may lie at any alignment,
//! so everything here is bytes.

use super::{
    Bytes, FormatError, Tensor, TensorInfo, gguf, json,
    table::{Entry, MappedFile, TensorTable},
};
use crate::quant::DType;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Component, Path, PathBuf},
};

/// Longest header that is read, as in the format's own library.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of one or more safetensors files, memory-mapped.
#[derive(Debug, Default)]
pub struct SafeTensors {
    table: TensorTable,
    /// The index, where there is one.
    index: Option<PathBuf>,
    /// Tensors that only the index has, and the files that it says hold them.
    absent: BTreeMap<String, PathBuf>,
}

impl SafeTensors {
    /// Opens one file.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let mut this = Self::default();
        let file = MappedFile::open(path)?;
        let entries = parse(path, &file.map)?;
        this.table.add(file, entries)?;
        Ok(this)
    }

    /// Opens all files that an index names, from the index's folder. As in the format's own library, a file's tensors
    /// are all there, also those that the index places elsewhere or does not name. Where several files have a tensor of
    /// one name, the index decides. A tensor that the index names and no file has is an error only when it is asked
    /// for, because an index may be older than its files.
    ///
    /// # Errors
    /// An index that cannot be read or names no file of its folder, missing parts, and damaged parts.
    pub fn open_index(path: &Path) -> Result<Self, FormatError> {
        let index = json::read_object(path)?.ok_or_else(|| FormatError::NotFound { path: path.into() })?;
        let map = weight_map(path, &index)?;
        let shards: BTreeSet<&str> = map.values().copied().collect();
        let mut this = Self::open_parts(path, &shards, &map)?;
        this.promise(path, &map);
        Ok(this)
    }

    /// Opens the files `shards` beside the path `by` that named them. A tensor that several files have is taken from
    /// the file in `map`, or from the first.
    pub(super) fn open_parts(
        by: &Path,
        shards: &BTreeSet<&str>,
        map: &BTreeMap<&str, &str>,
    ) -> Result<Self, FormatError> {
        let mut parts = Vec::with_capacity(shards.len());
        let mut holders: HashMap<String, &str> = HashMap::new();
        for shard in shards.iter().copied() {
            let shard_path = by.with_file_name(shard);
            let file = MappedFile::open(&shard_path).map_err(|error| match error {
                FormatError::NotFound { path: shard } => FormatError::MissingShard { path: by.into(), shard },
                other => other,
            })?;
            let entries = parse(&shard_path, &file.map)?;
            for entry in &entries {
                let named = map.get(entry.name.as_str()) == Some(&shard);
                if named || !holders.contains_key(&entry.name) {
                    holders.insert(entry.name.clone(), shard);
                }
            }
            parts.push((shard, file, entries));
        }
        let mut this = Self::default();
        for (shard, file, mut entries) in parts {
            entries.retain(|e| holders.get(&e.name) == Some(&shard));
            this.table.add(file, entries)?;
        }
        Ok(this)
    }

    /// The same beside the index at `path`, which names other files: its claims about missing tensors are noted.
    pub(super) fn beside_index(mut self, path: &Path) -> Self {
        if let Ok(Some(index)) = json::read_object(path)
            && let Ok(map) = weight_map(path, &index)
        {
            self.promise(path, &map);
        }
        self
    }

    /// Notes the files in which the index at `path` places tensors that are missing here.
    fn promise(&mut self, path: &Path, map: &BTreeMap<&str, &str>) {
        let absent = map.iter().filter(|(name, _)| !self.table.contains(name));
        let place = |(name, shard): (&&str, &&str)| (name.to_string(), path.with_file_name(shard));
        self.absent = absent.map(place).collect();
        self.index = Some(path.into());
    }

    /// The error for the missing tensor `name` where an index places it in a file.
    pub(super) fn promised(&self, name: &str) -> Option<FormatError> {
        let (path, shard) = (self.index.clone()?, self.absent.get(name)?);
        if !shard.exists() {
            return Some(FormatError::MissingShard { path, shard: shard.clone() });
        }
        let shard = shard.file_name().unwrap_or_default().to_string_lossy();
        let what = format!("the index says that {shard} holds tensor `{name}`, and it does not; fetch both again");
        Some(FormatError::Split { path, what })
    }

    /// Whether the files have no tensors.
    pub(super) fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Bytes of all files together.
    pub fn file_size(&self) -> u64 {
        self.table.file_size()
    }

    /// The files, in the order in which they were opened.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.table.files().iter().map(|f| f.path.as_path())
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

/// Tensor name → file name, for an index whose files all lie within its folder.
pub(super) fn weight_map<'a>(
    path: &Path,
    index: &'a Map<String, Value>,
) -> Result<BTreeMap<&'a str, &'a str>, FormatError> {
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| json::problem(path, "it has no object `weight_map`".into()))?;
    map.iter()
        .map(|(name, shard)| {
            let shard = shard.as_str().ok_or_else(|| json::problem(path, format!("`{name}` names no file")))?;
            let mut parts = Path::new(shard).components();
            // Only a plain file name: a file in another folder does not belong to this checkpoint.
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) || shard.contains('\\') {
                let what = format!("it names the file `{shard}` for tensor `{name}`, which is not in its folder");
                return Err(FormatError::Split { path: path.into(), what });
            }
            Ok((name.as_str(), shard))
        })
        .collect()
}

/// Whether a file starts like safetensors: a length, then a JSON object.
pub(super) fn looks_like(file: &[u8]) -> bool {
    file.get(8) == Some(&b'{') && file.first_chunk().is_some_and(|n| u64::from_le_bytes(*n) <= MAX_HEADER)
}

/// Bits of an element; `None` for types that are newer than this table.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "F16" | "BF16" | "U16" | "I16" => 16,
        "F32" | "U32" | "I32" => 32,
        "F64" | "U64" | "I64" | "C64" => 64,
        _ => return None,
    })
}

fn parse(path: &Path, file: &[u8]) -> Result<Vec<Entry>, FormatError> {
    if !looks_like(file) {
        return Err(gguf::not_a_model(path, file));
    }
    // `looks_like` has checked that there are nine bytes.
    let header_len = file.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    let truncated = |what: String, expected: u64| FormatError::Truncated {
        path: path.into(),
        what,
        expected,
        actual: file.len() as u64,
    };
    let data = 8 + header_len as usize;
    let header = file.get(8..data).ok_or_else(|| truncated("the header".into(), data as u64))?;
    let header = json::parse_object(path, header)?;
    let mut entries = Vec::new();
    for (name, info) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let bad = |what: &str| FormatError::BadTensor { path: path.into(), tensor: name.clone(), what: what.into() };
        let (dtype, shape, [begin, end]) = described(info).ok_or_else(|| {
            bad("its description is not `dtype`, `shape` of whole numbers and `data_offsets` [begin, end]")
        })?;
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64));
        let len = end.checked_sub(begin).ok_or_else(|| bad("its data ends before it begins"))?;
        if let Some(bits) = bits(dtype) {
            let needed = elements.and_then(|n| n.checked_mul(bits)).ok_or_else(|| bad("its shape overflows"))?;
            if needed != len.saturating_mul(8) {
                return Err(bad(&format!("shape {shape:?} of {dtype} is not {len} bytes")));
            }
        }
        let place = |at: u64| usize::try_from(at).ok()?.checked_add(data);
        let (start, stop) = place(begin).zip(place(end)).ok_or_else(|| bad("its offsets overflow"))?;
        let dtype = match dtype {
            "F32" => Ok(DType::F32),
            "F16" => Ok(DType::F16),
            "BF16" => Ok(DType::BF16),
            "F8_E4M3" => Ok(DType::F8_E4M3),
            other => Err(other.to_lowercase().into()),
        };
        entries.push(Entry { name: name.clone(), dtype, shape, file: 0, range: start..stop });
    }
    entries.sort_by_key(|e| (e.range.start, e.range.end));
    let mut at = data;
    for e in &entries {
        if e.range.start != at {
            let what = format!("its data starts at byte {} of the file, where {at} was expected", e.range.start);
            return Err(FormatError::BadTensor { path: path.into(), tensor: e.name.clone(), what });
        }
        at = e.range.end;
    }
    match at.cmp(&file.len()) {
        std::cmp::Ordering::Greater => {
            let name = entries.last().map_or("", |e| &e.name);
            Err(truncated(format!("the data of tensor `{name}`"), at as u64))
        }
        std::cmp::Ordering::Less => Err(FormatError::Corrupt {
            path: path.into(),
            offset: at as u64,
            what: format!("{} bytes that belong to no tensor", file.len() - at),
        }),
        std::cmp::Ordering::Equal => Ok(entries),
    }
}

/// Type, shape and offsets of a tensor's header entry.
fn described(info: &Value) -> Option<(&str, Vec<usize>, [u64; 2])> {
    let dtype = info.get("dtype")?.as_str()?;
    let shape = info.get("shape")?.as_array()?;
    let shape = shape.iter().map(|d| usize::try_from(d.as_u64()?).ok()).collect::<Option<_>>()?;
    match info.get("data_offsets")?.as_array()?.as_slice() {
        [begin, end] => Some((dtype, shape, [begin.as_u64()?, end.as_u64()?])),
        _ => None,
    }
}
