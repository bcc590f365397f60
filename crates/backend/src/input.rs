//! How an operation leaves its result for the linear layer that reads it.

use crate::BackendError;
use bantam_numerics::ActivationFormat;

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
