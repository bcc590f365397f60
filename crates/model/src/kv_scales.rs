//! Calibrated scales of the key/value cache that a checkpoint brings.

use bantam_checkpoint::Checkpoint;
use bantam_numerics::{KvFormat, KvRanges};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::load::finite_values;
use crate::names::QkvNames;
use crate::stored::in_layer;

/// A scale is a tensor of one number.
const KEY: &str = "k_scale";
const VALUE: &str = "v_scale";

impl ArchSpec {
    /// Where tools put the scales of a layer's keys and values: ModelOpt beside the projections they
    /// come from, compressed-tensors beside the attention.
    fn kv_scale_places(&self, layer: usize) -> Vec<[String; 2]> {
        let (own, projection) = match self.names.qkv {
            QkvNames::Separate([_, k, v]) => {
                let beside = |module: &str, scale| format!("{}.{scale}", in_layer(module, layer));
                (Some([beside(k, KEY), beside(v, VALUE)]), k)
            }
            QkvNames::Stacked(qkv) | QkvNames::Grouped(qkv) => (None, qkv),
        };
        let attention = projection.rsplit_once('.').map_or("", |(attention, _)| attention);
        let of_attention =
            [KEY, VALUE].map(|scale| in_layer(&format!("{attention}.{scale}"), layer));
        own.into_iter().chain([of_attention]).collect()
    }

    /// All names that such scales may have.
    pub(crate) fn kv_scale_names(&self) -> impl Iterator<Item = String> {
        (0..self.sizes.layers).flat_map(|layer| self.kv_scale_places(layer)).flatten()
    }

    /// The ranges of a layer's keys and values, if the checkpoint has them: as the cache format that
    /// the configuration states says, else as FP8, which is what tools write.
    ///
    /// # Errors
    /// If one of two scales is missing, or one is not a positive number.
    pub(crate) fn kv_ranges(
        &self,
        checkpoint: &Checkpoint,
        layer: usize,
    ) -> Result<Option<KvRanges>, ModelError> {
        let places = self.kv_scale_places(layer);
        let stored = |names: &&[String; 2]| names.iter().any(|name| checkpoint.has_tensor(name));
        let Some([key, value]) = places.iter().find(stored) else { return Ok(None) };
        let format = self.kv_format.unwrap_or(KvFormat::Fp8);
        let (key, value) = (scale(checkpoint, key)?, scale(checkpoint, value)?);
        Ok(Some(KvRanges::from_scales(format, key, value)))
    }
}

/// Reads a scale.
fn scale(checkpoint: &Checkpoint, name: &str) -> Result<f32, ModelError> {
    let tensor = checkpoint.tensor(name)?;
    let values = finite_values(&tensor)?;
    match values[..] {
        [scale] if scale > 0.0 => Ok(scale),
        _ => Err(ModelError::KvScale {
            file: tensor.file().display().to_string(),
            tensor: name.to_owned(),
            got: if values.len() == 1 {
                values[0].to_string()
            } else {
                format!("{} numbers", values.len())
            },
        }),
    }
}
