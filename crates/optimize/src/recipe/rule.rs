//! A rule of a recipe: which layers, and what to do to them.

use std::fmt;

use bantam_numerics::quantize::GROUP_SIZES;
use bantam_numerics::{ActivationFormat, Group, QuantScheme, ScaleBlock, WeightFormat};
use serde::{Deserialize, Serialize};

use super::{ActivationKind, FactorMethod, GroupChoice, RoundMethod, ScaleChoice, WeightKind};
use crate::RecipeError;

/// What to do to the layers whose names match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which layers.
    pub layers: LayerPatterns,
    /// How weights are stored.
    pub weights: WeightKind,
    /// Weights along K that share a scale; integers of 4 bits only.
    #[serde(default)]
    pub group: GroupChoice,
    /// Whether groups have no offset; integers of 4 bits only.
    #[serde(default)]
    pub symmetric: bool,
    /// How the layer reads its input.
    #[serde(default)]
    pub activations: ActivationKind,
    /// Where the scale of the input comes from.
    #[serde(default)]
    pub scale: ScaleChoice,
    /// Factors on the input's channels, folded into the layers before.
    #[serde(default)]
    pub factors: FactorMethod,
    /// How weights become codes.
    #[serde(default)]
    pub round: RoundMethod,
}

/// Module names, or one; `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LayerPatterns {
    /// `layers = "*.down_proj"`.
    One(String),
    /// `layers = ["*.q_proj", "*.k_proj"]`.
    Several(Vec<String>),
}

impl LayerPatterns {
    pub(super) fn match_module(&self, module: &str) -> bool {
        match self {
            Self::One(pattern) => matches(pattern, module),
            Self::Several(patterns) => patterns.iter().any(|pattern| matches(pattern, module)),
        }
    }
}

impl fmt::Display for LayerPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(pattern) => f.write_str(pattern),
            Self::Several(patterns) => f.write_str(&patterns.join(", ")),
        }
    }
}

/// A rule applied to a layer of K input features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// What it is stored in and how it reads its input.
    pub scheme: QuantScheme,
    /// Where the scale of its input comes from.
    pub scale: ScaleChoice,
    /// How factors on its input channels are found.
    pub factors: FactorMethod,
    /// How its weights become codes.
    pub round: RoundMethod,
}

impl Rule {
    /// Refuses what does not go together.
    pub(super) fn check(&self, recipe: &str) -> Result<(), RecipeError> {
        use ActivationKind::{Bf16, Fp8, Fp8Block, Int8};
        let refuse = |key: &'static str, got: String, expected: &'static str| {
            let (recipe, layers) = (recipe.to_owned(), self.layers.to_string());
            Err(RecipeError::Rule { recipe, layers, key, got, expected })
        };
        let (weights, activations) = (self.weights, self.activations);
        let int4 = weights == WeightKind::Int4;
        if !int4 && (self.group != GroupChoice::Auto || self.symmetric) {
            let expected = "weights = \"int4\", which alone has groups";
            return refuse("weights", weights.to_string(), expected);
        }
        match self.group {
            GroupChoice::Of(size) if size == 0 || !size.is_multiple_of(4) => {
                return refuse("group", size.to_string(), "a multiple of 4 from 4, or \"auto\"");
            }
            _ => {}
        }
        let fits = match weights {
            WeightKind::Keep => activations == Bf16,
            WeightKind::Fp8 | WeightKind::Fp8Channel => matches!(activations, Bf16 | Fp8),
            WeightKind::Fp8Block => matches!(activations, Bf16 | Fp8Block),
            WeightKind::Int8 => matches!(activations, Bf16 | Int8),
            WeightKind::Int4 => matches!(activations, Bf16 | Int8 | Fp8),
        };
        if !fits {
            let expected = "\"bf16\", or \"int8\" with int8 and int4 weights, \"fp8\" with fp8, \
                            fp8-channel and int4 weights, \"fp8-block\" with fp8-block weights";
            return refuse("activations", activations.to_string(), expected);
        }
        if self.scale != ScaleChoice::Token && matches!(activations, Bf16 | Fp8Block) {
            let expected = "\"token\", or activations = \"int8\" or \"fp8\", which have one scale";
            return refuse("scale", self.scale.to_string(), expected);
        }
        let by_histogram = !matches!(self.scale, ScaleChoice::Token | ScaleChoice::Max);
        if by_histogram && self.factors != FactorMethod::Nothing {
            let expected = "\"token\" or \"static\": factors change the values that were counted";
            return refuse("scale", self.scale.to_string(), expected);
        }
        if self.factors == FactorMethod::SmoothQuant && activations == Bf16 {
            let expected = "\"awq\" or \"none\": smoothquant is for rounded activations";
            return refuse("factors", self.factors.to_string(), expected);
        }
        if self.round == RoundMethod::Gptq && weights == WeightKind::Keep {
            return refuse("round", self.round.to_string(), "\"nearest\" for weights that stay");
        }
        if self.round == RoundMethod::Clip && !int4 {
            return refuse("round", self.round.to_string(), "\"nearest\", or weights = \"int4\"");
        }
        Ok(())
    }

    /// The rule for a layer of `k` input features; none to keep it, or if no usual group size
    /// divides `k`.
    #[must_use]
    pub fn treatment(&self, k: usize) -> Option<Treatment> {
        let weight = match self.weights {
            WeightKind::Keep => return None,
            WeightKind::Fp8 => WeightFormat::Fp8 { block: ScaleBlock::TENSOR },
            WeightKind::Fp8Channel => WeightFormat::Fp8 { block: ScaleBlock::CHANNEL },
            WeightKind::Fp8Block => WeightFormat::Fp8 { block: ScaleBlock::SQUARE },
            WeightKind::Int8 => WeightFormat::Int8 { group: Group::PerChannel },
            WeightKind::Int4 => {
                let size = match self.group {
                    GroupChoice::Of(size) => size,
                    GroupChoice::Auto => {
                        GROUP_SIZES.into_iter().find(|size| k.is_multiple_of(*size))?
                    }
                };
                WeightFormat::Int4 { group: Group::Of(size), symmetric: self.symmetric }
            }
        };
        let activation = match self.activations {
            ActivationKind::Bf16 => ActivationFormat::BF16,
            ActivationKind::Int8 => ActivationFormat::Int8,
            ActivationKind::Fp8 => ActivationFormat::Fp8,
            ActivationKind::Fp8Block => ActivationFormat::Fp8Blocks,
        };
        Some(Treatment {
            scheme: QuantScheme { weight, activation },
            scale: self.scale,
            factors: self.factors,
            round: self.round,
        })
    }
}

/// Whether a pattern with `*` for anything matches a whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let name = "model.layers.12.mlp.down_proj";
        for pattern in ["*", "model.*", "*.down_proj", "*layers.12.*", "*l*s.1*p.d*j", name] {
            assert!(matches(pattern, name), "{pattern}");
        }
        for pattern in ["", "model", "*.up_proj", "layers*", "*.down", "*layers.1.*", "*proj*proj"]
        {
            assert!(!matches(pattern, name), "{pattern}");
        }
    }
}
