//! Rotary position embedding: frequencies, the rules that stretch them, and the table of a model.
//!
//! Frequencies and angles are computed in f32, step by step as `transformers` does, because its
//! models were trained and judged with those very angles.

use std::f64::consts::PI;

use bantam_backend::Rope;

use crate::arch::Rotary;
use crate::error::ModelError;

/// How frequencies were stretched for contexts longer than those of pre-training.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by `factor` (Chen et al. 2023, position interpolation).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// "Dynamic NTK": θ grows with contexts longer than `original`. The context that the model is
    /// loaded with decides, not the length of each sequence: stretching one that grows would change
    /// keys that are cached already, and a request's tokens would depend on what ran before it.
    Dynamic {
        /// How much longer contexts may be; θ grows by it.
        factor: f32,
        /// Context of pre-training, in tokens: up to it this is the plain embedding.
        original: usize,
    },
    /// Llama 3.1: long wavelengths divided, short ones kept, those between blended.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f32,
        /// Wavelengths above `original / low` are long.
        low_freq_factor: f32,
        /// Wavelengths below `original / high` are short.
        high_freq_factor: f32,
        /// Context of pre-training, in tokens.
        original: usize,
    },
    /// YaRN (Peng et al. 2023): a ramp between kept and divided frequencies, and longer vectors.
    Yarn(Yarn),
    /// LongRoPE (Ding et al. 2024): a divisor for each frequency, others for long contexts.
    LongRope(LongRope),
    /// A divisor for each frequency, `[rotary_dim/2]`: the tensor `rope_freqs.weight` of GGUF files.
    Divisors(Vec<f32>),
}

/// The parameters of LongRoPE. As with dynamic NTK, the context that the model is loaded with decides
/// which divisors serve.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// The divisors of contexts up to `original`, `[rotary_dim/2]`.
    pub short: Vec<f32>,
    /// Those of longer contexts.
    pub long: Vec<f32>,
    /// Context of pre-training, in tokens.
    pub original: usize,
    /// Factor on cosines and sines.
    pub attention_factor: f32,
}

/// The parameters of YaRN, under the names of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// The divisor of low frequencies, s.
    pub factor: f64,
    /// Context of pre-training, in tokens.
    pub original: usize,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which it is divided.
    pub beta_slow: f64,
    /// Factor on cosines and sines, √(1/t).
    pub attention_factor: f32,
    /// Whether the ramp starts and ends at whole dimensions.
    pub truncate: bool,
}

impl RopeScaling {
    /// Checks that the parameters make sense.
    pub(crate) fn validate(&self, rotary_dim: usize, file: &str) -> Result<(), ModelError> {
        let check = |key: &str, ok: bool, got: String, expected: &str| {
            if ok {
                return Ok(());
            }
            Err(ModelError::BadValue {
                file: file.to_owned(),
                key: format!("rope_scaling.{key}"),
                got,
                expected: expected.to_owned(),
            })
        };
        let at_least_one = |factor: f64| {
            let ok = factor.is_finite() && factor >= 1.0;
            check("factor", ok, factor.to_string(), "a number from 1")
        };
        let some_context = |original: usize| {
            let key = "original_max_position_embeddings";
            check(key, original > 0, original.to_string(), "a number of tokens")
        };
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => at_least_one(f64::from(*factor)),
            Self::Dynamic { factor, .. } => {
                at_least_one(f64::from(*factor))?;
                let got = rotary_dim.to_string();
                check("rope_type", rotary_dim > 2, got, "heads of more than 2 elements")
            }
            Self::LongRope(LongRope { short, long, original, attention_factor: scale }) => {
                for (key, divisors) in [("short_factor", short), ("long_factor", long)] {
                    let ok = are_divisors(divisors, rotary_dim);
                    let expected = format!("{} positive numbers", rotary_dim / 2);
                    check(key, ok, format!("a list of {}", divisors.len()), &expected)?;
                }
                some_context(*original)?;
                let ok = scale.is_finite() && *scale > 0.0;
                check("attention_factor", ok, scale.to_string(), "a number above 0")
            }
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                at_least_one(f64::from(*factor))?;
                some_context(*original)?;
                let (low, high) = (*low_freq_factor, *high_freq_factor);
                let ok = low > 0.0 && high > low && high.is_finite();
                let expected = format!("above `low_freq_factor`, {low}, itself above 0");
                check("high_freq_factor", ok, high.to_string(), &expected)
            }
            Self::Yarn(yarn) => {
                at_least_one(yarn.factor)?;
                some_context(yarn.original)?;
                let (fast, slow) = (yarn.beta_fast, yarn.beta_slow);
                let ok = slow > 0.0 && fast >= slow && fast.is_finite();
                let expected = format!("at least `beta_slow`, {slow}, itself above 0");
                check("beta_fast", ok, fast.to_string(), &expected)?;
                let scale = yarn.attention_factor;
                let ok = scale.is_finite() && scale > 0.0;
                check("attention_factor", ok, scale.to_string(), "a number above 0")
            }
            Self::Divisors(divisors) => {
                let ok = are_divisors(divisors, rotary_dim);
                let got = format!("{} divisors", divisors.len());
                let expected = format!("{} positive numbers in rope_freqs.weight", rotary_dim / 2);
                check("factors", ok, got, &expected)
            }
        }
    }

    /// The factor on cosines and sines.
    #[must_use]
    pub fn attention_factor(&self) -> f32 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor,
            Self::LongRope(rule) => rule.attention_factor,
            _ => 1.0,
        }
    }

    /// The longest context that has the frequencies of a short one; none if all contexts have.
    #[must_use]
    pub fn unstretched(&self) -> Option<usize> {
        match self {
            Self::Dynamic { original, .. } => Some(*original),
            Self::LongRope(rule) if rule.short != rule.long => Some(rule.original),
            _ => None,
        }
    }
}

/// Whether there is a divisor for each frequency.
fn are_divisors(divisors: &[f32], rotary_dim: usize) -> bool {
    divisors.len() == rotary_dim / 2 && divisors.iter().all(|d| d.is_finite() && *d > 0.0)
}

impl Rotary {
    /// Radians per position of each rotated pair, `[rotary_dim/2]`, in a context of so many tokens.
    ///
    /// ```
    /// use bantam_model::{RopeScaling, Rotary};
    /// use bantam_numerics::reference::RotaryPairs::HalfSplit;
    /// let scaling = RopeScaling::Linear { factor: 2.0 };
    /// let rotary = Rotary { rotary_dim: 4, pairs: HalfSplit, theta: 10_000.0, scaling };
    /// assert_eq!(rotary.frequencies(2048), [0.5, 0.005]);
    /// ```
    #[must_use]
    pub fn frequencies(&self, context: usize) -> Vec<f32> {
        let dim = self.rotary_dim;
        let mut theta = f64::from(self.theta);
        if let RopeScaling::Dynamic { factor, original } = self.scaling {
            let (factor, stretch) =
                (f64::from(factor), context.max(original) as f64 / original as f64);
            theta *= (factor * stretch - (factor - 1.0)).powf(dim as f64 / (dim as f64 - 2.0));
        }
        // θ^(2i/dim), rounded to f32 once; libraries differ by an ulp here.
        let bases = (0..dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            theta.powf(f64::from(exponent)) as f32
        });
        match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => bases.map(f32::recip).collect(),
            RopeScaling::Linear { factor } => bases.map(|base| base.recip() / factor).collect(),
            RopeScaling::LongRope(LongRope { short, long, original, .. }) => {
                let divisors = if context > *original { long } else { short };
                bases.zip(divisors).map(|(base, divisor)| (divisor * base).recip()).collect()
            }
            RopeScaling::Divisors(divisors) => {
                bases.zip(divisors).map(|(base, divisor)| base.recip() / divisor).collect()
            }
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let original = original as f32;
                let stretch = |frequency: f32| {
                    let wavelength = 2.0 * PI as f32 / frequency;
                    if wavelength > original / low_freq_factor {
                        return frequency / factor;
                    }
                    if wavelength < original / high_freq_factor {
                        return frequency;
                    }
                    let span = high_freq_factor - low_freq_factor;
                    let kept = (original / wavelength - low_freq_factor) / span;
                    (1.0 - kept) * frequency / factor + kept * frequency
                };
                bases.map(f32::recip).map(stretch).collect()
            }
            RopeScaling::Yarn(yarn) => {
                let (low, high) = yarn.ramp(dim, theta);
                let blend = |(i, base): (usize, f32)| {
                    let divided = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                    let kept = 1.0 - divided;
                    (yarn.factor as f32 * base).recip() * (1.0 - kept) + base.recip() * kept
                };
                bases.enumerate().map(blend).collect()
            }
        }
    }

    /// The table of cosines and sines for positions `0..positions`, which are the context.
    #[must_use]
    pub fn table(&self, positions: usize) -> Rope {
        let frequencies = self.frequencies(positions);
        let scale = self.scaling.attention_factor();
        let entries = positions * frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        for position in 0..positions {
            for &frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32 * scale);
                sin.push(angle.sin() as f32 * scale);
            }
        }
        Rope { rotary_dim: self.rotary_dim, pairs: self.pairs, cos, sin }
    }

    /// Bytes of such a table.
    #[must_use]
    pub fn table_bytes(&self, positions: usize) -> u64 {
        (positions * self.rotary_dim * size_of::<f32>()) as u64
    }
}

impl Yarn {
    /// Where the ramp starts and ends, as indices of frequencies (YaRN §3.2).
    fn ramp(&self, dim: usize, theta: f64) -> (f32, f32) {
        let index_of = |rotations: f64| {
            dim as f64 * (self.original as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (index_of(self.beta_fast), index_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
        if low == high {
            high += 0.001; // a step: the slope would be infinite
        }
        (low as f32, high as f32)
    }
}
