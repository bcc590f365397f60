//! The header of a GGUF file: metadata and tensor descriptions, checked against the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bantam_numerics::{BlockType, DType, Encoding};

use super::cursor::Cursor;
use super::metadata::Metadata;
use crate::CheckpointError;
use crate::model_file::ModelFile;
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

/// Items that space is reserved for before they are read: a count may be wrong in a large file.
pub(super) const MOST_RESERVED: usize = 1 << 16;

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

/// GGML types that are not read, and what they are called: the formats below 4 bits whose levels are
/// in large tables, formats of runs and not of files, and those that are no more (ggml.h).
const UNREAD_TYPES: [(u32, &str); 18] = [
    (4, "Q4_2, which GGML has removed"),
    (5, "Q4_3, which GGML has removed"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4, which GGML has removed (Q4_0 takes its place)"),
    (32, "Q4_0_4_8, which GGML has removed (Q4_0 takes its place)"),
    (33, "Q4_0_8_8, which GGML has removed (Q4_0 takes its place)"),
    (36, "IQ4_NL_4_4, which GGML has removed (IQ4_NL takes its place)"),
    (37, "IQ4_NL_4_8, which GGML has removed (IQ4_NL takes its place)"),
    (38, "IQ4_NL_8_8, which GGML has removed (IQ4_NL takes its place)"),
    (41, "Q1_0"),
];

/// What a file's header says. Tensors have their GGUF names, in file order.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorEntry>,
}

impl Header {
    /// Reads the header in one pass.
    pub(crate) fn parse(file: &ModelFile) -> Result<Self, CheckpointError> {
        let mut cursor = Cursor::new(file);
        let (file, length) = (file.path(), file.length());
        check_magic_and_version(&mut cursor)?;
        let tensor_count = cursor.count(MIN_TENSOR_BYTES, "the tensor list")?;
        let pair_count = cursor.count(MIN_PAIR_BYTES, "the metadata")?;
        let metadata = Metadata::read(&mut cursor, file, pair_count)?;
        let mut descriptions = Vec::with_capacity(tensor_count.min(MOST_RESERVED));
        for _ in 0..tensor_count {
            descriptions.push(Description::read(&mut cursor, file)?);
        }

        let alignment = alignment(&metadata)?;
        let data_start = (cursor.position() as u64).next_multiple_of(alignment);
        let mut tensors = descriptions
            .into_iter()
            .map(|description| description.check(file, length, data_start, alignment))
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
        "big-endian GGUF; only little-endian files are read, convert it with gguf_convert_endian.py \
         of llama.cpp"
            .to_owned()
    } else {
        let way_out = match version {
            1 => "convert the model again, or fetch a newer file of it",
            _ => "fetch another file of the model",
        };
        format!("GGUF version {version}; versions 2 and 3 are read; {way_out}")
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
        let name = cursor.text("a tensor name")?;
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
        length: usize,
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
            let named = UNREAD_TYPES.iter().find(|(number, _)| *number == id);
            let kind = match named {
                Some((_, name)) => format!("stored as {name} (GGML type {id}), which is not read"),
                None => format!("GGML type {id} is not known"),
            };
            tensor_error(format!(
                "{kind}; use a file of the same model in one of {}",
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
        if end > length as u128 {
            return Err(CheckpointError::Truncated {
                file: file.to_path_buf(),
                what: format!("tensor `{}`", self.name),
                needed: end,
                got: length as u64,
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
