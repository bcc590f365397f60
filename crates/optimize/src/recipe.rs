//! What to do to which layers: a list of rules by module name, of which the last that matches wins.
//!
//! Recipes are TOML. The built-in ones are the files of `recipes/`, and a user's own file reads the
//! same way.

use std::fmt;

use bantam_numerics::quantize::GROUP_SIZES;
use bantam_numerics::{ActivationFormat, Group, KvFormat, QuantScheme, ScaleBlock, WeightFormat};
use serde::{Deserialize, Serialize};

use crate::RecipeError;

/// What to do to a model.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// What to do to the layers whose names match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Module names; `*` stands for anything.
    pub layers: String,
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

/// An enum whose variants users write as words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)+ })
            }
        }
    };
}

words! {
    /// How weights are stored.
    WeightKind {
        /// As they are, in 16 bits.
        #[default]
        Keep = "keep",
        /// E4M3, one scale for the matrix.
        Fp8 = "fp8",
        /// E4M3, one scale for each output channel.
        Fp8Channel = "fp8-channel",
        /// E4M3, one scale for 128×128 weights.
        Fp8Block = "fp8-block",
        /// 8-bit integers, one scale for each output channel.
        Int8 = "int8",
        /// 4-bit integers in groups.
        Int4 = "int4",
    }
}

words! {
    /// How a layer reads its input.
    ActivationKind {
        /// 16 bits.
        #[default]
        Bf16 = "bf16",
        /// 8-bit integers.
        Int8 = "int8",
        /// E4M3.
        Fp8 = "fp8",
        /// E4M3, one scale for 128 channels; with weights in `fp8-block`.
        Fp8Block = "fp8-block",
    }
}

words! {
    /// Where the scale of a layer's input comes from.
    ScaleChoice {
        /// The row itself: one scale a token, found when it runs.
        #[default]
        Token = "token",
        /// Calibration: the largest magnitude seen.
        Max = "static",
        /// Calibration: the range with the least squared error.
        Mse = "static-mse",
        /// Calibration: the range whose codes say most about the values (least divergence).
        Entropy = "static-entropy",
        /// Calibration: the range of 99.99 % of all values.
        Percentile = "static-percentile",
    }
}

words! {
    /// How factors on a layer's input channels are found.
    FactorMethod {
        /// There are none.
        #[default]
        Nothing = "none",
        /// AWQ: those that round the weight best.
        Awq = "awq",
        /// SmoothQuant: those that round weight and input best together.
        SmoothQuant = "smoothquant",
    }
}

words! {
    /// How weights become codes.
    RoundMethod {
        /// To the nearest.
        #[default]
        Nearest = "nearest",
        /// To the nearest, after each group's range was cut to what the output misses least.
        Clip = "clip",
        /// GPTQ: column after column, each correcting the errors of those before.
        Gptq = "gptq",
    }
}

words! {
    /// Number format of a calibrated key/value cache.
    KvKind {
        /// E4M3.
        #[default]
        Fp8 = "fp8",
        /// 8-bit integers.
        Int8 = "int8",
    }
}

impl KvKind {
    /// The format as caches have it.
    #[must_use]
    pub const fn format(self) -> KvFormat {
        match self {
            Self::Fp8 => KvFormat::Fp8,
            Self::Int8 => KvFormat::Int8,
        }
    }
}

/// Weights that share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GroupChoice {
    /// The largest of the usual sizes that divides K.
    #[default]
    Auto,
    /// This many.
    Of(usize),
}

impl Serialize for GroupChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Of(size) => serializer.serialize_u64(*size as u64),
        }
    }
}

impl<'de> Deserialize<'de> for GroupChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            Size(usize),
            Word(String),
        }
        match Stored::deserialize(deserializer)? {
            Stored::Size(size) => Ok(Self::Of(size)),
            Stored::Word(word) if word == "auto" => Ok(Self::Auto),
            Stored::Word(word) => {
                let message = format!("group = \"{word}\", expected a number or \"auto\"");
                Err(serde::de::Error::custom(message))
            }
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

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../recipes/", $name, ".toml")))),+]
    };
}

/// The recipes that come with the product, in the order users see them.
const BUILT_IN: [(&str, &str); 11] = built_in![
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
        recipe.rules.iter().try_for_each(|rule| rule.check(name))?;
        Ok(recipe)
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
        let rule = self.rules.iter().rev().find(|rule| matches(&rule.layers, module))?;
        (rule.weights != WeightKind::Keep).then_some(rule)
    }
}

impl Rule {
    /// Refuses what does not go together.
    fn check(&self, recipe: &str) -> Result<(), RecipeError> {
        use ActivationKind::{Bf16, Fp8, Fp8Block, Int8};
        let refuse = |key: &'static str, got: String, expected: &'static str| {
            let (recipe, layers) = (recipe.to_owned(), self.layers.clone());
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
        let integer = matches!(weights, WeightKind::Int8 | WeightKind::Int4);
        if self.round == RoundMethod::Gptq && !integer {
            return refuse("round", self.round.to_string(), "\"nearest\", or integer weights");
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
    fn every_built_in_recipe_reads_and_says_what_it_is_for() {
        for name in Recipe::built_in_names() {
            let recipe = Recipe::built_in(name).unwrap();
            assert!(recipe.about.len() > 20, "{name}: {}", recipe.about);
            let again = toml::to_string(&recipe).unwrap();
            assert_eq!(Recipe::from_toml(name, &again).unwrap(), recipe, "{name}");
        }
    }

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
            ("weights = \"fp8\"\nround = \"gptq\"", "integer weights"),
            ("weights = \"int9\"", "keep"),
            ("weights = \"int4\"\ngroup = \"big\"", "auto"),
            ("weights = \"int4\"\nsise = 3", "unknown field"),
        ] {
            let text = format!("about = \"x\"\n[[rules]]\nlayers = \"*\"\n{lines}\n");
            let error = Recipe::from_toml("r", &text).unwrap_err().to_string();
            assert!(error.contains(part), "{lines}: {error}");
        }
    }
}
