//! Layers that a checkpoint brings quantized already: they stay as they are stored.

use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_checkpoint::{Checkpoint, StoredTensor};
use bantam_numerics::{ActivationFormat, PackedWeight, QuantScheme, WeightData, WeightFormat};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::precision::{LinearRole, Precision};
use crate::stored::{StoredLinear, StoredPart};

impl ArchSpec {
    /// The scheme in which a linear layer is loaded: as the checkpoint stores it, if it is quantized
    /// there, else as the precision says.
    ///
    /// # Errors
    /// If the checkpoint's format is not supported, quantizes only some parts of the layer or each in
    /// another format, or a group size does not divide K.
    pub fn scheme(
        &self,
        linear: &StoredLinear,
        precision: Precision,
    ) -> Result<QuantScheme, ModelError> {
        let Some(stored) = self.stored_scheme(linear)? else {
            return precision.checked_scheme(linear);
        };
        // The yardstick computes weight-only layers from what their weights stand for. Activations
        // in fewer bits are part of the model.
        let decoded = precision == Precision::F32 && !stored.activation.is_scaled();
        Ok(if decoded { QuantScheme::F32 } else { stored })
    }

    /// The scheme that the checkpoint stores a layer in, its parts stacked; none if it is not
    /// quantized.
    fn stored_scheme(&self, linear: &StoredLinear) -> Result<Option<QuantScheme>, ModelError> {
        let parts = linear.parts.iter().map(|part| self.part_scheme(linear, part));
        let schemes = parts.collect::<Result<Vec<_>, _>>()?;
        if schemes.iter().all(Option::is_none) {
            return Ok(None);
        }
        if linear.role == LinearRole::Head && self.head.normalised {
            return Err(ModelError::NotExecuted {
                what: format!("a quantized head `{}` of unit rows", self.names.head),
                way_out: "use a checkpoint whose head is not quantized",
            });
        }
        let schemes = schemes.into_iter().collect::<Option<Vec<_>>>();
        let schemes = schemes.ok_or_else(|| linear.unlike_parts())?;
        let pieces = linear.parts.iter().zip(&schemes).flat_map(|(part, &scheme)| {
            part.taken.iter().map(move |rows| (rows.len(), scheme, part.is_whole()))
        });
        let stacked = pieces.map(Some).reduce(|whole, piece| {
            let ((n, mut whole, at_end), (rows, next, is_whole)) = (whole?, piece?);
            let mut same = next;
            if let (WeightFormat::Fp8 { block: a }, WeightFormat::Fp8 { block: b }) =
                (&mut whole.weight, &mut same.weight)
                && !(a == b && n.is_multiple_of(a.rows) && at_end && is_whole)
            {
                // Blocks would reach from one part into the next: each row has its own scales.
                (a.rows, b.rows) = (1, 1);
            }
            (whole == same).then_some((n + rows, whole, is_whole))
        });
        let (_, mut scheme, is_whole) = stacked.flatten().ok_or_else(|| linear.unlike_parts())?;
        if let WeightFormat::Fp8 { block } = &mut scheme.weight
            && !is_whole
        {
            block.rows = 1;
        }
        Ok(Some(scheme))
    }

    /// The scheme of a stored matrix; none if it is not quantized. Embedding tables never are.
    fn part_scheme(
        &self,
        linear: &StoredLinear,
        part: &StoredPart,
    ) -> Result<Option<QuantScheme>, ModelError> {
        match &self.quantization {
            Some(quantization) if linear.role != LinearRole::Embedding => {
                Ok(quantization.scheme(&part.module, part.rows, linear.k)?)
            }
            _ => Ok(None),
        }
    }

    /// Whether a stored matrix is quantized, or of a format that is not supported.
    pub(crate) fn is_quantized(&self, linear: &StoredLinear, part: &StoredPart) -> bool {
        self.part_scheme(linear, part).map_or(true, |scheme| scheme.is_some())
    }

    /// The tensors of all quantized layers.
    pub(crate) fn quantized_tensors(&self) -> Result<Vec<StoredTensor>, ModelError> {
        let Some(quantization) = &self.quantization else { return Ok(Vec::new()) };
        let layers = (0..self.sizes.layers).flat_map(|layer| self.linears(layer));
        let mut tensors = Vec::new();
        for linear in layers.chain(self.untied_head()) {
            for part in &linear.parts {
                let of_part = quantization.tensors(&part.module, part.rows, linear.k)?;
                tensors.extend(of_part.into_iter().flatten());
            }
        }
        Ok(tensors)
    }

    /// Reads a layer that the checkpoint stores quantized, its parts stacked; none if it does not.
    pub(crate) fn read_quantized(
        &self,
        checkpoint: &Checkpoint,
        linear: &StoredLinear,
        precision: Precision,
    ) -> Result<Option<QuantizedLinear>, ModelError> {
        let Some(quantization) = &self.quantization else { return Ok(None) };
        if self.stored_scheme(linear)?.is_none() {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for part in &linear.parts {
            let stored = quantization.linear(checkpoint, &part.module, part.rows, linear.k)?;
            let QuantizedLinear { weight, input } = stored.ok_or_else(|| linear.unlike_parts())?;
            if part.is_whole() {
                parts.push(QuantizedLinear { weight, input });
                continue;
            }
            let rows = part.taken.iter().map(|rows| weight.rows(rows.clone()));
            parts.extend(rows.map(|weight| QuantizedLinear { weight, input: input.clone() }));
        }
        let mut whole = stack(parts).ok_or_else(|| linear.unlike_parts())?;
        if self.scheme(linear, precision)? == QuantScheme::F32 {
            let PackedWeight { n, k, .. } = whole.weight;
            let (data, activation) =
                (WeightData::F32(whole.weight.decode()), ActivationFormat::F32);
            whole.weight = PackedWeight { n, k, activation, data };
            whole.input.format = activation;
        }
        Ok(Some(whole))
    }
}

impl StoredPart {
    /// Whether all rows are taken as they lie.
    fn is_whole(&self) -> bool {
        self.taken.iter().eq(std::iter::once(&(0..self.rows)))
    }
}

impl StoredLinear {
    /// The error that parts cannot be run as one layer.
    fn unlike_parts(&self) -> ModelError {
        let modules: Vec<&str> = self.parts.iter().map(|part| part.module.as_str()).collect();
        ModelError::UnlikeParts { modules: modules.join(", ") }
    }
}

/// The parts of a layer as one. All read one input, rounded once: of several static scales the largest
/// serves, which clips nothing that any of them keeps. None if they ask for other things that differ.
pub(crate) fn stack(parts: Vec<QuantizedLinear>) -> Option<QuantizedLinear> {
    let inputs = parts.iter().map(|part| part.input.clone());
    let input = inputs.map(Some).reduce(|whole, next| {
        let (whole, next) = (whole?, next?);
        let scale = match (whole.scale, next.scale) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (None, None) => None,
            _ => return None,
        };
        let alike = LinearInput { scale, ..next };
        (LinearInput { scale, ..whole } == alike).then_some(alike)
    });
    let weight = PackedWeight::stack(parts.into_iter().map(|part| part.weight).collect())?;
    Some(QuantizedLinear { weight, input: input.flatten()? })
}
