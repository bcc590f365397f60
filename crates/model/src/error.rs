//! Every way in which this crate refuses.

use bantam_backend::BackendError;
use bantam_checkpoint::{CheckpointError, printable};
use bantam_numerics::QuantizeError;

/// Why a model could not be described, loaded or run. Each message is one line with the way out;
/// control characters in text from files are escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `model_type` is not in the table of families.
    #[error(
        "{}: model_type `{}` is not supported; supported: {supported}",
        printable(file),
        printable(model_type)
    )]
    UnknownModelType {
        /// The configuration file.
        file: String,
        /// The type found.
        model_type: String,
        /// The types in the table.
        supported: String,
    },
    /// The configuration lacks a key that has no default.
    #[error(
        "{}: `{key}` is missing; a model of type {} needs it",
        printable(file),
        printable(model_type)
    )]
    MissingKey {
        /// The configuration file.
        file: String,
        /// The key, with dots for nesting.
        key: String,
        /// The model type.
        model_type: String,
    },
    /// The configuration holds a value that cannot be right.
    #[error("{}: `{key}` is {}, expected {expected}", printable(file), printable(got))]
    BadValue {
        /// The configuration file.
        file: String,
        /// The key, with dots for nesting.
        key: String,
        /// The value found.
        got: String,
        /// What would do.
        expected: String,
    },
    /// The network is described, but a part of it is not executed yet.
    #[error("{} is not executed yet; {way_out}", printable(what))]
    NotExecuted {
        /// The part.
        what: String,
        /// What would work.
        way_out: &'static str,
    },
    /// A load option that cannot be honoured.
    #[error("the {option} is {got}, expected {expected}")]
    BadOption {
        /// The option in words, with that of the command line if there is one.
        option: String,
        /// The value given.
        got: String,
        /// What would do.
        expected: String,
    },
    /// The group size does not divide the input size of a layer.
    #[error(
        "{layer}: input size {k} does not split into groups of {group}, a multiple of 4; use {way_out}"
    )]
    Group {
        /// The stored layer.
        layer: String,
        /// Input features.
        k: usize,
        /// The group asked for.
        group: usize,
        /// The option that would work.
        way_out: String,
    },
    /// The model does not fit into the memory allowed.
    #[error("{what} {needed}, {left} of the {budget} of memory are left; {way_out}")]
    OverBudget {
        /// The part that does not fit, with its verb.
        what: &'static str,
        /// What it needs, in words.
        needed: String,
        /// What the whole may take, in words.
        budget: String,
        /// What is left for it, in words.
        left: String,
        /// Options that would fit.
        way_out: String,
    },
    /// A scale of the key/value cache is of no use.
    #[error(
        "{}: `{}` is {got}, expected one positive number; without both scales of a layer they are \
         found for each token",
        printable(file),
        printable(tensor)
    )]
    KvScale {
        /// The checkpoint.
        file: String,
        /// The tensor.
        tensor: String,
        /// What it holds.
        got: String,
    },
    /// The checkpoint lacks a tensor of the network.
    #[error(
        "{}: no tensor `{tensor}`, expected {expected:?}; nearest: {}",
        printable(file),
        printable(nearest)
    )]
    MissingTensor {
        /// The checkpoint.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// The tensors most like it.
        nearest: String,
    },
    /// A tensor's shape contradicts the configuration.
    #[error("{}: tensor `{tensor}` has shape {got:?}, expected {expected}", printable(file))]
    TensorShape {
        /// The file that holds it.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        got: Vec<usize>,
        /// Its shape by the configuration, and the keys that say so.
        expected: String,
    },
    /// The checkpoint holds tensors that the network would not read.
    #[error(
        "{}: {count} {} that model_type `{model_type}` does not read: {}; {reason}; what is not \
         needed can be left out with --allow-unread '{}'",
        printable(file),
        if *count == 1 { "tensor" } else { "tensors" },
        printable(names),
        printable(names.split(", ").next().unwrap_or_default())
    )]
    UnreadTensors {
        /// The checkpoint.
        file: String,
        /// How many.
        count: usize,
        /// The model type.
        model_type: &'static str,
        /// The first of them.
        names: String,
        /// What they are, or why that matters.
        reason: &'static str,
    },
    /// A tied head that is stored all the same, and differs.
    #[error(
        "{}: `{head}` differs from `{embedding}` in row {row}, but `tie_word_embeddings` is \
         true; set it to false in config.json to use both, or give --allow-unread '{head}' to use the \
         embedding for both, as transformers does",
        printable(file)
    )]
    UntiedHead {
        /// The checkpoint.
        file: String,
        /// The head's tensor.
        head: String,
        /// The embedding's tensor.
        embedding: String,
        /// The first row that differs.
        row: usize,
    },
    /// Layers that read one input were quantized for different ones.
    #[error(
        "{}: these read one input, but ask different things of it; give them the same number \
         format, activation scale and channel factors",
        printable(modules)
    )]
    UnlikeParts {
        /// Their modules.
        modules: String,
    },
    /// A tensor's values cannot be used.
    #[error("{}: tensor `{}`: {source}", printable(file), printable(tensor))]
    Values {
        /// The file that holds it.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong with them.
        source: QuantizeError,
    },
    /// A step that the model cannot run.
    #[error("batch: {what} is {got}, expected {expected}")]
    Batch {
        /// The quantity.
        what: String,
        /// What was given.
        got: u64,
        /// What would do.
        expected: String,
    },
    /// The files could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
