//! A folder of safetensors shards, written as a stream.
//!
//! A shard's header is first left blank and filled in when the shard is full: the format allows spaces
//! behind the header's JSON. Readers want each tensor aligned to its elements, and the format has no
//! holes: tensors whose bytes are no multiple of eight wait for the end of their shard, those of wide
//! elements first. While the folder is being written no file of it has a name that a reader would take
//! for a model; [`ShardWriter::finish`] gives the final names, the index last.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bantam_numerics::{DType, Encoding};
use half::bf16;
use serde_json::{Map, Value, json};

use crate::mmap::MappedFile;
use crate::safetensors::{self, LENGTH_BYTES};
use crate::tensor::checked_size;
use crate::{CheckpointError, RowOrder, TensorView};

/// Bytes kept for the header of a shard: some thousand tensors. A shard that needs more is closed.
const HEADER_ROOM: usize = 128 << 10;
/// The widest element.
const ALIGNMENT: usize = 8;
/// The index of a folder with several shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// How names end while the folder is written: shards that are complete, and the one that is not.
const SEALED: &str = "safetensors.part";
const OPEN: &str = "safetensors.tmp";

/// A tensor in memory, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedTensor {
    /// Its Hugging Face name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The elements, little-endian.
    pub bytes: Vec<u8>,
}

/// Writes tensors into a folder of safetensors shards as they come, without holding them in memory.
///
/// ```
/// use bantam_checkpoint::{Checkpoint, ShardWriter};
/// use bantam_numerics::DType;
///
/// let folder = std::env::temp_dir().join(format!("bantam-doc-{}", std::process::id()));
/// let mut writer = ShardWriter::create(&folder, 5 << 30)?;
/// writer.push("norm.weight", DType::F32, &[2], &[0, 0, 128, 63, 0, 0, 0, 64])?;
/// std::fs::write(folder.join("config.json"), "{}").expect("the folder was just made");
/// writer.finish()?;
/// assert_eq!(Checkpoint::open(&folder)?.tensor("norm.weight")?.to_f32()?, [1.0, 2.0]);
/// # std::fs::remove_dir_all(&folder).expect("the folder was just made");
/// # Ok::<(), bantam_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    max_shard_bytes: u64,
    /// The tensors of each complete shard: name and bytes.
    sealed: Vec<Vec<(String, u64)>>,
    open: Option<Shard>,
    names: HashSet<String>,
}

/// The shard that tensors go into.
#[derive(Debug)]
struct Shard {
    file: BufWriter<File>,
    header: Map<String, Value>,
    /// Upper bound of the header's JSON.
    header_bytes: usize,
    /// Bytes of the tensors in the file.
    written_bytes: u64,
    /// Tensors that would leave the next one unaligned.
    waiting: Vec<OwnedTensor>,
    /// All tensors, those that wait included: name and bytes.
    tensors: Vec<(String, u64)>,
}

impl ShardWriter {
    /// Bytes of a shard that are not its tensors.
    pub const SHARD_OVERHEAD: u64 = HEADER_ROOM as u64;

    /// Makes the folder. A shard is closed before it would exceed `max_shard_bytes`, unless a single
    /// tensor does.
    ///
    /// # Errors
    /// If the path exists or cannot be made.
    pub fn create(folder: &Path, max_shard_bytes: u64) -> Result<Self, CheckpointError> {
        if folder.exists() {
            return Err(CheckpointError::Exists { path: folder.to_path_buf() });
        }
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        Ok(Self::empty(folder, max_shard_bytes))
    }

    /// Goes on in a folder that was left unfinished: what was [sealed](Self::seal) is kept, and
    /// [`holds`](Self::holds) tells of it.
    ///
    /// # Errors
    /// If the folder is finished, is none, or holds a damaged shard.
    pub fn resume(folder: &Path, max_shard_bytes: u64) -> Result<Self, CheckpointError> {
        let finished = [INDEX, "model.safetensors"].map(|name| folder.join(name));
        if let Some(path) = finished.into_iter().find(|path| path.exists()) {
            return Err(CheckpointError::Exists { path });
        }
        let mut writer = Self::empty(folder, max_shard_bytes);
        fs::metadata(folder).map_err(io_error(folder))?;
        loop {
            let path = writer.path(writer.sealed.len(), SEALED);
            if !path.exists() {
                return Ok(writer);
            }
            let entries = safetensors::read_header(&MappedFile::open(&path)?, 0)?;
            let tensors = entries.into_iter().map(|tensor| {
                writer.names.insert(tensor.name.clone());
                (tensor.name, tensor.bytes.len() as u64)
            });
            let tensors = tensors.collect();
            writer.sealed.push(tensors);
        }
    }

    fn empty(folder: &Path, max_shard_bytes: u64) -> Self {
        let (folder, sealed, names) = (folder.to_path_buf(), Vec::new(), HashSet::new());
        Self { folder, max_shard_bytes, sealed, open: None, names }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a tensor of this name was pushed, before a [`resume`](Self::resume) included.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Appends a tensor.
    ///
    /// # Errors
    /// If the name was pushed before, the bytes are not those of the shape, or writing fails.
    pub fn push(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        let refuse = |problem: String| CheckpointError::Tensor {
            file: self.folder.clone(),
            tensor: name.to_owned(),
            problem,
        };
        let (_, expected) = checked_size(shape, Encoding::Scalar(dtype)).map_err(refuse)?;
        if bytes.len() != expected {
            let got = bytes.len();
            let problem = format!("{got} bytes to write, {shape:?} of {dtype} takes {expected}");
            return Err(refuse(problem));
        }
        if self.names.contains(name) {
            return Err(refuse("written before; each name may be written once".to_owned()));
        }
        let entry_bytes = entry_bytes(name, shape);
        let full = self.open.as_ref().is_some_and(|shard| {
            shard.data_bytes() + bytes.len() as u64 > self.max_shard_bytes
                || shard.header_bytes + entry_bytes > HEADER_ROOM - LENGTH_BYTES
        });
        if full {
            self.seal()?;
        }
        let path = self.path(self.sealed.len(), OPEN);
        let failed = io_error(&path);
        let shard = match &mut self.open {
            Some(shard) => shard,
            none => none.insert(Shard::create(&path).map_err(&failed)?),
        };
        shard.header_bytes += entry_bytes;
        shard.tensors.push((name.to_owned(), bytes.len() as u64));
        if bytes.len().is_multiple_of(ALIGNMENT) {
            shard.write(name, dtype, shape, bytes).map_err(&failed)?;
        } else {
            let (name, shape) = (name.to_owned(), shape.to_vec());
            shard.waiting.push(OwnedTensor { name, dtype, shape, bytes: bytes.to_vec() });
        }
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// Appends a tensor made here.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_owned(&mut self, tensor: &OwnedTensor) -> Result<(), CheckpointError> {
        self.push(&tensor.name, tensor.dtype, &tensor.shape, &tensor.bytes)
    }

    /// Appends a tensor of another checkpoint, bit for bit. What a GGUF file stores in blocks or with
    /// rows in another order is decoded: matrices to bf16, vectors to f32.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn copy(&mut self, tensor: &TensorView<'_>) -> Result<(), CheckpointError> {
        if let (Encoding::Scalar(dtype), RowOrder::Plain) = (tensor.encoding, tensor.row_order) {
            return self.push(tensor.name, dtype, tensor.shape, tensor.bytes());
        }
        let values = tensor.to_f32()?;
        if tensor.shape.len() < 2 {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return self.push(tensor.name, DType::F32, tensor.shape, &bytes);
        }
        let round = |value: &f32| bf16::from_f32(*value).to_le_bytes();
        let bytes: Vec<u8> = values.iter().flat_map(round).collect();
        self.push(tensor.name, DType::BF16, tensor.shape, &bytes)
    }

    /// Bytes that [`copy`](Self::copy) writes.
    #[must_use]
    pub fn copied_bytes(tensor: &TensorView<'_>) -> u64 {
        if let (Encoding::Scalar(_), RowOrder::Plain) = (tensor.encoding, tensor.row_order) {
            return tensor.bytes().len() as u64;
        }
        let elements: usize = tensor.shape.iter().product();
        (elements * if tensor.shape.len() < 2 { 4 } else { 2 }) as u64
    }

    /// Closes the open shard, so that what was pushed outlives the process; a
    /// [`resume`](Self::resume) goes on behind it.
    ///
    /// # Errors
    /// If writing fails.
    pub fn seal(&mut self) -> Result<(), CheckpointError> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        let number = self.sealed.len();
        let path = self.path(number, OPEN);
        let tensors = shard.close().map_err(io_error(&path))?;
        fs::rename(&path, self.path(number, SEALED)).map_err(io_error(&path))?;
        self.sealed.push(tensors);
        Ok(())
    }

    /// Gives the shards their final names and writes the index. Write all other files before: now the
    /// folder is a model. Returns the bytes of all tensors.
    ///
    /// # Errors
    /// If nothing was pushed, or writing fails.
    pub fn finish(mut self) -> Result<u64, CheckpointError> {
        self.seal()?;
        let count = self.sealed.len();
        if count == 0 {
            let path = self.folder;
            let problem = "no tensors to write".to_owned();
            return Err(CheckpointError::Layout { path, problem });
        }
        let total: u64 = self.sealed.iter().flatten().map(|(_, bytes)| bytes).sum();
        let mut weight_map = Map::new();
        for (number, tensors) in self.sealed.iter().enumerate() {
            let name = match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let (from, to) = (self.path(number, SEALED), self.folder.join(&name));
            fs::rename(&from, &to).map_err(io_error(&from))?;
            weight_map.extend(tensors.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
        }
        if count > 1 {
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            super::write_json(&self.folder.join(INDEX), &index)?;
        }
        Ok(total)
    }

    fn path(&self, number: usize, ending: &str) -> PathBuf {
        self.folder.join(format!("model-{:05}.{ending}", number + 1))
    }
}

impl Shard {
    fn create(path: &Path) -> std::io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&[b' '; HEADER_ROOM])?;
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let (waiting, tensors) = (Vec::new(), Vec::new());
        Ok(Self { file, header, header_bytes: 64, written_bytes: 0, waiting, tensors })
    }

    /// Bytes of all its tensors.
    fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, bytes)| bytes).sum()
    }

    fn write(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
    ) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        let start = self.written_bytes;
        self.written_bytes += bytes.len() as u64;
        let entry = json!({
            "dtype": safetensors::dtype_name(dtype),
            "shape": shape,
            "data_offsets": [start, self.written_bytes],
        });
        self.header.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Writes what waits and fills in the header; the tensors of the shard.
    fn close(mut self) -> std::io::Result<Vec<(String, u64)>> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bytes()));
        for tensor in &waiting {
            self.write(&tensor.name, tensor.dtype, &tensor.shape, &tensor.bytes)?;
        }
        let mut file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let header = Value::Object(self.header).to_string();
        assert!(header.len() <= HEADER_ROOM - LENGTH_BYTES, "the bound of entries holds");
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&((HEADER_ROOM - LENGTH_BYTES) as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        file.sync_all()?;
        Ok(self.tensors)
    }
}

/// Bytes that a tensor takes in a header at most: names of types are short, and numbers have 20 digits.
fn entry_bytes(name: &str, shape: &[usize]) -> usize {
    json!(name).to_string().len() + json!(shape).to_string().len() + 100
}

/// An error about a path.
fn io_error(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path: path.clone(), source }
}
