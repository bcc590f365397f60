//! Everything that can be wrong with model files.

use std::path::PathBuf;

use bantam_numerics::DecodeError;
use thiserror::Error;

use crate::printable;

/// Why a model could not be found, opened or read. Every message is one line that names the file
/// and, where there is one, the tensor; control characters in names are escaped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The path does not exist.
    #[error(
        "{}: no such file or folder; pass a folder with config.json and *.safetensors, \
         or a .gguf file",
        printable(path.display())
    )]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// The operating system refused a file.
    #[error("{}: {source}", printable(path.display()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A folder or file that holds no weights in a known format.
    #[error(
        "{}: no model weights; looked for model.safetensors, model.safetensors.index.json, \
         another *.safetensors or *.gguf, found {}",
        printable(path.display()),
        printable(found)
    )]
    NoWeights {
        /// The folder or file.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A folder with several models.
    #[error(
        "{}: several models here, pass one of them: {}",
        printable(folder.display()),
        printable(files.join(", "))
    )]
    SeveralModels {
        /// The folder.
        folder: PathBuf,
        /// The names of the model files in it.
        files: Vec<String>,
    },
    /// A single file of a folder was given where the folder is needed, or the folder lacks a file.
    #[error("{}: {}", printable(path.display()), printable(problem))]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A file that should hold JSON does not, or the wrong kind.
    #[error("{}: not the JSON expected: {}", printable(file.display()), printable(reason))]
    Json {
        /// The file.
        file: PathBuf,
        /// Where reading stopped and why.
        reason: String,
    },
    /// A file ends before what its header announces.
    #[error(
        "{}: truncated: {} needs {needed} bytes, the file has {got}; fetch it again",
        printable(file.display()),
        printable(what)
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
    /// A file that is not what it was when it was opened.
    #[error(
        "{}: written to while it was being read: it had {before} bytes when it was opened and has \
         {now}; wait until it is complete, and start again",
        printable(file.display())
    )]
    Changed {
        /// The file.
        file: PathBuf,
        /// Bytes it had when it was opened.
        before: u64,
        /// Bytes it has.
        now: u64,
    },
    /// A header that breaks the rules of its format.
    #[error("{}: {}", printable(file.display()), printable(problem))]
    Header {
        /// The file.
        file: PathBuf,
        /// What, got and expected.
        problem: String,
    },
    /// A tensor whose description breaks the rules of its format.
    #[error(
        "{}: tensor `{}`: {}",
        printable(file.display()),
        printable(tensor),
        printable(problem)
    )]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name as the file has it.
        tensor: String,
        /// What, got and expected.
        problem: String,
    },
    /// A tensor that the checkpoint does not hold.
    #[error(
        "{}: no tensor `{}`; nearest: {}",
        printable(path.display()),
        printable(name),
        printable(nearest.join(", "))
    )]
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
        "{}: GGUF architecture `{}` is not supported; supported: {supported}",
        printable(file.display()),
        printable(architecture)
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
    #[error(
        "{}: metadata `{}`: {}",
        printable(file.display()),
        printable(key),
        printable(problem)
    )]
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
        "{}: no tokenizer; looked for tokenizer.json, found {}; write one with \
         AutoTokenizer.from_pretrained(..).save_pretrained(..) of transformers",
        printable(folder.display()),
        printable(found)
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// Related files that are there.
        found: String,
    },
    /// Rows that a tensor does not have, or an output of another size.
    #[error(
        "{}: tensor `{}`: rows {start}..{end} of {rows} into {got} values; \
         they take {expected}",
        printable(file.display()),
        printable(tensor)
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
    #[error("{}: tensor `{}`: {source}", printable(file.display()), printable(tensor))]
    Decode {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the decoder said.
        source: DecodeError,
    },
    /// A model name that no route led to.
    #[error(
        "cannot find model `{}`: {}; pass a local folder or .gguf path",
        printable(name),
        printable(tried.join("; "))
    )]
    Unresolved {
        /// The name asked for.
        name: String,
        /// Each route tried and why it failed.
        tried: Vec<String>,
    },
    /// The name of a data set that led nowhere.
    #[error(
        "cannot find data set `{}`: {}; pass the folder that holds it",
        printable(name),
        printable(tried.join("; "))
    )]
    NoDataSet {
        /// The name asked for.
        name: String,
        /// Each route tried and why it failed.
        tried: Vec<String>,
    },
    /// An output path that is taken.
    #[error("{}: exists; choose another output folder or remove it", printable(path.display()))]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// A configuration of quantized weights that is damaged or not supported.
    #[error("{}: {}", printable(file.display()), printable(problem))]
    Quantization {
        /// The configuration file.
        file: PathBuf,
        /// What, got and what is supported.
        problem: String,
    },
    /// A quantized layer that an output format has no words for.
    #[error("{}: {format} checkpoints cannot hold {what}; {way_out}", printable(module))]
    Inexpressible {
        /// The linear layer.
        module: String,
        /// The output format.
        format: &'static str,
        /// What it cannot hold.
        what: String,
        /// What would work.
        way_out: String,
    },
}
