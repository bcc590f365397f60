//! The header of a safetensors file.
//!
//! A file is the length of its header (u64, little-endian), the header (JSON: name → dtype, shape,
//! data_offsets), and the data. The rules are those of the reference implementation (safetensors
//! 0.8), which the tests hold this reader against; it is read here because the reference keeps only
//! the last of two entries of one name, and its errors name neither tensor nor sizes.

use std::collections::HashSet;
use std::fmt;

use bantam_numerics::{DType, Encoding};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::CheckpointError;
use crate::model_file::ModelFile;
use crate::tensor::{RowOrder, TensorEntry, checked_size};

/// The largest header the reference implementation accepts.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes of the header's length.
pub(crate) const LENGTH_BYTES: usize = 8;

/// The way out of a file whose data and header disagree.
const WRITE_AGAIN: &str = "write the file again with save_file of the safetensors library";

/// A number of bytes in words.
fn in_bytes(count: usize) -> String {
    format!("{count} {}", if count == 1 { "byte" } else { "bytes" })
}

/// The dtypes read, by the names of the format.
const DTYPES: [(&str, DType); 12] = [
    ("F64", DType::F64),
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("F8_E4M3", DType::F8E4M3),
    ("F8_E5M2", DType::F8E5M2),
    ("I64", DType::I64),
    ("I32", DType::I32),
    ("I16", DType::I16),
    ("I8", DType::I8),
    ("U8", DType::U8),
    ("BOOL", DType::Bool),
];

/// What the format calls a type of elements.
pub(crate) fn dtype_name(dtype: DType) -> &'static str {
    let named = DTYPES.iter().find(|(_, known)| *known == dtype);
    named.expect("the table has every type").0
}

/// The type that the format calls so.
pub(crate) fn dtype_named(name: &str) -> Option<DType> {
    DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}

/// Reads the tensors that a file describes; `file_number` goes into each of them.
pub(crate) fn read_header(
    file: &ModelFile,
    file_number: usize,
) -> Result<Vec<TensorEntry>, CheckpointError> {
    let header_error =
        |problem| CheckpointError::Header { file: file.path().to_path_buf(), problem };
    let (header, data_start) = split_header(file)?;
    let Header(described) = serde_json::from_slice(&header)
        .map_err(|error| header_error(format!("safetensors header: {error}")))?;
    check_unique(file, &described)?;
    let mut tensors = described
        .into_iter()
        .map(|(name, description)| check(file, file_number, data_start, name, description))
        .collect::<Result<Vec<_>, _>>()?;
    check_coverage(file, data_start, &mut tensors)?;
    Ok(tensors)
}

/// The JSON bytes of the header, and where the data starts.
fn split_header(file: &ModelFile) -> Result<(Vec<u8>, usize), CheckpointError> {
    let truncated = |what: &str, needed| CheckpointError::Truncated {
        file: file.path().to_path_buf(),
        what: what.to_owned(),
        needed,
        got: file.length() as u64,
    };
    if file.length() < LENGTH_BYTES {
        return Err(truncated("the header length", LENGTH_BYTES as u128));
    }
    let mut length = [0; LENGTH_BYTES];
    file.read_into(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(CheckpointError::Header {
            file: file.path().to_path_buf(),
            problem: format!(
                "not a safetensors file: its first {LENGTH_BYTES} bytes give a header of {length} \
                 bytes, at most {MAX_HEADER_BYTES} are possible; fetch it again"
            ),
        });
    }
    let end = LENGTH_BYTES + length as usize;
    if file.length() < end {
        return Err(truncated("the safetensors header", end as u128));
    }
    Ok((file.read(LENGTH_BYTES..end)?, end))
}

/// Holds one description against the file.
fn check(
    file: &ModelFile,
    file_number: usize,
    data_start: usize,
    name: String,
    description: Description,
) -> Result<TensorEntry, CheckpointError> {
    let Description { dtype, shape, data_offsets: (begin, end) } = description;
    let tensor_error = |problem| CheckpointError::Tensor {
        file: file.path().to_path_buf(),
        tensor: name.clone(),
        problem,
    };
    let encoding = dtype_named(&dtype).map(Encoding::Scalar).ok_or_else(|| {
        let supported: Vec<_> = DTYPES.iter().map(|(known, _)| *known).collect();
        tensor_error(format!(
            "dtype {dtype} is not supported; store it as one of {}",
            supported.join(", ")
        ))
    })?;
    let (_, size) = checked_size(&shape, encoding).map_err(tensor_error)?;
    if end.checked_sub(begin) != Some(size) {
        return Err(tensor_error(format!(
            "{dtype} of shape {shape:?} takes {}, but its data_offsets are [{begin}, {end}]; \
             {WRITE_AGAIN}",
            in_bytes(size)
        )));
    }
    if end > file.length() - data_start {
        return Err(CheckpointError::Truncated {
            file: file.path().to_path_buf(),
            what: format!("tensor `{name}`"),
            needed: data_start as u128 + end as u128,
            got: file.length() as u64,
        });
    }
    Ok(TensorEntry {
        name,
        shape,
        encoding,
        row_order: RowOrder::Plain,
        file: file_number,
        bytes: data_start + begin..data_start + end,
    })
}

/// The tensors must cover the data without overlap, hole or rest.
fn check_coverage(
    file: &ModelFile,
    data_start: usize,
    tensors: &mut [TensorEntry],
) -> Result<(), CheckpointError> {
    tensors.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
    let mut covered = data_start;
    for tensor in &*tensors {
        if tensor.bytes.start != covered {
            let overlaps = tensor.bytes.start < covered;
            return Err(CheckpointError::Tensor {
                file: file.path().to_path_buf(),
                tensor: tensor.name.clone(),
                problem: format!(
                    "starts at data byte {} and {} the tensor before, which ends at {}; \
                     {WRITE_AGAIN}",
                    tensor.bytes.start - data_start,
                    if overlaps { "overlaps" } else { "leaves a hole after" },
                    covered - data_start
                ),
            });
        }
        covered = tensor.bytes.end;
    }
    let rest = file.length() - covered;
    if rest > 0 {
        let problem =
            format!("{} after the last tensor belong to none; fetch it again", in_bytes(rest));
        return Err(CheckpointError::Header { file: file.path().to_path_buf(), problem });
    }
    Ok(())
}

/// No name may be described twice: which description counts would be a guess.
fn check_unique(
    file: &ModelFile,
    described: &[(String, Description)],
) -> Result<(), CheckpointError> {
    let mut seen = HashSet::new();
    match described.iter().find(|(name, _)| !seen.insert(name)) {
        None => Ok(()),
        Some((name, _)) => Err(CheckpointError::Tensor {
            file: file.path().to_path_buf(),
            tensor: name.clone(),
            problem: format!("described twice in the header; {WRITE_AGAIN}"),
        }),
    }
}

/// The header's entries in file order, entries of equal names kept.
struct Header(Vec<(String, Description)>);

/// One entry of the header.
#[derive(Deserialize)]
struct Description {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Header, M::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        let description = map
                            .next_value()
                            .map_err(|error| M::Error::custom(format!("`{name}`: {error}")))?;
                        entries.push((name, description));
                    }
                }
                Ok(Header(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
