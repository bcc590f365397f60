//! Post-training quantization: calibration statistics, and one file for each algorithm.
//!
//! Everything here is a function of the weight of one *site*, the linear layers that read one input
//! stacked along N (q, k, v; attention out; gate and up; down), and of what calibration remembers of
//! that input, its [`InputStatistics`]. Matrix products run on any
//! [`Backend`](bantam_backend::Backend); loops over rows run on all processors.

pub mod advice;
mod awq;
mod calibration;
mod calibrators;
mod channel_factors;
mod clip;
mod collect;
mod disk;
mod error;
mod factor_search;
mod feedback;
mod fold;
mod format_search;
mod gptq;
mod gram;
mod histogram;
mod matrix;
mod memory;
mod mixed_precision;
mod outliers;
mod output;
mod output_error;
mod pipeline;
mod plan;
mod product;
mod recipe;
pub mod report;
mod rounding;
mod sample;
mod smoothquant;
mod state;
mod statistics;
mod treat;
mod trial;

pub use awq::{AwqOptions, awq};
pub use calibration::{Calibration, CalibrationOptions, CalibrationText};
pub use calibrators::Calibrator;
pub use channel_factors::ChannelTies;
pub use clip::clip;
pub use error::{OptimizeError, RecipeError};
pub use factor_search::{FactorFormula, FactorSearch, FactorTrial};
pub use format_search::{FormatSearch, FoundFormats};
pub use gptq::{ColumnOrder, Gptq, GptqOptions, GroupScales, gptq};
pub use gram::Gram;
pub use histogram::Histogram;
pub use matrix::WeightMatrix;
pub use mixed_precision::{Choice, choose_formats};
pub use outliers::{Outliers, RangeVerdict, STATIC_RATIO, outliers};
pub use output::{OutputFolder, partial_folder};
pub use output_error::OutputError;
pub use pipeline::{Job, Progress, Stage};
pub use plan::QuantizationPlan;
pub use recipe::{
    ActivationKind, AutoFormats, FactorMethod, FormatScore, GroupChoice, KvKind, LayerPatterns,
    Recipe, RoundMethod, Rule, ScaleChoice, Treatment, WeightKind,
};
pub use report::Report;
pub use rounding::{RangeRule, Rounding, ScalePrecision, round_to_nearest};
pub use sample::TokenSample;
pub use smoothquant::{ActivationScale, SmoothQuantOptions, smoothquant};
pub use statistics::{InputStatistics, StatisticsCollector, StatisticsOptions};
pub use trial::Trial;
