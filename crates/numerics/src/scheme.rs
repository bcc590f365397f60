//! How a linear layer stores its weight and what it asks of its input.

use std::fmt;

/// How many neighbouring weights along K share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// One scale for each output row: g = K.
    PerChannel,
    /// One scale for every g weights along K; g divides K and is a multiple of 4.
    Of(usize),
}

impl Group {
    /// The number of weights that share a scale in a row of `k` weights.
    #[must_use]
    pub fn size(self, k: usize) -> usize {
        match self {
            Self::PerChannel => k,
            Self::Of(size) => size,
        }
    }
}

/// The storage format of a weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// Full precision, the yardstick.
    F32,
    /// 16 bits, the exponent range of f32.
    BF16,
    /// Signed 8-bit integers, symmetric: `w = q·s`.
    Int8 {
        /// Weights that share a scale.
        group: Group,
    },
    /// Signed 4-bit integers: `w = q·s`, or `w = q·s + o` when not symmetric.
    Int4 {
        /// Weights that share a scale.
        group: Group,
        /// Whether zero maps to zero exactly, without an offset.
        symmetric: bool,
    },
}

/// The precision in which a linear layer reads its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationFormat {
    /// As computed.
    F32,
    /// Rounded to nearest even bf16 by the op that produced it.
    BF16,
}

/// What a linear layer is made of: the format of its weight and of its input.
///
/// ```
/// use bantam_numerics::QuantScheme;
/// assert_eq!(QuantScheme::INT8.to_string(), "int8");
/// assert_eq!(QuantScheme::int4(32, true).to_string(), "int4-g32-sym");
/// assert_eq!(QuantScheme::int4(64, false).to_string(), "int4-g64");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantScheme {
    /// How W is stored.
    pub weight: WeightFormat,
    /// How x is read.
    pub activation: ActivationFormat,
}

impl QuantScheme {
    /// f32 weights and activations.
    pub const F32: Self = Self { weight: WeightFormat::F32, activation: ActivationFormat::F32 };
    /// bf16 weights and activations, f32 accumulation.
    pub const BF16: Self = Self { weight: WeightFormat::BF16, activation: ActivationFormat::BF16 };
    /// INT8 weight-only, one scale per output channel, bf16 activations (W8A16).
    pub const INT8: Self = Self {
        weight: WeightFormat::Int8 { group: Group::PerChannel },
        activation: ActivationFormat::BF16,
    };

    /// INT4 weight-only in groups of `group` along K, bf16 activations (W4A16).
    #[must_use]
    pub const fn int4(group: usize, symmetric: bool) -> Self {
        Self {
            weight: WeightFormat::Int4 { group: Group::Of(group), symmetric },
            activation: ActivationFormat::BF16,
        }
    }
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, group) = match self.weight {
            WeightFormat::F32 => ("f32", Group::PerChannel),
            WeightFormat::BF16 => ("bf16", Group::PerChannel),
            WeightFormat::Int8 { group } => ("int8", group),
            WeightFormat::Int4 { group, .. } => ("int4", group),
        };
        f.write_str(name)?;
        if let Group::Of(size) = group {
            write!(f, "-g{size}")?;
        }
        if matches!(self.weight, WeightFormat::Int4 { symmetric: true, .. }) {
            f.write_str("-sym")?;
        }
        Ok(())
    }
}
