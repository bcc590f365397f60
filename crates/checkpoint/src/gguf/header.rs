//! The header of a GGUF file: metadata and tensor descriptions, checked against the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bantam_numerics::{BlockType, DType, Encoding};

use super::cursor::Cursor;
use super::metadata::Metadata;
use crate::CheckpointError;
use crate::tensor::{RowOrder, TensorEntry, checked_size};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];
/// `general.alignment` where the file does not give one.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The most dimensions a GGML tensor has.
const MAX_DIMENSIONS: u32 = 4;
/// Bytes of the shortest metadata pair: key length, value type, one byte.
const MIN_PAIR_BYTES: u64 = 8 + 4 + 1;
/// Bytes of the shortest tensor description: name length, dimensions, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// GGML type numbers of plain scalars.
const SCALAR_TYPES: [(u32, DType); 8] = [
    (0, DType::F32),
    (1, DType::F16),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::BF16),
];

/// What a file's header says. Tensors have their GGUF names, in file order.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorEntry>,
}

impl Header {
    /// Reads the header in one pass over `bytes`, the whole file.
    pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut cursor = Cursor::new(file, bytes);
        check_magic_and_version(&mut cursor)?;
        let tensor_count = cursor.count(MIN_TENSOR_BYTES, "the tensor list")?;
        let pair_count = cursor.count(MIN_PAIR_BYTES, "the metadata")?;
        let metadata = Metadata::read(&mut cursor, file, pair_count)?;
        let mut descriptions = Vec::with_capacity(tensor_count);
        for _ in 0..tensor_count {
            descriptions.push(Description::read(&mut cursor, file)?);
        }

        let alignment = alignment(&metadata)?;
        let data_start = (cursor.position() as u64).next_multiple_of(alignment);
        let mut tensors = descriptions
            .into_iter()
            .map(|description| description.check(file, bytes, data_start, alignment))
            .collect::<Result<Vec<_>, _>>()?;
        check_overlap(file, &mut tensors)?;
        Ok(Self { metadata, tensors })
    }
}

/// Whether a regular file begins as GGUF files do, whatever its name. A pipe is not opened: that
/// could hang.
pub(crate) fn has_magic(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    let is_file = std::fs::metadata(path).is_ok_and(|information| information.is_file());
    is_file
        && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && &magic == MAGIC
}

fn check_magic_and_version(cursor: &mut Cursor<'_>) -> Result<(), CheckpointError> {
    let magic: [u8; 4] = cursor.array("the magic")?;
    if &magic != MAGIC {
        let found = magic.escape_ascii();
        return Err(cursor.error(format!("not a GGUF file: begins with \"{found}\"")));
    }
    let version = cursor.u32("the version")?;
    if VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(cursor.error(if VERSIONS.contains(&version.swap_bytes()) {
        "big-endian GGUF; only little-endian files are read".to_owned()
    } else {
        format!("GGUF version {version}; versions 2 and 3 are read")
    }))
}

fn alignment(metadata: &Metadata) -> Result<u64, CheckpointError> {
    const KEY: &str = "general.alignment";
    const MAX: u64 = 1 << 20;
    let alignment = metadata.integer(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= MAX {
        return Ok(alignment);
    }
    Err(metadata.error(KEY, format!("is {alignment}, expected a power of two up to {MAX}")))
}

/// A tensor description as the file has it.
struct Description {
    name: String,
    /// Outermost dimension first; the file has the innermost first.
    shape: Vec<u64>,
    ggml_type: u32,
    /// From the start of the data.
    offset: u64,
}

impl Description {
    fn read(cursor: &mut Cursor<'_>, file: &Path) -> Result<Self, CheckpointError> {
        let name = cursor.text("a tensor name")?.to_owned();
        let what = &format!("the description of tensor `{name}`");
        let dimensions = cursor.u32(what)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(CheckpointError::Tensor {
                file: file.to_path_buf(),
                tensor: name,
                problem: format!("{dimensions} dimensions, at most {MAX_DIMENSIONS}"),
            });
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.insert(0, cursor.u64(what)?);
        }
        let ggml_type = cursor.u32(what)?;
        let offset = cursor.u64(what)?;
        Ok(Self { name, shape, ggml_type, offset })
    }

    /// Holds the description against the file.
    fn check(
        self,
        file: &Path,
        bytes: &[u8],
        data_start: u64,
        alignment: u64,
    ) -> Result<TensorEntry, CheckpointError> {
        let tensor_error = |problem| CheckpointError::Tensor {
            file: file.to_path_buf(),
            tensor: self.name.clone(),
            problem,
        };
        let encoding = encoding_of(self.ggml_type).ok_or_else(|| {
            let id = self.ggml_type;
            tensor_error(format!(
                "GGML type {id} is not supported; supported: {}",
                supported_types()
            ))
        })?;
        if self.shape.contains(&0) {
            return Err(tensor_error(format!("shape {:?} has a dimension of 0", self.shape)));
        }
        let shape = self
            .shape
            .iter()
            .map(|&dimension| usize::try_from(dimension))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| tensor_error(format!("shape {:?} is too large", self.shape)))?;
        let (_, size) = checked_size(&shape, encoding).map_err(tensor_error)?;
        if !self.offset.is_multiple_of(alignment) {
            let offset = self.offset;
            return Err(tensor_error(format!(
                "offset {offset} is not a multiple of the alignment {alignment}"
            )));
        }
        let start = u128::from(data_start) + u128::from(self.offset);
        let end = start + size as u128;
        if end > bytes.len() as u128 {
            return Err(CheckpointError::Truncated {
                file: file.to_path_buf(),
                what: format!("tensor `{}`", self.name),
                needed: end,
                got: bytes.len() as u64,
            });
        }
        Ok(TensorEntry {
            name: self.name,
            shape,
            encoding,
            row_order: RowOrder::Plain,
            file: 0,
            bytes: start as usize..end as usize,
        })
    }
}

fn encoding_of(ggml_type: u32) -> Option<Encoding> {
    let scalar = SCALAR_TYPES.iter().find(|(id, _)| *id == ggml_type);
    scalar
        .map(|&(_, dtype)| Encoding::Scalar(dtype))
        .or_else(|| BlockType::from_ggml_type(ggml_type).map(Encoding::Block))
}

/// Type numbers and names for the message about another type.
fn supported_types() -> String {
    let scalars = SCALAR_TYPES.iter().map(|(id, dtype)| format!("{id} {dtype}"));
    let blocks = BlockType::ALL.iter().map(|block| format!("{} {block}", block.ggml_type()));
    scalars.chain(blocks).collect::<Vec<_>>().join(", ")
}

/// Refuses tensors that share bytes; `tensors` comes back in the order of their data.
fn check_overlap(file: &Path, tensors: &mut [TensorEntry]) -> Result<(), CheckpointError> {
    tensors.sort_by_key(|tensor| tensor.bytes.start);
    match tensors.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end) {
        None => Ok(()),
        Some(pair) => Err(CheckpointError::Tensor {
            file: file.to_path_buf(),
            tensor: pair[1].name.clone(),
            problem: format!("overlaps the data of tensor `{}`", pair[0].name),
        }),
    }
}
