//! What an optimization did, for people and machines.

use serde::{Deserialize, Serialize};

use crate::FormatScore;

/// Everything that is known of a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The recipe's name.
    pub recipe: String,
    /// The model that was quantized.
    pub model: String,
    /// The format of the written checkpoint.
    pub dialect: String,
    /// What the layers saw in calibration; none if no recipe needed it.
    pub calibration: Option<CalibrationReport>,
    /// Bytes of all tensors before.
    pub original_bytes: u64,
    /// Bytes of all tensors after.
    pub quantized_bytes: u64,
    /// Seconds that quantizing took, evaluation not counted.
    pub seconds: f64,
    /// What a user should know.
    pub notes: Vec<String>,
    /// How the formats of layers were chosen; none if the recipe says them.
    #[serde(default)]
    pub formats: Option<FormatReport>,
    /// One for each linear layer, or those that read one input together.
    pub sites: Vec<SiteReport>,
    /// Scales of the key/value cache, one for each layer.
    pub kv_scales: Vec<KvScales>,
    /// The quantized model beside the original on a text that calibration did not see.
    pub accuracy: Option<Accuracy>,
}

/// What the layers saw in calibration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// Where the text came from.
    pub source: String,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of all sequences.
    pub tokens: usize,
}

/// The linear layers that read one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Their modules.
    pub modules: Vec<String>,
    /// N, output features of all.
    pub n: usize,
    /// K, input features.
    pub k: usize,
    /// What they are stored in; none if they stay.
    pub scheme: Option<String>,
    /// Bytes as stored; 0 if they stay.
    pub bytes: u64,
    /// Squared error of their outputs as a share of the squared outputs, weights rounded to nearest.
    pub error_of_nearest: Option<f64>,
    /// The same, weights as they were stored.
    pub error: Option<f64>,
    /// How factors on the input's channels were found; none if there are none.
    pub factors: Option<String>,
    /// The calibrated scale of the input.
    pub static_scale: Option<f32>,
    /// The largest magnitude of the input, over that of a usual token.
    pub outlier_ratio: Option<f32>,
    /// GPTQ's damping, as a share of the mean of the Gram matrix's diagonal.
    pub damping: Option<f64>,
}

impl SiteReport {
    pub(crate) fn new(modules: Vec<String>, n: usize, k: usize) -> Self {
        Self {
            modules,
            n,
            k,
            scheme: None,
            bytes: 0,
            error_of_nearest: None,
            error: None,
            factors: None,
            static_scale: None,
            outlier_ratio: None,
            damping: None,
        }
    }
}

/// How the formats of layers were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatReport {
    /// Bits a weight that were allowed.
    pub bits_asked: f64,
    /// Bits a weight of what was chosen, scales included.
    pub bits: f64,
    /// What formats were compared by.
    pub score: FormatScore,
    /// Seconds that the choice took.
    pub seconds: f64,
    /// What could be chosen, in the order that layers run.
    pub sites: Vec<SiteFormats>,
}

/// What could be chosen for the linear layers that read one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteFormats {
    /// Their modules.
    pub modules: Vec<String>,
    /// Their weights.
    pub weights: u64,
    /// The choices; the first is to keep them.
    pub choices: Vec<FormatChoice>,
    /// Which was taken.
    pub chosen: usize,
}

/// A format and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatChoice {
    /// The candidate recipe; none to keep the weights.
    pub recipe: Option<String>,
    /// The format.
    pub scheme: String,
    /// Bits of all weights, scales included.
    pub bits: u64,
    /// See [`FormatScore`].
    pub score: f64,
}

/// Calibrated scales of one layer's cache: a stored code times its scale is a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvScales {
    /// Of keys.
    pub key: f32,
    /// Of values.
    pub value: f32,
}

/// The quantized model beside the original, on the same text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// What the text was.
    pub text: String,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Perplexity of the original.
    pub original_perplexity: f64,
    /// Perplexity of the quantized model.
    pub quantized_perplexity: f64,
    /// Mean Kullback-Leibler divergence of the next token, nats.
    pub kl: f64,
    /// Share of tokens whose most likely next token is the same.
    pub top1_agreement: f64,
}
