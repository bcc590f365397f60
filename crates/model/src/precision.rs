//! How much of each weight's precision is kept: the user's one word, turned into a scheme a layer.

use std::fmt;
use std::str::FromStr;

use bantam_checkpoint::printable;
use bantam_numerics::quantize::GROUP_SIZES;
use bantam_numerics::{Group, QuantScheme, WeightFormat};

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

/// The precision in which a model's linear layers are stored. Norms and biases stay f32.
///
/// ```
/// use bantam_model::{LinearRole, Precision};
/// let int4: Precision = "int4".parse()?;
/// assert_eq!(int4.scheme_for(LinearRole::Qkv, 576).to_string(), "int4-g64");
/// assert_eq!(int4.scheme_for(LinearRole::Head, 576).to_string(), "int8");
/// assert_eq!("int4-g32".parse::<Precision>()?.to_string(), "int4-g32");
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
    /// INT4 weights in groups along K. The embedding and the head stay INT8: they are what 4 bits
    /// hurt most.
    Int4 {
        /// Weights that share a scale; none for the largest usual size that divides K.
        group: Option<usize>,
        /// Whether groups have no offset.
        symmetric: bool,
    },
}

impl Precision {
    /// The scheme of a layer with `k` input features.
    ///
    /// Without a stated group, a `k` that no usual group size divides gives INT8; the
    /// [`MemoryPlan`](crate::MemoryPlan) lists the schemes that a model really gets.
    #[must_use]
    pub fn scheme_for(&self, role: LinearRole, k: usize) -> QuantScheme {
        match (*self, role) {
            (Self::F32, _) => QuantScheme::F32,
            (Self::Bf16, _) => QuantScheme::BF16,
            (Self::Int8, _) | (Self::Int4 { .. }, LinearRole::Embedding | LinearRole::Head) => {
                QuantScheme::INT8
            }
            (Self::Int4 { group: Some(group), symmetric }, _) => {
                QuantScheme::int4(group, symmetric)
            }
            (Self::Int4 { group: None, symmetric }, _) => fitting_group(k)
                .map_or(QuantScheme::INT8, |group| QuantScheme::int4(group, symmetric)),
        }
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
        match self {
            Self::F32 => f.write_str("f32"),
            Self::Bf16 => f.write_str("bf16"),
            Self::Int8 => f.write_str("int8"),
            Self::Int4 { group, symmetric } => {
                f.write_str("int4")?;
                if let Some(group) = group {
                    write!(f, "-g{group}")?;
                }
                f.write_str(if *symmetric { "-sym" } else { "" })
            }
        }
    }
}

/// A word that is not a precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem}; use f32, bf16, int8 or int4, the last with a group size or without offsets as \
     int4-g64, int4-sym, int4-g32-sym"
)]
pub struct UnknownPrecision {
    problem: String,
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(word: &str) -> Result<Self, UnknownPrecision> {
        let unknown =
            || UnknownPrecision { problem: format!("unknown number format `{}`", printable(word)) };
        let mut parts = word.split('-').peekable();
        let precision = match parts.next() {
            Some("f32") => Self::F32,
            Some("bf16") => Self::Bf16,
            Some("int8") => Self::Int8,
            Some("int4") => {
                let size = parts.next_if(|part| part.starts_with('g'));
                let group =
                    size.map(|part| part[1..].parse().map_err(|_| unknown())).transpose()?;
                if let Some(group) = group.filter(|&g: &usize| g == 0 || !g.is_multiple_of(4)) {
                    let problem = format!(
                        "number format `{}`: groups of {group}, expected a multiple of 4 from 4",
                        printable(word)
                    );
                    return Err(UnknownPrecision { problem });
                }
                Self::Int4 { group, symmetric: parts.next_if_eq(&"sym").is_some() }
            }
            _ => return Err(unknown()),
        };
        if parts.next().is_some() { Err(unknown()) } else { Ok(precision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bantam_numerics::quantize;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn planned_bytes_are_the_stored_bytes(n in 1usize..5, groups in 1usize..5, case in 0usize..6) {
            let k = 32 * groups;
            let scheme = [
                QuantScheme::F32,
                QuantScheme::BF16,
                QuantScheme::INT8,
                QuantScheme::int4(32, true),
                QuantScheme::int4(16, false),
                QuantScheme::int4(k, false),
            ][case];
            let packed = quantize(&vec![0.5; n * k], n, k, scheme).unwrap();
            prop_assert_eq!(packed.bytes() as u64, stored_bytes(n, k, scheme));
        }
    }

    #[test]
    fn words_survive_a_round_trip_and_others_are_refused() {
        for word in ["f32", "bf16", "int8", "int4", "int4-g64", "int4-sym", "int4-g32-sym"] {
            assert_eq!(word.parse::<Precision>().unwrap().to_string(), word);
        }
        for word in [
            "",
            "fp8",
            "int4-",
            "int4-g0",
            "int4-g6-sym",
            "int4-g",
            "int8-g64",
            "int4-sym-g32",
            "int4-asym",
        ] {
            let error = word.parse::<Precision>().unwrap_err().to_string();
            assert!(error.contains("use f32, bf16, int8 or int4"), "{error}");
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
    }
}
