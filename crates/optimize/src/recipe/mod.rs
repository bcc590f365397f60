//! What to do to which layers: a list of rules by module name, of which the last that matches wins.
//!
//! Recipes are TOML. The built-in ones are the files of `recipes/`, and a user's own file reads the
//! same way.

mod auto;
mod rule;
mod words;

use serde::{Deserialize, Serialize};

use crate::RecipeError;

pub use auto::AutoFormats;
pub use rule::{LayerPatterns, Rule, Treatment};
pub use words::{
    ActivationKind, FactorMethod, FormatScore, GroupChoice, KvKind, RoundMethod, ScaleChoice,
    WeightKind,
};

/// What to do to a model: rules, or formats to choose from.
///
/// ```
/// use bantam_optimize::Recipe;
/// let recipe = Recipe::from_toml(
///     "mine",
///     r#"
///     about = "INT4, but the last matrix of each layer INT8"
///     kv = "fp8"
///     [[rules]]
///     layers = "*"
///     weights = "int4"
///     factors = "awq"
///     [[rules]]
///     layers = "*.down_proj"
///     weights = "int8"
///     "#,
/// )?;
/// assert_eq!(recipe.rule_for("model.layers.3.mlp.down_proj").unwrap().weights.to_string(), "int8");
/// assert!(Recipe::built_in("int4_awq").is_some());
/// # Ok::<(), bantam_optimize::RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What users call it; not part of the file.
    #[serde(skip)]
    pub name: String,
    /// One line on what it is for.
    pub about: String,
    /// Number format of the key/value cache, with calibrated scales; none to leave it alone.
    #[serde(default)]
    pub kv: Option<KvKind>,
    /// Choose for each layer by what each format does to the model; then there are no rules yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoFormats>,
    /// The rules, in order.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),+]
    };
}

/// The recipes that come with the product, in the order users see them.
const BUILT_IN: [(&str, &str); 12] = built_in![
    "fp8",
    "fp8_pc_pt",
    "fp8_block",
    "int8_sq",
    "int8_wo",
    "int4_wo",
    "int4_awq",
    "int4_gptq",
    "w4a8_awq",
    "w4a8_int8",
    "kv_only",
    "auto",
];

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// If it is not TOML of this form, or a rule asks for what does not go together.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| RecipeError::Toml {
            recipe: name.to_owned(),
            source: Box::new(error),
        })?;
        let recipe = Self { name: name.to_owned(), ..recipe };
        recipe.check()?;
        Ok(recipe)
    }

    /// Refuses what does not go together.
    ///
    /// # Errors
    /// If there is such a rule, or a choice of formats that cannot be made.
    pub fn check(&self) -> Result<(), RecipeError> {
        self.rules.iter().try_for_each(|rule| rule.check(&self.name))?;
        self.auto.as_ref().map_or(Ok(()), |auto| auto.check(self))
    }

    /// The recipe as a file that [`from_toml`](Self::from_toml) reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is tables of words and numbers")
    }

    /// The names of the recipes that come with the product, and what each is for.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of a built-in recipe.
    #[must_use]
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// A built-in recipe.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let text = Self::built_in_text(name)?;
        Some(Self::from_toml(name, text).expect("built-in recipes are tested to read"))
    }

    /// The rule for a module: the last that matches, if it does not say `keep`.
    #[must_use]
    pub fn rule_for(&self, module: &str) -> Option<&Rule> {
        let rule = self.rules.iter().rev().find(|rule| rule.layers.match_module(module))?;
        (rule.weights != WeightKind::Keep).then_some(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_recipe_reads_and_says_what_it_is_for() {
        for name in Recipe::built_in_names() {
            let recipe = Recipe::built_in(name).unwrap();
            assert!(recipe.about.len() > 20, "{name}: {}", recipe.about);
            assert_eq!(Recipe::from_toml(name, &recipe.to_toml()).unwrap(), recipe, "{name}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_wins() {
        let text = r#"
            about = "x"
            [[rules]]
            layers = "*"
            weights = "int8"
            [[rules]]
            layers = "*.layers.0.*"
            weights = "keep"
            [[rules]]
            layers = "*.o_proj"
            weights = "int4"
            group = 64
            symmetric = true
        "#;
        let recipe = Recipe::from_toml("r", text).unwrap();
        let kind = |name| recipe.rule_for(name).map(|rule| rule.weights);
        assert_eq!(kind("model.layers.1.mlp.up_proj"), Some(WeightKind::Int8));
        assert_eq!(kind("model.layers.0.mlp.up_proj"), None);
        assert_eq!(kind("model.layers.0.self_attn.o_proj"), Some(WeightKind::Int4));
        let rule = recipe.rule_for("model.layers.0.self_attn.o_proj").unwrap();
        assert_eq!(rule.treatment(128).unwrap().scheme.to_string(), "int4-g64-sym");
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_a_way_out() {
        for (lines, part) in [
            ("weights = \"int8\"\ngroup = 64", "weights = \"int4\""),
            ("weights = \"int4\"\ngroup = 6", "multiple of 4"),
            ("weights = \"fp8\"\nactivations = \"int8\"", "\"fp8\" with fp8"),
            ("weights = \"int4\"\nscale = \"static\"", "activations = \"int8\""),
            ("weights = \"int4\"\nfactors = \"smoothquant\"", "\"awq\" or \"none\""),
            ("weights = \"keep\"\nround = \"gptq\"", "nearest"),
            ("weights = \"fp8\"\nround = \"clip\"", "weights = \"int4\""),
            ("weights = \"int9\"", "keep"),
            ("weights = \"int4\"\ngroup = \"big\"", "auto"),
            ("weights = \"int4\"\nsise = 3", "unknown field"),
        ] {
            let text = format!("about = \"x\"\n[[rules]]\nlayers = \"*\"\n{lines}\n");
            let error = Recipe::from_toml("r", &text).unwrap_err().to_string();
            assert!(error.contains(part), "{lines}: {error}");
        }
    }

    #[test]
    fn formats_to_choose_from_are_checked() {
        let refused = |lines: &str| {
            let text = format!("about = \"x\"\n{lines}");
            Recipe::from_toml("r", &text).unwrap_err().to_string()
        };
        let auto = "[auto]\nbits = 5\ncandidates = ";
        assert!(refused(&format!("{auto}[]")).contains("candidates is empty"));
        assert!(refused(&format!("{auto}[\"int3\"]")).contains("candidates is int3"));
        assert!(refused(&format!("{auto}[\"kv_only\"]")).contains("with rules"));
        let none = "[auto]\nbits = 0\ncandidates = [\"int8_wo\"]";
        assert!(refused(none).contains("bits is 0, expected more than 0"));
        let rules = "\n[[rules]]\nlayers = \"*\"\nweights = \"int8\"";
        assert!(refused(&format!("{auto}[\"int8_wo\"]{rules}")).contains("1 rules"));
    }
}
