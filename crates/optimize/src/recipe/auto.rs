//! The formats that a recipe lets layers choose from.

use serde::{Deserialize, Serialize};

use super::{FormatScore, GroupChoice, Recipe};
use crate::RecipeError;

/// Formats to choose from for each layer, within a size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoFormats {
    /// Bits a weight of the layers that may be quantized, scales included.
    pub bits: f64,
    /// Built-in recipes whose rule a layer may take; it may always stay as it is.
    pub candidates: Vec<String>,
    /// Weights along K that share a scale, in candidates of 4 bits.
    #[serde(default)]
    pub group: GroupChoice,
    /// What candidates are compared by.
    #[serde(default)]
    pub score: FormatScore,
    /// Calibration tokens that the score is measured on.
    #[serde(default = "AutoFormats::default_tokens")]
    pub tokens: usize,
}

impl AutoFormats {
    const fn default_tokens() -> usize {
        1024
    }

    pub(super) fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let refuse = |key: &'static str, got: String, expected: &'static str| {
            Err(RecipeError::Auto { recipe: recipe.name.clone(), key, got, expected })
        };
        if !recipe.rules.is_empty() {
            let got = format!("{} rules", recipe.rules.len());
            return refuse("rules", got, "none beside [auto], which makes them");
        }
        if self.bits.is_nan() || self.bits <= 0.0 {
            return refuse("bits", self.bits.to_string(), "more than 0");
        }
        if self.tokens == 0 {
            return refuse("tokens", "0".to_owned(), "1 or more");
        }
        let with_rules =
            |name: &String| Recipe::built_in(name).is_some_and(|recipe| !recipe.rules.is_empty());
        match self.candidates.iter().find(|name| !with_rules(name)) {
            Some(name) => {
                refuse("candidates", name.clone(), "names of built-in recipes with rules")
            }
            None if self.candidates.is_empty() => {
                refuse("candidates", "empty".to_owned(), "names of built-in recipes")
            }
            None => Ok(()),
        }
    }
}
