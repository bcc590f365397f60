//! The typed key-value pairs of a GGUF header.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::header::MOST_RESERVED;
use crate::CheckpointError;

/// Arrays of arrays deeper than this are refused; no known key nests at all.
const MAX_DEPTH: u32 = 4;

/// The numbers of value types in the file.
mod value_type {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// A metadata value. Integers of all widths become one type; so do floats, where a binary32 becomes
/// the binary64 with the same shortest decimal (0.00001 and not 0.00000999999974…).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MetadataValue {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(MetadataArray),
}

/// An array of metadata values of one type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MetadataArray {
    Integers(Vec<i64>),
    Unsigned(Vec<u64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
    Arrays(Vec<MetadataArray>),
}

/// All metadata of a file.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    file: PathBuf,
    values: BTreeMap<String, MetadataValue>,
}

impl Metadata {
    /// Reads `count` pairs.
    pub(crate) fn read(
        cursor: &mut Cursor<'_>,
        file: &Path,
        count: usize,
    ) -> Result<Self, CheckpointError> {
        let mut metadata = Self { file: file.to_path_buf(), values: BTreeMap::new() };
        for _ in 0..count {
            let key = cursor.text("a metadata key")?;
            let value = read_value(cursor, &key)?;
            if metadata.values.insert(key.clone(), value).is_some() {
                return Err(metadata.error(&key, "given twice".to_owned()));
            }
        }
        Ok(metadata)
    }

    /// The file the metadata is from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// An integer that fits `T`, if the key is there.
    pub(crate) fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, CheckpointError> {
        self.get(key, "an integer", |value| match value {
            MetadataValue::Integer(value) => Some(*value),
            _ => None,
        })?
        .map(|value| {
            T::try_from(value).map_err(|_| self.error(key, format!("{value} is out of range")))
        })
        .transpose()
    }

    /// A number, if the key is there.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.get(key, "a finite number", |value| match value {
            MetadataValue::Float(value) if value.is_finite() => Some(*value),
            MetadataValue::Integer(value) => Some(*value as f64),
            _ => None,
        })
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.get(key, "a bool", |value| match value {
            MetadataValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.get(key, "a string", |value| match value {
            MetadataValue::Text(value) => Some(value.as_str()),
            _ => None,
        })
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<&[String]>, CheckpointError> {
        self.get(key, "an array of strings", |value| match value {
            MetadataValue::Array(MetadataArray::Texts(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Option<&[f32]>, CheckpointError> {
        self.get(key, "an array of f32", |value| match value {
            MetadataValue::Array(MetadataArray::Floats(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// An array of integers, whatever their width.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i128>>, CheckpointError> {
        self.get(key, "an array of integers", |value| match value {
            MetadataValue::Array(MetadataArray::Integers(values)) => {
                Some(values.iter().map(|&value| value.into()).collect())
            }
            MetadataValue::Array(MetadataArray::Unsigned(values)) => {
                Some(values.iter().map(|&value| value.into()).collect())
            }
            _ => None,
        })
    }

    /// The value a file cannot do without.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, CheckpointError> {
        value.ok_or_else(|| self.error(key, "missing".to_owned()))
    }

    /// An error about one key of this file.
    pub(crate) fn error(&self, key: &str, problem: String) -> CheckpointError {
        CheckpointError::Metadata { file: self.file.clone(), key: key.to_owned(), problem }
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        convert(value)
            .map(Some)
            .ok_or_else(|| self.error(key, format!("{}, expected {expected}", value.describe())))
    }
}

impl MetadataValue {
    /// The value, or its kind where it is long, for a message.
    fn describe(&self) -> String {
        match self {
            Self::Integer(value) => format!("is the integer {value}"),
            Self::Float(value) => format!("is the number {value}"),
            Self::Bool(value) => format!("is the bool {value}"),
            Self::Text(_) => "is a string".to_owned(),
            Self::Array(_) => "is an array of another type".to_owned(),
        }
    }
}

/// A type number and the value of that type.
fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<MetadataValue, CheckpointError> {
    use value_type as t;
    let what = &format!("metadata `{key}`");
    Ok(match cursor.u32(what)? {
        t::U8 => MetadataValue::Integer(u8::from_le_bytes(cursor.array(what)?).into()),
        t::I8 => MetadataValue::Integer(i8::from_le_bytes(cursor.array(what)?).into()),
        t::U16 => MetadataValue::Integer(u16::from_le_bytes(cursor.array(what)?).into()),
        t::I16 => MetadataValue::Integer(i16::from_le_bytes(cursor.array(what)?).into()),
        t::U32 => MetadataValue::Integer(cursor.u32(what)?.into()),
        t::I32 => MetadataValue::Integer(i32::from_le_bytes(cursor.array(what)?).into()),
        t::U64 => MetadataValue::Integer(cursor.u64(what)?.into()),
        t::I64 => MetadataValue::Integer(i64::from_le_bytes(cursor.array(what)?).into()),
        t::F32 => MetadataValue::Float(shortest(f32::from_le_bytes(cursor.array(what)?))),
        t::F64 => MetadataValue::Float(f64::from_le_bytes(cursor.array(what)?)),
        t::BOOL => MetadataValue::Bool(read_bool(cursor, what)?),
        t::STRING => MetadataValue::Text(cursor.text(what)?),
        t::ARRAY => MetadataValue::Array(read_array(cursor, what, MAX_DEPTH)?),
        other => return Err(unknown_type(cursor, what, other)),
    })
}

/// An array: the type of its items, their number, the items.
fn read_array(
    cursor: &mut Cursor<'_>,
    what: &str,
    depth: u32,
) -> Result<MetadataArray, CheckpointError> {
    use value_type as t;
    Ok(match cursor.u32(what)? {
        t::U8 => MetadataArray::Unsigned(scalars(cursor, what, |b| u8::from_le_bytes(b).into())?),
        t::I8 => MetadataArray::Integers(scalars(cursor, what, |b| i8::from_le_bytes(b).into())?),
        t::U16 => MetadataArray::Unsigned(scalars(cursor, what, |b| u16::from_le_bytes(b).into())?),
        t::I16 => MetadataArray::Integers(scalars(cursor, what, |b| i16::from_le_bytes(b).into())?),
        t::U32 => MetadataArray::Unsigned(scalars(cursor, what, |b| u32::from_le_bytes(b).into())?),
        t::I32 => MetadataArray::Integers(scalars(cursor, what, |b| i32::from_le_bytes(b).into())?),
        t::U64 => MetadataArray::Unsigned(scalars(cursor, what, u64::from_le_bytes)?),
        t::I64 => MetadataArray::Integers(scalars(cursor, what, i64::from_le_bytes)?),
        t::F32 => MetadataArray::Floats(scalars(cursor, what, f32::from_le_bytes)?),
        t::F64 => MetadataArray::Doubles(scalars(cursor, what, f64::from_le_bytes)?),
        t::BOOL => MetadataArray::Bools(items(cursor, what, 1, |cursor| read_bool(cursor, what))?),
        t::STRING => MetadataArray::Texts(items(cursor, what, 8, |cursor| cursor.text(what))?),
        t::ARRAY if depth > 0 => MetadataArray::Arrays(items(cursor, what, 12, |cursor| {
            read_array(cursor, what, depth - 1)
        })?),
        t::ARRAY => {
            return Err(cursor.error(format!("{what}: arrays nested over {MAX_DEPTH} deep")));
        }
        other => return Err(unknown_type(cursor, what, other)),
    })
}

/// A count and as many items of at least `item_bytes` each.
fn items<T>(
    cursor: &mut Cursor<'_>,
    what: &str,
    item_bytes: u64,
    mut read: impl FnMut(&mut Cursor<'_>) -> Result<T, CheckpointError>,
) -> Result<Vec<T>, CheckpointError> {
    let count = cursor.count(item_bytes, what)?;
    let mut values = Vec::with_capacity(count.min(MOST_RESERVED));
    for _ in 0..count {
        values.push(read(cursor)?);
    }
    Ok(values)
}

/// A count and as many scalars of `SIZE` bytes.
fn scalars<const SIZE: usize, T>(
    cursor: &mut Cursor<'_>,
    what: &str,
    value: impl Fn([u8; SIZE]) -> T,
) -> Result<Vec<T>, CheckpointError> {
    items(cursor, what, SIZE as u64, |cursor| cursor.array(what).map(&value))
}

fn read_bool(cursor: &mut Cursor<'_>, what: &str) -> Result<bool, CheckpointError> {
    match cursor.array(what)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(cursor.error(format!("{what}: a bool is 0 or 1, got {other}"))),
    }
}

/// The binary64 with the shortest decimal of `value`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

fn unknown_type(cursor: &Cursor<'_>, what: &str, found: u32) -> CheckpointError {
    cursor.error(format!("{what}: unknown value type {found}; known are 0 to {}", value_type::F64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_file::ModelFile;

    #[test]
    fn floats_keep_their_decimal_and_their_bits() {
        for value in [1e-5f32, 1e-6, 100_000.0, 0.1, f32::MIN_POSITIVE, f32::MAX] {
            assert_eq!(shortest(value) as f32, value);
        }
        assert_eq!(shortest(1e-5), 1e-5);
        assert!(shortest(f32::NAN).is_nan());
    }

    #[test]
    fn a_count_the_file_cannot_hold_is_refused_before_it_is_used() {
        let mut bytes = value_type::U64.to_le_bytes().to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        let file = ModelFile::of_bytes(&bytes);
        let mut cursor = Cursor::new(&file);
        let error = read_array(&mut cursor, "metadata `x`", 1).expect_err("nothing follows");
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{error}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut bytes = Vec::new();
        for _ in 0..1000 {
            bytes.extend(value_type::ARRAY.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
        }
        let file = ModelFile::of_bytes(&bytes);
        let mut cursor = Cursor::new(&file);
        let error = read_array(&mut cursor, "metadata `x`", MAX_DEPTH).expect_err("too deep");
        assert!(error.to_string().contains("nested"), "{error}");
    }
}
