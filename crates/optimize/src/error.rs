//! Why a layer cannot be optimized.

use bantam_backend::BackendError;
use bantam_numerics::{QuantizeError, WeightFormat};

/// Why a layer cannot be optimized.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptimizeError {
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

impl OptimizeError {
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
