//! Why a layer cannot be optimized.

use std::path::{Path, PathBuf};

use bantam_backend::BackendError;
use bantam_checkpoint::{CheckpointError, printable};
use bantam_model::ModelError;
use bantam_numerics::{QuantizeError, WeightFormat};

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It is not TOML of the right form.
    #[error("recipe {}: {source}", printable(recipe))]
    Toml {
        /// Its name.
        recipe: String,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// Parts of a rule do not go together.
    #[error(
        "recipe {}, rule for `{}`: {key} is {got}, expected {expected}",
        printable(recipe),
        printable(layers)
    )]
    Rule {
        /// The recipe's name.
        recipe: String,
        /// The rule's pattern.
        layers: String,
        /// The key.
        key: &'static str,
        /// What it says.
        got: String,
        /// What would work.
        expected: &'static str,
    },
    /// The choice of formats cannot be made.
    #[error("recipe {}, [auto]: {key} is {got}, expected {expected}", printable(recipe))]
    Auto {
        /// The recipe's name.
        recipe: String,
        /// The key.
        key: &'static str,
        /// What it says.
        got: String,
        /// What would work.
        expected: &'static str,
    },
}

/// Why a model or a layer cannot be optimized.
#[derive(Debug, thiserror::Error)]
pub enum OptimizeError {
    /// A model that cannot be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A disk without room for what a run writes.
    #[error(
        "{}: {} MiB of disk are needed and {} MiB are free; make room, or give a folder on another \
         disk with --output",
        folder.display(),
        needed.div_ceil(1 << 20),
        free >> 20
    )]
    DiskFull {
        /// The folder to write.
        folder: PathBuf,
        /// Bytes that the run takes at most.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file beside the checkpoint.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// What happened in a block.
    #[error("block {block}: {source}")]
    Block {
        /// Its number, from 0.
        block: usize,
        /// What happened.
        source: Box<OptimizeError>,
    },
    /// The output exists.
    #[error("{} exists; choose another folder, or remove it", folder.display())]
    FolderExists {
        /// The folder.
        folder: PathBuf,
    },
    /// An earlier run stopped.
    #[error(
        "{} is left of a run that was stopped; add --resume to go on, or remove it to start anew",
        folder.display()
    )]
    Unfinished {
        /// Its working folder.
        folder: PathBuf,
    },
    /// Another process writes the output.
    #[error(
        "{} is being written by {}; wait until it is done, or give another folder with --output",
        folder.display(),
        process.map_or("another run".to_owned(), |process| format!("a run, process {process}"))
    )]
    Busy {
        /// Its working folder.
        folder: PathBuf,
        /// The process, if it is known.
        process: Option<u32>,
    },
    /// The working folder's name is taken by something else.
    #[error(
        "{} is there and holds no run that could go on; give another folder with --output, or \
         remove it",
        folder.display()
    )]
    NotARun {
        /// The folder.
        folder: PathBuf,
    },
    /// What an earlier run left cannot be used.
    #[error("{}: {problem}; remove the folder to start anew", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The model is quantized already.
    #[error(
        "{} is quantized already ({}); give the original model, whose weights are in 16 or 32 bits",
        printable(model),
        printable(method)
    )]
    AlreadyQuantized {
        /// The model.
        model: String,
        /// What its configuration says.
        method: String,
    },
    /// A recipe that changes nothing.
    #[error("recipe {} changes nothing: no rule matches a layer of this model", printable(recipe))]
    NothingToDo {
        /// The recipe's name.
        recipe: String,
    },
    /// Layers that read one input would be treated differently.
    #[error(
        "recipe {}: {} and {} read one input, but different rules; let one rule match both",
        printable(recipe),
        printable(first),
        printable(other)
    )]
    SplitSite {
        /// The recipe's name.
        recipe: String,
        /// A module.
        first: String,
        /// Another.
        other: String,
    },
    /// A group size that does not divide a layer.
    #[error(
        "{}: its {k} input features are no whole groups of {group}; use --group {}",
        printable(module),
        fitting(*k)
    )]
    Group {
        /// The module.
        module: String,
        /// Its input features.
        k: usize,
        /// The group asked for.
        group: usize,
    },
    /// Nothing to calibrate with.
    #[error("recipe {} needs calibration text; give --calibration FILE", printable(recipe))]
    NoCalibration {
        /// The recipe's name.
        recipe: String,
    },
    /// Calibration text that cannot be read.
    #[error("calibration text {}: {problem}", printable(source_name))]
    Calibration {
        /// The file, and the line.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
    /// A weight that is not a finite matrix, or that a format's groups do not divide.
    #[error(transparent)]
    Weight(#[from] QuantizeError),
    /// A refusal of the back end.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Two lengths that must agree do not.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// What was given.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length needed.
        expected: usize,
    },
    /// A calibration input is NaN or infinite.
    #[error(
        "calibration input [token {token}, channel {channel}] is {value}; the layers before \
         overflowed, so calibrate in bf16 or f32, or check the checkpoint"
    )]
    NonFiniteInput {
        /// Row since the first.
        token: usize,
        /// Input feature.
        channel: usize,
        /// The value found.
        value: f32,
    },
    /// Statistics of nothing.
    #[error("no token reached this layer in calibration; give more or longer samples")]
    NoTokens,
    /// A statistic that was not collected.
    #[error("{algorithm} needs {statistic}, which was not collected; ask for it in the options")]
    MissingStatistic {
        /// What needs it.
        algorithm: &'static str,
        /// What is missing.
        statistic: &'static str,
    },
    /// A Gram matrix that holds NaN or infinity.
    #[error(
        "the Gram matrix at [{row}, {column}] is {value}; inputs as large as this overflow f32, \
         so leave this layer in 16 bits"
    )]
    NonFiniteGram {
        /// Channel.
        row: usize,
        /// Channel.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A Gram matrix that no damping makes positive definite.
    #[error(
        "the Gram matrix is not positive definite even with a damping of {damping}; calibrate with \
         more tokens, or round this layer to nearest"
    )]
    NotPositiveDefinite {
        /// The last damping tried, as a share of the mean of the diagonal.
        damping: f64,
    },
    /// A format without scales given to an algorithm that fits them.
    #[error("{algorithm} fits scales, but {format} has none; use an int8, int4 or fp8 format")]
    NoScales {
        /// The algorithm.
        algorithm: &'static str,
        /// The format given.
        format: WeightFormat,
    },
    /// An option outside its range.
    #[error("{option} is {got}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        got: String,
        /// What would work.
        expected: String,
    },
    /// A size limit that even the smallest choice exceeds.
    #[error("{asked:.3} bits a weight are too few: the cheapest choice takes {cheapest:.3}")]
    Budget {
        /// Effective bits asked for.
        asked: f64,
        /// Effective bits of the smallest choice.
        cheapest: f64,
    },
}

/// The usual group sizes that divide `k`, in words.
fn fitting(k: usize) -> String {
    let sizes = bantam_numerics::quantize::GROUP_SIZES;
    let sizes = sizes.into_iter().filter(|size| k.is_multiple_of(*size));
    let sizes: Vec<_> = sizes.map(|size| size.to_string()).chain(["auto".to_owned()]).collect();
    sizes.join(" or ")
}

impl OptimizeError {
    /// What happened to a file.
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path: path.clone(), source }
    }

    /// Checks that `what` has `expected` values.
    pub(crate) fn check_length(
        what: &'static str,
        got: usize,
        expected: usize,
    ) -> Result<(), Self> {
        if got == expected { Ok(()) } else { Err(Self::Length { what, got, expected }) }
    }

    /// Checks that an option is in a range.
    pub(crate) fn check_range(
        option: &'static str,
        got: f64,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<(), Self> {
        if range.contains(&got) {
            return Ok(());
        }
        let expected = format!("{} to {}", range.start(), range.end());
        Err(Self::Option { option, got: got.to_string(), expected })
    }
}
