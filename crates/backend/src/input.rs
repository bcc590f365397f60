//! How an operation leaves its result for the linear layer that reads it.

use crate::BackendError;
use bantam_numerics::{ActivationFormat, PackedWeight};

/// What a linear layer asks of its input. The operation that produces the input does all of it, on
/// rows that it holds anyway: first the factors, then the order, then the rounding.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearInput<V> {
    /// How rows are rounded.
    pub format: ActivationFormat,
    /// A calibrated scale (static, per tensor); none for a scale of each row's own. Formats without
    /// scales have no use for it.
    pub scale: Option<f32>,
    /// Factors on the channels, `[K]`: what SmoothQuant or AWQ could not fold into the layer before.
    pub channel_factors: Option<V>,
    /// Channel i of the rows is channel `order[i]` of what the operation computes, `[K]`: GPTQ's
    /// activation order, where the weight's columns were sorted to make groups contiguous.
    pub order: Option<Vec<u32>>,
}

impl<V> LinearInput<V> {
    /// Rows in a format, as they are.
    #[must_use]
    pub const fn new(format: ActivationFormat) -> Self {
        Self { format, scale: None, channel_factors: None, order: None }
    }

    /// Whether channels stay where and what they are.
    #[must_use]
    pub fn keeps_channels(&self) -> bool {
        self.channel_factors.is_none() && self.order.is_none()
    }

    /// Whether another layer can read the same rows.
    #[must_use]
    pub fn is_shared_by(&self, other: &Self) -> bool {
        let same = self.format == other.format && self.scale == other.scale;
        same && self.keeps_channels() && other.keeps_channels()
    }

    /// Checks that it describes rows of `columns` channels, of which there are `factors`.
    ///
    /// # Errors
    /// If factors or order have another length, the order leads past the row, or the scale is not a
    /// positive number.
    pub fn check(
        &self,
        op: &'static str,
        columns: usize,
        factors: impl Fn(&V) -> usize,
    ) -> Result<(), BackendError> {
        if let Some(vector) = &self.channel_factors {
            BackendError::check_shape(op, "channel factors", factors(vector), columns)?;
        }
        if let Some(order) = &self.order {
            BackendError::check_shape(op, "channel order", order.len(), columns)?;
            let last = order.iter().map(|&channel| channel as usize + 1).max().unwrap_or(0);
            BackendError::check_capacity(op, last, columns)?;
        }
        match self.scale {
            Some(scale) if !(scale.is_normal() && scale > 0.0) => Err(BackendError::Unsupported {
                op,
                what: format!("a static scale of {scale}"),
                backend: "linear layers".to_owned(),
                way_out: "use a positive number, or none for a scale of each row".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// A linear layer as a checkpoint stores it and an optimizer makes it: its weight, and what it asks
/// of its input. Both are in the computer's memory; a device makes its own form of them.
///
/// ```
/// use bantam_backend::QuantizedLinear;
/// use bantam_numerics::{QuantScheme, quantize};
/// let weight = quantize(&[1.0, -0.5, 0.25, 0.125], 1, 4, QuantScheme::INT8)?;
/// let linear = QuantizedLinear::new(weight);
/// assert_eq!(linear.input.format, QuantScheme::INT8.activation);
/// # Ok::<(), bantam_numerics::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLinear {
    /// W, `[N, K]`, for an input that has passed `input`: with `channel_factors` p its columns are
    /// divided by p, with an `order` they are sorted by it.
    pub weight: PackedWeight,
    /// What the operation before does to x.
    pub input: LinearInput<Vec<f32>>,
}

impl QuantizedLinear {
    /// A weight that takes its input in its own activation format, with nothing else done to it.
    #[must_use]
    pub const fn new(weight: PackedWeight) -> Self {
        let input = LinearInput::new(weight.activation);
        Self { weight, input }
    }
}
