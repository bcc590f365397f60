//! How a linear layer stores its weight and what it asks of its input.

use crate::activation::ActivationFormat;
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

/// The block of a weight matrix that shares an FP8 scale: so many rows along N, columns along K.
///
/// Per-tensor and per-channel scales are blocks that reach past the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScaleBlock {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
}

impl ScaleBlock {
    /// One scale for the whole matrix.
    pub const TENSOR: Self = Self { rows: usize::MAX, columns: usize::MAX };
    /// One scale for each output row.
    pub const CHANNEL: Self = Self { rows: 1, columns: usize::MAX };
    /// One scale for 128×128 weights, as DeepSeek stores them.
    pub const SQUARE: Self = Self { rows: 128, columns: 128 };

    /// Scales of a weight `[N, K]`, along N and along K.
    #[must_use]
    pub fn grid(self, n: usize, k: usize) -> (usize, usize) {
        (n.div_ceil(self.rows), k.div_ceil(self.columns))
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
    /// E4M3 floats: `w = q·s`.
    Fp8 {
        /// Weights that share a scale.
        block: ScaleBlock,
    },
}

impl WeightFormat {
    /// The activations that a weight of this format can meet, its usual one first.
    ///
    /// Integers meet integers or floats; FP8 meets floats only: an integer dot product has no use
    /// for its codes.
    #[must_use]
    pub fn activations(self) -> &'static [ActivationFormat] {
        use ActivationFormat::{BF16, F32, Fp8, Fp8Blocks, Int8};
        match self {
            Self::F32 => &[F32],
            Self::BF16 => &[BF16],
            Self::Int8 { .. } | Self::Int4 { .. } => &[BF16, Int8, Fp8, Fp8Blocks],
            Self::Fp8 { .. } => &[BF16, Fp8, Fp8Blocks],
        }
    }
}

/// What a linear layer is made of: the format of its weight and of its input.
///
/// ```
/// use bantam_numerics::{ActivationFormat, QuantScheme};
/// assert_eq!(QuantScheme::INT8.to_string(), "int8");
/// assert_eq!(QuantScheme::int4(32, true).to_string(), "int4-g32-sym");
/// let w4a8 = QuantScheme::int4(64, false).with(ActivationFormat::Int8);
/// assert_eq!(w4a8.to_string(), "int4-g64/int8");
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
    /// FP8 weight-only, one scale per output channel, bf16 activations.
    pub const FP8: Self = Self {
        weight: WeightFormat::Fp8 { block: ScaleBlock::CHANNEL },
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

    /// The same weight with another input.
    #[must_use]
    pub const fn with(self, activation: ActivationFormat) -> Self {
        Self { activation, ..self }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, group) = match *self {
            Self::F32 => ("f32", Group::PerChannel),
            Self::BF16 => ("bf16", Group::PerChannel),
            Self::Int8 { group } => ("int8", group),
            Self::Int4 { group, .. } => ("int4", group),
            Self::Fp8 { block: ScaleBlock::CHANNEL } => ("fp8", Group::PerChannel),
            Self::Fp8 { block: ScaleBlock::TENSOR } => ("fp8-tensor", Group::PerChannel),
            Self::Fp8 { block } => return write!(f, "fp8-{}x{}", block.rows, block.columns),
        };
        f.write_str(name)?;
        if let Group::Of(size) = group {
            write!(f, "-g{size}")?;
        }
        if matches!(self, Self::Int4 { symmetric: true, .. }) {
            f.write_str("-sym")?;
        }
        Ok(())
    }
}

/// The weight's format, and the activations' after a slash where they have scales.
impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.weight)?;
        if self.activation.is_scaled() { write!(f, "/{}", self.activation) } else { Ok(()) }
    }
}
