//! How much accuracy a recipe is expected to cost: published figures where there are some, else a
//! class.
//!
//! Classes are those of NVIDIA's guide to TensorRT-LLM's methods, and so are most figures: the share
//! of MMLU's score that models from 7 to 180 billion parameters lost. Smaller models lose more and
//! are judged by SmolLM2-135M's rise of perplexity, as `docs/reference/accuracy.md` has it.

use std::fmt;

use bantam_backend::KvFormat;
use bantam_numerics::{ActivationFormat, ScaleBlock, WeightFormat};
use serde::Serialize;

use crate::{FactorMethod, RoundMethod, Treatment};

/// Loss of accuracy in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossClass {
    /// Up to 1 %.
    VeryLow,
    /// Up to 2.5 %.
    Low,
    /// Up to 6 %.
    Medium,
    /// More.
    High,
}

impl LossClass {
    /// The class of a loss in percent: where the guide's classes and its figures agree.
    #[must_use]
    pub fn of(percent: f64) -> Self {
        match percent {
            p if p <= 1.0 => Self::VeryLow,
            p if p <= 2.5 => Self::Low,
            p if p <= 6.0 => Self::Medium,
            _ => Self::High,
        }
    }

    /// What a speed-up at this loss counts for, where no limit of the loss was asked for.
    #[must_use]
    pub fn worth(self) -> f64 {
        match self {
            Self::VeryLow => 1.0,
            Self::Low => 0.9,
            Self::Medium => 0.8,
            Self::High => 0.5,
        }
    }
}

impl fmt::Display for LossClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VeryLow => "very low",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

/// Where a loss is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossBasis {
    /// Nothing is changed.
    Exact,
    /// Measured on this model: rise of perplexity.
    Measured,
    /// Published for models of this size: share of MMLU's score.
    Mmlu,
    /// Measured on SmolLM2-135M: rise of perplexity.
    Smollm2,
    /// The class that the guide gives the method, high if it gives none; there is no figure.
    Class,
}

/// A loss of accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// In words.
    pub class: LossClass,
    /// In percent, from the least to the most that is known; none without a figure.
    pub percent: Option<(f64, f64)>,
    /// Where it is known from.
    pub basis: LossBasis,
}

impl Loss {
    /// That of a model left as it is.
    pub const NONE: Self =
        Self { class: LossClass::VeryLow, percent: Some((0.0, 0.0)), basis: LossBasis::Exact };

    /// Nobody knows.
    pub(super) const UNKNOWN: Self =
        Self { class: LossClass::High, percent: None, basis: LossBasis::Class };

    /// The most that is expected, in percent.
    #[must_use]
    pub fn most(&self) -> Option<f64> {
        self.percent.map(|(_, most)| most)
    }

    /// The rise of perplexity that was measured, in percent.
    #[must_use]
    pub fn measured(percent: f64) -> Self {
        let class = LossClass::of(percent);
        Self { class, percent: Some((percent, percent)), basis: LossBasis::Measured }
    }

    /// Losses that come together.
    fn and(self, other: Self) -> Self {
        if self.basis == LossBasis::Exact {
            return other;
        }
        let percent = match (self.percent, other.percent) {
            (Some(a), Some(b)) => Some((a.0 + b.0, a.1 + b.1)),
            // What is very low is within the range that figures leave.
            (known, None) if other.class == LossClass::VeryLow => known,
            _ => None,
        };
        let class = percent.map_or(self.class.max(other.class), |(_, most)| LossClass::of(most));
        Self { class, percent, ..self }
    }

    /// The loss that a model of so many parameters is expected to suffer.
    pub(super) fn expected(treatments: &[Treatment], kv: KvFormat, parameters: u64) -> Self {
        let billions = parameters as f64 / 1e9;
        let methods = treatments.iter().map(|treatment| method(treatment).loss(billions));
        // Of several methods, the one that loses most.
        let key = |loss: &Self| loss.most().unwrap_or_default();
        let weights = methods.max_by(|a, b| a.class.cmp(&b.class).then(key(a).total_cmp(&key(b))));
        let cache = match kv {
            KvFormat::F32 | KvFormat::BF16 => Self::NONE,
            KvFormat::Fp8 => FP8_CACHE.loss(billions),
            KvFormat::Int8 => INT8_CACHE.loss(billions),
        };
        weights.unwrap_or(Self::NONE).and(cache)
    }
}

/// A published loss.
struct Figure {
    /// Billions of parameters.
    billions: f64,
    /// Share of MMLU's score that was lost.
    percent: f64,
}

const fn figure(billions: f64, percent: f64) -> Figure {
    Figure { billions, percent }
}

/// A method of quantization, by what is known of its losses.
struct Method {
    /// Where there is no figure.
    class: LossClass,
    mmlu: &'static [Figure],
    /// Rise of SmolLM2-135M's perplexity in percent.
    smollm2: Option<f64>,
}

/// Models below so many billions of parameters are judged by SmolLM2-135M.
const SMALL: f64 = 2.0;
/// Models from so many on keep more than those below.
const LARGE: f64 = 20.0;

impl Method {
    /// What a model of so many parameters is expected to lose.
    fn loss(&self, billions: f64) -> Loss {
        let (percent, basis) = if billions < SMALL {
            (self.smollm2.map(|percent| (percent, percent)), LossBasis::Smollm2)
        } else {
            let large = self.range(|figure| figure.billions >= LARGE);
            let medium = self.range(|figure| figure.billions < LARGE);
            // What smaller models lose is a bound for larger ones, but not the other way round.
            (if billions < LARGE { medium } else { large.or(medium) }, LossBasis::Mmlu)
        };
        match percent {
            Some((_, most)) => Loss { class: LossClass::of(most), percent, basis },
            // The guide is about larger models.
            None if billions < SMALL => Loss::UNKNOWN,
            None => Loss { class: self.class, percent, basis: LossBasis::Class },
        }
    }

    fn range(&self, counts: impl Fn(&Figure) -> bool) -> Option<(f64, f64)> {
        let percents = self.mmlu.iter().filter(|figure| counts(figure)).map(|f| f.percent);
        let ranges = percents.map(|percent| (percent, percent));
        ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// Falcon-180B, Falcon-40B, Llama-2-70B, MPT-30B (TensorRT-LLM), Llama-3-8B and -70B, Llama-3.1-8B and
/// -70B (Model Optimizer), Baichuan2-13B (Baichuan).
const FP8: &[Figure] = &[
    figure(180.0, 0.14),
    figure(40.0, 0.89),
    figure(70.0, 0.87),
    figure(30.0, 0.21),
    figure(8.0, 0.46),
    figure(70.0, 0.51),
    figure(8.0, 1.50),
    figure(70.0, 0.38),
    figure(13.0, 0.9),
];

/// The same.
const AWQ: &[Figure] = &[
    figure(180.0, 0.85),
    figure(40.0, 1.07),
    figure(70.0, 1.01),
    figure(30.0, 2.11),
    figure(8.0, 4.60),
    figure(70.0, 1.29),
    figure(8.0, 5.66),
    figure(70.0, 1.07),
    figure(13.0, 1.94),
];

const INT8_WO: Method = Method {
    class: LossClass::Low,
    // Baichuan2-13B base and chat, an INT8 cache included.
    mmlu: &[figure(13.0, 0.22), figure(13.0, 0.30)],
    smollm2: Some(0.331),
};
const INT8_SQ: Method = Method {
    class: LossClass::Medium,
    mmlu: &[figure(180.0, 2.56), figure(40.0, 2.50), figure(70.0, 2.75), figure(30.0, 1.47)],
    smollm2: Some(1.44),
};
/// INT8 activations beside weights that no factors prepared; the guide does not have it.
const INT8_PLAIN: Method = Method { class: LossClass::High, mmlu: &[], smollm2: None };
const FP8_TENSOR: Method = Method { class: LossClass::VeryLow, mmlu: FP8, smollm2: Some(2.28) };
/// Finer scales lose less: the figures of one scale a matrix are a bound.
const FP8_CHANNEL: Method = Method { class: LossClass::VeryLow, mmlu: FP8, smollm2: Some(2.60) };
const FP8_BLOCK: Method = Method { class: LossClass::VeryLow, mmlu: FP8, smollm2: Some(2.96) };
const INT4_WO: Method = Method { class: LossClass::High, mmlu: &[], smollm2: Some(28.4) };
const INT4_AWQ: Method = Method { class: LossClass::Low, mmlu: AWQ, smollm2: Some(17.4) };
/// The guide puts it beside AWQ, and so are AWQ's figures.
const INT4_GPTQ: Method = Method { class: LossClass::Low, mmlu: AWQ, smollm2: Some(13.8) };
const W4A8_FP8: Method = Method {
    class: LossClass::Low,
    mmlu: &[figure(8.0, 6.00), figure(70.0, 1.20), figure(13.0, 3.35)],
    smollm2: Some(21.1),
};
/// The guide does not have it.
const W4A8_INT8: Method = Method { class: LossClass::High, mmlu: &[], smollm2: Some(13.3) };
const FP8_CACHE: Method = Method { class: LossClass::VeryLow, mmlu: &[], smollm2: Some(0.72) };
const INT8_CACHE: Method = Method { class: LossClass::VeryLow, mmlu: &[], smollm2: Some(0.08) };

/// The method of a treatment.
fn method(treatment: &Treatment) -> &'static Method {
    let activation = treatment.scheme.activation;
    let prepared = treatment.factors != FactorMethod::Nothing;
    match (treatment.scheme.weight, activation) {
        (WeightFormat::F32 | WeightFormat::BF16, _) => &INT8_WO, // no recipe has them
        (WeightFormat::Int8 { .. }, ActivationFormat::Int8) => {
            if prepared {
                &INT8_SQ
            } else {
                &INT8_PLAIN
            }
        }
        (WeightFormat::Int8 { .. }, _) => &INT8_WO,
        (WeightFormat::Fp8 { block: ScaleBlock::TENSOR }, _) => &FP8_TENSOR,
        (WeightFormat::Fp8 { block: ScaleBlock::SQUARE }, _) => &FP8_BLOCK,
        (WeightFormat::Fp8 { .. }, _) => &FP8_CHANNEL,
        (WeightFormat::Int4 { .. }, ActivationFormat::Int8) => &W4A8_INT8,
        (WeightFormat::Int4 { .. }, ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks) => {
            &W4A8_FP8
        }
        (WeightFormat::Int4 { .. }, ActivationFormat::F32 | ActivationFormat::BF16) => {
            match treatment.round {
                RoundMethod::Gptq => &INT4_GPTQ,
                _ if prepared || treatment.round == RoundMethod::Clip => &INT4_AWQ,
                _ => &INT4_WO,
            }
        }
    }
}
