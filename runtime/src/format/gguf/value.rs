//! Typed metadata values. Scalars are read when the file is opened; strings and arrays stay in the map.

use std::{borrow::Cow, fmt};

/// The type of a metadata value or array element, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    /// 8-bit unsigned.
    U8 = 0,
    /// 8-bit signed.
    I8 = 1,
    /// 16-bit unsigned.
    U16 = 2,
    /// 16-bit signed.
    I16 = 3,
    /// 32-bit unsigned.
    U32 = 4,
    /// 32-bit signed.
    I32 = 5,
    /// binary32.
    F32 = 6,
    /// One byte, false where 0.
    Bool = 7,
    /// A u64 length, then UTF-8.
    Str = 8,
    /// An element type, a u64 count, then the elements.
    Array = 9,
    /// 64-bit unsigned.
    U64 = 10,
    /// 64-bit signed.
    I64 = 11,
    /// binary64.
    F64 = 12,
}

impl ValueType {
    /// The type of that number.
    pub fn from_u32(number: u32) -> Option<Self> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64].get(number as usize).copied()
    }

    /// Bytes of one value; `None` for strings and arrays.
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Str | Self::Array => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned integer, with the type it is stored as.
    Unsigned(ValueType, u64),
    /// Any signed integer, with the type it is stored as.
    Signed(ValueType, i64),
    /// binary32.
    F32(f32),
    /// binary64.
    F64(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Str(&'a str),
    /// A string that is not UTF-8.
    Bytes(&'a [u8]),
    /// A list, still in the file.
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// The value as an integer, from any stored width.
    pub fn as_i128(self) -> Option<i128> {
        match self {
            Self::Unsigned(_, v) => Some(v.into()),
            Self::Signed(_, v) => Some(v.into()),
            _ => None,
        }
    }

    /// Type and value for messages: `u32 7`, `array of 49152 string`.
    pub fn describe(self) -> String {
        match self {
            Self::Unsigned(t, v) => format!("{t} {v}"),
            Self::Signed(t, v) => format!("{t} {v}"),
            Self::F32(v) => format!("f32 {v}"),
            Self::F64(v) => format!("f64 {v}"),
            Self::Bool(v) => format!("bool {v}"),
            Self::Str(v) => format!("a string of {} bytes", v.len()),
            Self::Bytes(v) => format!("a string of {} bytes that is not UTF-8", v.len()),
            Self::Array(v) => format!("array of {} {}", v.len(), v.element()),
        }
    }

    /// Reads a fixed-size value of `ty` from the start of `bytes`.
    pub(super) fn read(ty: ValueType, bytes: &'a [u8]) -> Option<Self> {
        fn le<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
            bytes.first_chunk().copied()
        }
        Some(match ty {
            ValueType::U8 => Self::Unsigned(ty, u8::from_le_bytes(le(bytes)?).into()),
            ValueType::U16 => Self::Unsigned(ty, u16::from_le_bytes(le(bytes)?).into()),
            ValueType::U32 => Self::Unsigned(ty, u32::from_le_bytes(le(bytes)?).into()),
            ValueType::U64 => Self::Unsigned(ty, u64::from_le_bytes(le(bytes)?)),
            ValueType::I8 => Self::Signed(ty, i8::from_le_bytes(le(bytes)?).into()),
            ValueType::I16 => Self::Signed(ty, i16::from_le_bytes(le(bytes)?).into()),
            ValueType::I32 => Self::Signed(ty, i32::from_le_bytes(le(bytes)?).into()),
            ValueType::I64 => Self::Signed(ty, i64::from_le_bytes(le(bytes)?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(le(bytes)?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(le(bytes)?)),
            ValueType::Bool => Self::Bool(*bytes.first()? != 0),
            ValueType::Str | ValueType::Array => return None,
        })
    }
}

/// A metadata array, read from the map on each walk; nothing is copied or kept.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    /// Exactly the elements; their extent was checked when the file was opened.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    pub(super) fn new(element: ValueType, len: usize, bytes: &'a [u8]) -> Self {
        Self { element, len, bytes }
    }

    /// Element type.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The strings as bytes; `None` where the elements are not strings.
    pub fn byte_strings(&self) -> Option<ByteStrings<'a>> {
        (self.element == ValueType::Str).then_some(ByteStrings { left: self.len, bytes: self.bytes })
    }

    /// The strings as text, with U+FFFD for bytes that are not UTF-8 (valid text is borrowed from the file).
    pub fn strings(&self) -> Option<impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a>> {
        Some(self.byte_strings()?.map(String::from_utf8_lossy))
    }

    /// Scalar elements as values; `None` where the elements are strings or arrays.
    pub fn values(&self) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        let element = self.element;
        Some(self.bytes.chunks_exact(element.size()?).map_while(move |b| Value::read(element, b)))
    }

    /// Elements as integers of type `T`; `None` where they are not integers or one does not fit `T`.
    pub fn integers<T: TryFrom<i128>>(&self) -> Option<impl Iterator<Item = T> + use<'a, T>> {
        let convert = |v: Value<'_>| v.as_i128().and_then(|v| T::try_from(v).ok());
        // All elements are checked first, so that the caller need not check any.
        let fits = self.values()?.all(|v| convert(v).is_some());
        fits.then(|| self.values())?.map(|values| values.filter_map(convert))
    }

    /// Elements as i32; `None` where they are not integers or one does not fit.
    pub fn i32s(&self) -> Option<impl Iterator<Item = i32> + use<'a>> {
        self.integers()
    }

    /// Elements as u32; `None` where they are not integers or one does not fit.
    pub fn u32s(&self) -> Option<impl Iterator<Item = u32> + use<'a>> {
        self.integers()
    }

    /// Elements as f32; `None` where they are not floats.
    pub fn f32s(&self) -> Option<impl Iterator<Item = f32> + use<'a>> {
        let float = matches!(self.element, ValueType::F32 | ValueType::F64);
        float.then(|| self.values())?.map(|values| {
            values.map(|v| match v {
                Value::F64(v) => v as f32,
                Value::F32(v) => v,
                _ => f32::NAN,
            })
        })
    }

    /// Elements as truth values; `None` where they are of another type.
    pub fn bools(&self) -> Option<impl Iterator<Item = bool> + use<'a>> {
        (self.element == ValueType::Bool).then(|| self.values())?.map(|v| v.map(|v| v == Value::Bool(true)))
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element, self.len)
    }
}

/// The strings of an array, as they stand in the file.
#[derive(Clone, Debug)]
pub struct ByteStrings<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for ByteStrings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.bytes.split_first_chunk()?;
        let (string, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        self.bytes = rest;
        self.left = self.left.saturating_sub(1);
        Some(string)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for ByteStrings<'_> {}

/// A Rust type that a metadata value can be read as.
pub trait FromValue<'a>: Sized {
    /// Name of the type in messages.
    const NAME: &'static str;
    /// The value as `Self`, where its type fits.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! integer_from_value {
    ($($t:ty, $name:literal;)*) => {$(
        impl<'a> FromValue<'a> for $t {
            const NAME: &'static str = $name;
            fn from_value(value: Value<'a>) -> Option<Self> {
                value.as_i128()?.try_into().ok()
            }
        }
    )*};
}

integer_from_value! {
    u32, "an integer of 32 bits, not negative";
    i32, "an integer of 32 bits";
    u64, "an integer, not negative";
    usize, "an integer, not negative";
}

impl<'a> FromValue<'a> for f32 {
    const NAME: &'static str = "a float";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for bool {
    const NAME: &'static str = "a bool";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Bool(v) = value { Some(v) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const NAME: &'static str = "a string";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Str(v) = value { Some(v) } else { None }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const NAME: &'static str = "an array";
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Array(v) = value { Some(v) } else { None }
    }
}
