//! How much of each weight's precision is kept: the user's one word, turned into a scheme a layer.

use std::fmt;
use std::str::FromStr;

use bantam_backend::AttentionPrecision;
use bantam_checkpoint::printable;
use bantam_numerics::quantize::GROUP_SIZES;
use bantam_numerics::{ActivationFormat, Group, QuantScheme, WeightFormat};

/// What a linear layer does, as far as its precision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearRole {
    /// The fused q, k and v projections.
    Qkv,
    /// The projection of attention's output.
    AttentionOut,
    /// The first matrix of the feed-forward network; gate and up fused.
    FeedForwardIn,
    /// The second.
    FeedForwardOut,
    /// The embedding table.
    Embedding,
    /// The projection to logits.
    Head,
}

/// The precision in which a model's linear layers are stored and computed. Norms and biases stay f32.
///
/// ```
/// use bantam_model::{LinearRole, Precision};
/// let int4: Precision = "int4".parse()?;
/// assert_eq!(int4.scheme_for(LinearRole::Qkv, 576).to_string(), "int4-g64");
/// assert_eq!(int4.scheme_for(LinearRole::Head, 576).to_string(), "int8");
/// let w4a8: Precision = "w4a8-g32".parse()?;
/// assert_eq!(w4a8.to_string(), "w4a8-g32");
/// assert_eq!(w4a8.scheme_for(LinearRole::Qkv, 576).to_string(), "int4-g32/int8");
/// # Ok::<(), bantam_model::UnknownPrecision>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// As computed, the yardstick.
    F32,
    /// 16 bits.
    #[default]
    Bf16,
    /// INT8 weights, one scale per output channel.
    Int8,
    /// INT4 weights in groups along K.
    Int4 {
        /// Weights that share a scale; none for the largest usual size that divides K.
        group: Option<usize>,
        /// Whether groups have no offset.
        symmetric: bool,
    },
    /// FP8 weights, one scale per output channel.
    Fp8WeightOnly,
    /// The same with FP8 activations, one scale per token.
    Fp8,
    /// INT8 weights, one scale per output channel, and INT8 activations, one per token.
    W8A8,
    /// INT4 weights in groups along K, and INT8 activations, one scale per token.
    W4A8 {
        /// As [`Int4`](Self::Int4).
        group: Option<usize>,
        /// As [`Int4`](Self::Int4).
        symmetric: bool,
    },
}

/// What a word stands for.
struct Word {
    word: &'static str,
    precision: Precision,
    /// The scheme of layers inside the blocks; with INT4, of those that no usual group size divides.
    layers: QuantScheme,
    /// The scheme of the embedding and the head. Eight bits with 16-bit activations at least: they
    /// are what fewer hurt most.
    ends: QuantScheme,
}

const fn word(
    word: &'static str,
    precision: Precision,
    layers: QuantScheme,
    ends: QuantScheme,
) -> Word {
    Word { word, precision, layers, ends }
}

const INT8_BY_INT8: QuantScheme = QuantScheme::INT8.with(ActivationFormat::Int8);
const FP8_BY_FP8: QuantScheme = QuantScheme::FP8.with(ActivationFormat::Fp8);

/// Every word that users may say.
const WORDS: [Word; 8] = [
    word("f32", Precision::F32, QuantScheme::F32, QuantScheme::F32),
    word("bf16", Precision::Bf16, QuantScheme::BF16, QuantScheme::BF16),
    word("int8", Precision::Int8, QuantScheme::INT8, QuantScheme::INT8),
    word("int4", Precision::INT4, QuantScheme::INT8, QuantScheme::INT8),
    word("fp8-wo", Precision::Fp8WeightOnly, QuantScheme::FP8, QuantScheme::INT8),
    word("fp8", Precision::Fp8, FP8_BY_FP8, QuantScheme::INT8),
    word("w8a8", Precision::W8A8, INT8_BY_INT8, QuantScheme::INT8),
    word(
        "w4a8",
        Precision::W4A8 { group: None, symmetric: false },
        INT8_BY_INT8,
        QuantScheme::INT8,
    ),
];

impl Precision {
    /// INT4 with the largest group size that fits each layer, with offsets: they cost 3 % of the bytes
    /// and lower the KL of the same groups (docs/reference/accuracy.md).
    pub const INT4: Self = Self::Int4 { group: None, symmetric: false };

    fn word(self) -> &'static Word {
        let kind = std::mem::discriminant(&self);
        let word = WORDS.iter().find(|word| std::mem::discriminant(&word.precision) == kind);
        word.expect("every precision has a word")
    }

    /// Group size, if stated, and symmetry of the groups along K.
    fn groups(self) -> Option<(Option<usize>, bool)> {
        match self {
            Self::Int4 { group, symmetric } | Self::W4A8 { group, symmetric } => {
                Some((group, symmetric))
            }
            _ => None,
        }
    }

    /// The same with other groups.
    pub(crate) fn with_groups(self, size: Option<usize>, without_offsets: bool) -> Self {
        match self {
            Self::Int4 { .. } => Self::Int4 { group: size, symmetric: without_offsets },
            Self::W4A8 { .. } => Self::W4A8 { group: size, symmetric: without_offsets },
            other => other,
        }
    }

    /// The scheme of a layer with `k` input features.
    ///
    /// Without a stated group, a `k` that no usual group size divides gives INT8; the
    /// [`MemoryPlan`](crate::MemoryPlan) lists the schemes that a model really gets.
    #[must_use]
    pub fn scheme_for(&self, role: LinearRole, k: usize) -> QuantScheme {
        let word = self.word();
        if matches!(role, LinearRole::Embedding | LinearRole::Head) {
            return word.ends;
        }
        let Some((size, symmetric)) = self.groups() else { return word.layers };
        size.or_else(|| fitting_group(k)).map_or(word.layers, |size| {
            QuantScheme::int4(size, symmetric).with(word.layers.activation)
        })
    }

    /// How exactly attention is computed.
    pub(crate) fn attention(self) -> AttentionPrecision {
        match self {
            Self::F32 => AttentionPrecision::F32,
            _ => AttentionPrecision::Bf16,
        }
    }

    /// How the linear layers inside the blocks read their input.
    #[must_use]
    pub fn activation(&self) -> ActivationFormat {
        self.word().layers.activation
    }
}

/// The largest usual group size that divides `k`.
pub(crate) fn fitting_group(k: usize) -> Option<usize> {
    GROUP_SIZES.into_iter().find(|group| k.is_multiple_of(*group))
}

/// Bytes of a weight `[N, K]` stored in `scheme`: what
/// [`PackedWeight::bytes`](bantam_numerics::PackedWeight::bytes) will say, before there is one.
#[must_use]
pub fn stored_bytes(n: usize, k: usize, scheme: QuantScheme) -> u64 {
    let (n, k) = (n as u64, k as u64);
    let (row, group, symmetric) = match scheme.weight {
        WeightFormat::F32 => return 4 * n * k,
        WeightFormat::BF16 => return 2 * n * k,
        WeightFormat::Int8 { group } => (k, group, true),
        WeightFormat::Int4 { group, symmetric } => (k.div_ceil(2), group, symmetric),
        WeightFormat::Fp8 { block } => {
            let (along_n, along_k) = block.grid(n as usize, k as usize);
            return n * k + 4 * (along_n * along_k) as u64;
        }
    };
    // A group as long as the row is one scale per channel, which stays f32.
    let scales = match group {
        Group::Of(size) if size as u64 != k => 2 * (k / size as u64),
        Group::Of(_) | Group::PerChannel => 4,
    };
    n * (row + scales * if symmetric { 1 } else { 2 })
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word().word)?;
        let (group, symmetric) = self.groups().unwrap_or_default();
        if let Some(group) = group {
            write!(f, "-g{group}")?;
        }
        f.write_str(if symmetric { "-sym" } else { "" })
    }
}

/// A word that is not a precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem}; use {}, int4 and w4a8 with a group size or without offsets as int4-g64, int4-sym, \
     int4-g32-sym",
    WORDS.map(|word| word.word).join(", ")
)]
pub struct UnknownPrecision {
    problem: String,
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        let unknown =
            || UnknownPrecision { problem: format!("unknown number format `{}`", printable(text)) };
        let rest_of = |word: &Word| {
            let rest = text.strip_prefix(word.word)?;
            (rest.is_empty() || rest.starts_with('-')).then_some((word.precision, rest))
        };
        // Of fp8 and fp8-wo the longer one that fits is meant.
        let fitting = WORDS.iter().filter_map(rest_of).min_by_key(|(_, rest)| rest.len());
        let (precision, rest) = fitting.ok_or_else(unknown)?;
        if rest.is_empty() {
            return Ok(precision);
        }
        if precision.groups().is_none() {
            return Err(unknown());
        }
        let mut parts = rest[1..].split('-').peekable();
        let size = parts.next_if(|part| part.starts_with('g'));
        let size = size.map(|part| part[1..].parse().map_err(|_| unknown())).transpose()?;
        if let Some(size) = size.filter(|&g: &usize| g == 0 || !g.is_multiple_of(4)) {
            let problem = format!(
                "number format `{}`: groups of {size}, expected a multiple of 4 from 4",
                printable(text)
            );
            return Err(UnknownPrecision { problem });
        }
        let without_offsets = parts.next_if_eq(&"sym").is_some();
        match parts.next() {
            None => Ok(precision.with_groups(size, without_offsets)),
            Some(_) => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bantam_numerics::{ScaleBlock, quantize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn planned_bytes_are_the_stored_bytes(n in 1usize..5, groups in 1usize..5, case in 0usize..8) {
            let k = 32 * groups;
            let scheme = [
                QuantScheme::F32,
                QuantScheme::BF16,
                QuantScheme::INT8,
                QuantScheme::int4(32, true),
                QuantScheme::int4(16, false),
                QuantScheme::int4(k, false),
                QuantScheme::FP8,
                QuantScheme {
                    weight: WeightFormat::Fp8 { block: ScaleBlock::SQUARE },
                    ..QuantScheme::FP8
                },
            ][case];
            let packed = quantize(&vec![0.5; n * k], n, k, scheme).unwrap();
            prop_assert_eq!(packed.bytes() as u64, stored_bytes(n, k, scheme));
        }
    }

    #[test]
    fn words_survive_a_round_trip_and_others_are_refused() {
        let grouped = ["int4-g64", "int4-sym", "int4-g32-sym", "w4a8-g128", "w4a8-g32-sym"];
        for word in WORDS.iter().map(|word| word.word).chain(grouped) {
            assert_eq!(word.parse::<Precision>().unwrap().to_string(), word);
        }
        for word in [
            "",
            "fp8-",
            "fp8-g32",
            "fp8x",
            "w8a8-sym",
            "int4-",
            "int4-g0",
            "int4-g6-sym",
            "int4-g",
            "int8-g64",
            "int4-sym-g32",
            "int4-asym",
        ] {
            let error = word.parse::<Precision>().unwrap_err().to_string();
            assert!(error.contains("use f32, bf16, int8, int4, fp8-wo"), "{error}");
        }
        for group in [0, 7] {
            let error = format!("int4-g{group}").parse::<Precision>().unwrap_err().to_string();
            let want = format!("groups of {group}, expected a multiple of 4 from 4");
            assert!(error.contains(&want), "{error}");
        }
    }

    #[test]
    fn groups_fit_the_input_size() {
        let int4 = Precision::Int4 { group: None, symmetric: true };
        let schemes =
            [(1536, "int4-g128-sym"), (576, "int4-g64-sym"), (48, "int4-g16-sym"), (36, "int8")];
        for (k, scheme) in schemes {
            assert_eq!(int4.scheme_for(LinearRole::Qkv, k).to_string(), scheme);
        }
        let w4a8: Precision = "w4a8".parse().unwrap();
        assert_eq!(w4a8.scheme_for(LinearRole::Qkv, 36).to_string(), "int8/int8");
        assert_eq!(w4a8.scheme_for(LinearRole::Head, 64).to_string(), "int8");
    }
}
