//! Everything that can be wrong with model files.

use std::path::PathBuf;

use bantam_numerics::DecodeError;
use thiserror::Error;

/// Why a model could not be found, opened or read. Every message is one line that names the file
/// and, where there is one, the tensor.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The path does not exist.
    #[error(
        "{}: no such file or folder; pass a folder with config.json and *.safetensors, \
         or a .gguf file",
        path.display()
    )]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A folder or file that holds no weights in a known format.
    #[error(
        "{}: no model weights; looked for model.safetensors, model.safetensors.index.json, \
         another *.safetensors or *.gguf, found {found}",
        path.display()
    )]
    NoWeights {
        /// The folder or file.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A folder with several models.
    #[error("{}: several models here, pass one of them: {}", folder.display(), files.join(", "))]
    SeveralModels {
        /// The folder.
        folder: PathBuf,
        /// The names of the model files in it.
        files: Vec<String>,
    },
    /// A single file of a folder was given where the folder is needed, or the folder lacks a file.
    #[error("{}: {problem}", path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A file that should hold JSON does not, or the wrong kind.
    #[error("{}: not the JSON expected: {reason}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where reading stopped and why.
        reason: String,
    },
    /// A file ends before what its header announces.
    #[error(
        "{}: truncated: {what} needs {needed} bytes, the file has {got}; fetch it again",
        file.display()
    )]
    Truncated {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        what: String,
        /// Bytes the file must have at least.
        needed: u128,
        /// Bytes the file has.
        got: u64,
    },
    /// A header that breaks the rules of its format.
    #[error("{}: {problem}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What, got and expected.
        problem: String,
    },
    /// A tensor whose description breaks the rules of its format.
    #[error("{}: tensor `{tensor}`: {problem}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name as the file has it.
        tensor: String,
        /// What, got and expected.
        problem: String,
    },
    /// A tensor that the checkpoint does not hold.
    #[error("{}: no tensor `{name}`; nearest: {}", path.display(), nearest.join(", "))]
    UnknownTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The most similar names it does hold.
        nearest: Vec<String>,
    },
    /// A GGUF file of a network whose tensor names are not known here.
    #[error(
        "{}: GGUF architecture `{architecture}` is not supported; supported: {supported}",
        file.display()
    )]
    UnsupportedArchitecture {
        /// The file.
        file: PathBuf,
        /// `general.architecture` of the file.
        architecture: String,
        /// The architectures that are.
        supported: String,
    },
    /// A GGUF metadata entry that is missing, of another type, or of a value that is not supported.
    #[error("{}: metadata `{key}`: {problem}", file.display())]
    Metadata {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What, got and expected.
        problem: String,
    },
    /// A folder without a tokenizer that can be read.
    #[error(
        "{}: no tokenizer; looked for tokenizer.json, found {found}; write one with \
         AutoTokenizer.from_pretrained(..).save_pretrained(..) of transformers",
        folder.display()
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// Related files that are there.
        found: String,
    },
    /// Rows that a tensor does not have, or an output of another size.
    #[error(
        "{}: tensor `{tensor}`: rows {start}..{end} of {rows} into {got} values; \
         they take {expected}",
        file.display()
    )]
    RowRange {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// First row asked for.
        start: usize,
        /// The row after the last asked for.
        end: usize,
        /// Rows of the tensor.
        rows: usize,
        /// Length of the output given.
        got: usize,
        /// Length the output must have.
        expected: usize,
    },
    /// Bytes that could not be decoded.
    #[error("{}: tensor `{tensor}`: {source}", file.display())]
    Decode {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the decoder said.
        source: DecodeError,
    },
    /// A model name that no route led to.
    #[error("cannot find model `{name}`: {}; pass a local folder or .gguf path", tried.join("; "))]
    Unresolved {
        /// The name asked for.
        name: String,
        /// Each route tried and why it failed.
        tried: Vec<String>,
    },
}
