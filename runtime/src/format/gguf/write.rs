//! Writes GGUF files, for tests and converters. Tensor bytes are shared until they are written.

use super::ValueType;
use crate::{
    format::{Bytes, Tensor},
    quant::GgmlType,
};
use std::io::{self, Write};

/// A metadata value to write; made with `into()` from numbers, `bool`, text and vectors of them.
#[derive(Clone, Debug)]
pub struct MetaValue {
    ty: ValueType,
    bytes: Vec<u8>,
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

impl From<&str> for MetaValue {
    fn from(s: &str) -> Self {
        let mut bytes = Vec::new();
        string(&mut bytes, s);
        Self { ty: ValueType::Str, bytes }
    }
}

impl From<String> for MetaValue {
    fn from(s: String) -> Self {
        s.as_str().into()
    }
}

impl From<bool> for MetaValue {
    fn from(v: bool) -> Self {
        Self { ty: ValueType::Bool, bytes: vec![v.into()] }
    }
}

macro_rules! number_to_meta {
    ($($t:ty => $ty:ident,)*) => {$(
        impl From<$t> for MetaValue {
            fn from(v: $t) -> Self {
                Self { ty: ValueType::$ty, bytes: v.to_le_bytes().into() }
            }
        }
    )*};
}

number_to_meta! { u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64, }

impl<T: Into<MetaValue>> From<Vec<T>> for MetaValue {
    /// An array; an empty one is of strings.
    fn from(values: Vec<T>) -> Self {
        let n = values.len() as u64;
        let mut elements = values.into_iter().map(Into::into).peekable();
        let ty = elements.peek().map_or(ValueType::Str, |first: &MetaValue| first.ty);
        let mut bytes = (ty as u32).to_le_bytes().to_vec();
        bytes.extend(n.to_le_bytes());
        elements.for_each(|e| bytes.extend(e.bytes));
        Self { ty: ValueType::Array, bytes }
    }
}

/// A GGUF file in the making: metadata and tensors are written in the order in which they were added.
#[derive(Clone, Debug)]
pub struct GgufWriter {
    version: u32,
    alignment: u32,
    metadata: Vec<(String, MetaValue)>,
    tensors: Vec<(String, u32, Vec<usize>, Bytes)>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl GgufWriter {
    /// An empty file of version 3 with alignment 32.
    pub fn new() -> Self {
        Self { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }

    /// Sets the version in the header; 2 and 3 differ in nothing else.
    pub fn version(&mut self, version: u32) -> &mut Self {
        self.version = version;
        self
    }

    /// Aligns tensors to `alignment` bytes, a power of two, and says so in `general.alignment`.
    pub fn alignment(&mut self, alignment: u32) -> &mut Self {
        self.alignment = alignment.max(1);
        self.put("general.alignment", alignment)
    }

    /// Adds a metadata key.
    pub fn put(&mut self, key: &str, value: impl Into<MetaValue>) -> &mut Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Adds a tensor. Its values are written as f32 where GGUF has no number for its type, or its scales lie in a
    /// tensor of their own.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> &mut Self {
        if let (Some(number), None) = (tensor.dtype().to_ggml(), tensor.scales()) {
            let ty = GgmlType::from_number(number);
            return self.raw_tensor(name, ty, tensor.shape(), tensor.shared_bytes().clone());
        }
        let mut row = vec![0.0; tensor.row_len()];
        let mut bytes = Vec::new();
        for i in 0..tensor.rows() {
            tensor.decode_row(i, &mut row);
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        }
        self.raw_tensor(name, GgmlType::from_number(0), tensor.shape(), Bytes::heap(bytes))
    }

    /// Adds a tensor of any type, known or not; `shape` is outermost first, `bytes` are written as they are.
    pub fn raw_tensor(&mut self, name: &str, ty: GgmlType, shape: &[usize], bytes: Bytes) -> &mut Self {
        self.tensors.push((name.into(), ty.number(), shape.into(), bytes));
        self
    }

    /// Writes the file.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let padding = |len: u64| vec![0; (len.next_multiple_of(self.alignment.into()) - len) as usize];
        let mut header = b"GGUF".to_vec();
        header.extend(self.version.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut header, key);
            header.extend((value.ty as u32).to_le_bytes());
            header.extend(&value.bytes);
        }
        let mut offset = 0u64;
        for (name, ty, shape, bytes) in &self.tensors {
            string(&mut header, name);
            header.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|d| header.extend((*d as u64).to_le_bytes()));
            header.extend(ty.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + bytes.len() as u64).next_multiple_of(self.alignment.into());
        }
        header.extend(padding(header.len() as u64));
        out.write_all(&header)?;
        for (_, _, _, bytes) in &self.tensors {
            out.write_all(bytes)?;
            out.write_all(&padding(bytes.len() as u64))?;
        }
        out.flush()
    }

    /// The whole file in memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to memory does not fail.
        let _ = self.write(&mut out);
        out
    }
}
