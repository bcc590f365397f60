//! Every way in which this crate refuses.

use bantam_backend::BackendError;
use bantam_checkpoint::CheckpointError;
use bantam_numerics::QuantizeError;

/// Why a model could not be described, loaded or run. Each message is one line with the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `model_type` is not in the table of families.
    #[error("{file}: model_type `{model_type}` is not supported; supported: {supported}")]
    UnknownModelType {
        /// The configuration file.
        file: String,
        /// The type found.
        model_type: String,
        /// The types in the table.
        supported: String,
    },
    /// The configuration lacks a key that has no default.
    #[error("{file}: `{key}` is missing; a model of type {model_type} needs it")]
    MissingKey {
        /// The configuration file.
        file: String,
        /// The key, with dots for nesting.
        key: String,
        /// The model type.
        model_type: String,
    },
    /// The configuration holds a value that cannot be right.
    #[error("{file}: `{key}` is {got}, expected {expected}")]
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
    #[error("{what} is not executed yet; {way_out}")]
    NotExecuted {
        /// The part.
        what: String,
        /// What would work.
        way_out: &'static str,
    },
    /// A load option that cannot be honoured.
    #[error("{option} is {got}, expected {expected}")]
    BadOption {
        /// The option as the command line names it.
        option: &'static str,
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
    #[error("{what} {needed}, budget leaves {left}; {way_out}")]
    OverBudget {
        /// The part that does not fit, with its verb.
        what: &'static str,
        /// What it needs, in words.
        needed: String,
        /// What is left for it, in words.
        left: String,
        /// Options that would fit.
        way_out: String,
    },
    /// The checkpoint lacks a tensor of the network.
    #[error("{file}: no tensor `{tensor}`, expected {expected:?}; nearest: {nearest}")]
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
    #[error("{file}: tensor `{tensor}` has shape {got:?}, expected {expected}")]
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
        "{file}: {count} tensors that model_type `{model_type}` does not read: {names}; \
             running without them would give wrong results"
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
    },
    /// A tied head that is stored all the same, and differs.
    #[error(
        "{file}: `{head}` differs from `{embedding}` in row {row}, but `tie_word_embeddings` is \
         true; set it to false in config.json to use both"
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
    /// A tensor's values cannot be used.
    #[error("{file}: tensor `{tensor}`: {source}")]
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
