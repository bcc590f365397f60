//! The words of recipes.

use std::fmt;

use bantam_numerics::KvFormat;
use serde::{Deserialize, Serialize};

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
    /// What formats of a layer are compared by, all others being as they were.
    FormatScore {
        /// KL divergence of the model's predictions.
        #[default]
        Kl = "kl",
        /// The squared change of the residual stream after the layer's block, as a share of it: much
        /// quicker, and blind to what later blocks make of it.
        Sensitivity = "sensitivity",
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
