//! From a checkpoint to the network it holds.

use bantam_checkpoint::{Checkpoint, Format, Quantization};

use crate::arch::{ArchSpec, Positions};
use crate::error::ModelError;
use crate::load::finite_values;
use crate::rope::RopeScaling;
use crate::stored::ROPE_DIVISORS;

impl ArchSpec {
    /// The same network, quantized this way.
    pub(crate) fn quantized(self, quantization: Option<Quantization>) -> Self {
        let kv_format = quantization.as_ref().and_then(Quantization::kv_format);
        let quantization = quantization.filter(Quantization::has_layers);
        Self { kv_format, quantization, ..self }
    }

    /// Describes the network of a checkpoint: its configuration, how other files say it is quantized,
    /// and the frequency divisors that GGUF files keep in a tensor.
    ///
    /// # Errors
    /// As [`from_config`](Self::from_config), naming the checkpoint's own file.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let file = match checkpoint.format() {
            Format::Safetensors => checkpoint.path().join("config.json"),
            Format::Gguf => checkpoint.path().to_path_buf(),
        };
        let file = file.display().to_string();
        let arch = Self::from_config_file(checkpoint.config(), &file)?;
        let mut arch = arch.quantized(Quantization::of(checkpoint)?);
        if !checkpoint.has_tensor(ROPE_DIVISORS) {
            return Ok(arch);
        }
        let divisors = finite_values(&checkpoint.tensor(ROPE_DIVISORS)?)?;
        if let Positions::Rotary(rotary) = &mut arch.positions {
            // llama.cpp divides by both.
            let linear = match rotary.scaling {
                RopeScaling::None => Some(1.0),
                RopeScaling::Linear { factor } => Some(factor),
                _ => None,
            };
            let Some(linear) = linear else {
                return Err(ModelError::BadValue {
                    file,
                    key: "rope_scaling".to_owned(),
                    got: "a rule of its own".to_owned(),
                    expected: format!("none or linear beside the tensor {ROPE_DIVISORS}"),
                });
            };
            let divisors = divisors.into_iter().map(|divisor| divisor * linear).collect();
            rotary.scaling = RopeScaling::Divisors(divisors);
        }
        Ok(arch)
    }
}
