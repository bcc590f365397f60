//! What Bantam writes: folders in the form of Hugging Face that other tools load.
//!
//! [`ShardWriter`] streams tensors; a [`Dialect`] turns a quantized layer into the tensors of its format
//! and lists all layers in the configuration; [`write_companions`] brings over everything else.

mod companions;
mod compressed_tensors;
mod modelopt;
mod rope;
mod scales;
mod shards;

use bantam_backend::QuantizedLinear;
use bantam_numerics::{ActivationFormat, Group, KvFormat, KvRanges, QuantScheme, WeightFormat};
use serde_json::Value;

use crate::CheckpointError;
pub use companions::{holds_weights, is_in_configuration, write_companions, write_json};
pub use shards::{OwnedTensor, SavedShards, ShardWriter};

/// The format of a quantized checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// What llm-compressor writes: vLLM, SGLang and transformers read it.
    CompressedTensors,
    /// What NVIDIA's Model Optimizer writes: TensorRT-LLM, vLLM and SGLang read it.
    ModelOpt,
}

/// A quantized linear layer as a configuration lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerScheme {
    /// Its full name, such as `model.layers.0.mlp.up_proj`.
    pub module: String,
    /// The formats of its weight and its input.
    pub scheme: QuantScheme,
    /// Whether its input has a calibrated scale.
    pub static_input: bool,
    /// Whether its input is multiplied by factors on the channels.
    pub channel_factors: bool,
}

impl LayerScheme {
    /// Of a layer that is quantized already.
    #[must_use]
    pub fn new(module: &str, linear: &QuantizedLinear) -> Self {
        Self {
            module: module.to_owned(),
            scheme: linear.weight.scheme(),
            static_input: linear.input.scale.is_some(),
            channel_factors: linear.input.channel_factors.is_some(),
        }
    }
}

/// What the configuration files say of quantized layers.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizationFiles {
    /// The value of `quantization_config` in `config.json`.
    pub quantization_config: Value,
    /// The content of `hf_quant_config.json`, for formats that have this file.
    pub hf_quant_config: Option<Value>,
}

impl Dialect {
    /// Its name in messages, and what the command line calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CompressedTensors => "compressed-tensors",
            Self::ModelOpt => "modelopt",
        }
    }

    /// Whether the format can hold a layer, before there is one.
    ///
    /// # Errors
    /// [`CheckpointError::Inexpressible`] with what it could hold.
    pub fn check(self, layer: &LayerScheme) -> Result<(), CheckpointError> {
        match self {
            Self::CompressedTensors => compressed_tensors::Form::new(layer).map(drop),
            Self::ModelOpt => modelopt::Algorithm::new(layer).map(drop),
        }
    }

    /// Bytes of the tensors of a layer `[n, k]` at most, before there is one.
    ///
    /// ```
    /// use bantam_checkpoint::Dialect;
    /// use bantam_numerics::QuantScheme;
    /// let bytes = Dialect::CompressedTensors.layer_bytes(QuantScheme::int4(128, true), 512, 1024);
    /// assert!((256 << 10..280 << 10).contains(&bytes));
    /// ```
    #[must_use]
    pub fn layer_bytes(self, scheme: QuantScheme, n: usize, k: usize) -> u64 {
        /// The shape, scales of the input.
        const SMALL: usize = 64;
        let groups = |group| match group {
            Group::PerChannel => 1,
            Group::Of(size) => k / size,
        };
        // Scales are f32 at most; zero points are levels, packed by eight rows.
        let integers = |row: usize, groups: usize, symmetric: bool| {
            n * row + 4 * n * groups + if symmetric { 0 } else { n.next_multiple_of(8) * groups }
        };
        let codes = match scheme.weight {
            WeightFormat::F32 => 4 * n * k,
            WeightFormat::BF16 => 2 * n * k,
            WeightFormat::Int8 { group } => integers(k.next_multiple_of(4), groups(group), true),
            WeightFormat::Int4 { group, symmetric } => {
                integers(4 * k.div_ceil(8), groups(group), symmetric)
            }
            WeightFormat::Fp8 { block } => {
                let (along_n, along_k) = block.grid(n, k);
                n * k + 4 * along_n * along_k
            }
        };
        let factors = if self == Self::ModelOpt { 4 * k } else { 0 };
        (codes + factors + SMALL) as u64
    }

    /// The tensors of a layer, under their names. A bias is not among them: it is copied.
    ///
    /// # Errors
    /// [`CheckpointError::Inexpressible`] as [`check`](Self::check), and if an offset is no whole
    /// multiple of its scale.
    pub fn tensors(
        self,
        module: &str,
        linear: &QuantizedLinear,
    ) -> Result<Vec<OwnedTensor>, CheckpointError> {
        match self {
            Self::CompressedTensors => compressed_tensors::tensors(module, linear),
            Self::ModelOpt => modelopt::tensors(module, linear),
        }
    }

    /// What the configuration says of the layers: those that are quantized, and the names of linear
    /// layers that are not, such as `lm_head`.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if the cache format has no words.
    pub fn files(
        self,
        layers: &[LayerScheme],
        unquantized: &[String],
        kv: Option<KvFormat>,
    ) -> Result<QuantizationFiles, CheckpointError> {
        match self {
            Self::CompressedTensors => compressed_tensors::files(layers, unquantized, kv),
            Self::ModelOpt => modelopt::files(layers, unquantized, kv),
        }
    }

    /// The calibrated scales of a layer's keys and values. `projections` are the modules that keys and
    /// values come from, the same one where they are fused.
    ///
    /// # Errors
    /// [`CheckpointError::Inexpressible`] for a cache format without scales or without words.
    pub fn kv_scales(
        self,
        projections: [&str; 2],
        format: KvFormat,
        ranges: KvRanges,
    ) -> Result<[OwnedTensor; 2], CheckpointError> {
        let attention = projections[0].rsplit_once('.').map_or("", |(attention, _)| attention);
        self.check_kv(attention, format)?;
        let beside = match self {
            Self::ModelOpt if projections[0] != projections[1] => projections,
            Self::CompressedTensors | Self::ModelOpt => [attention; 2],
        };
        let names = [format!("{}.k_scale", beside[0]), format!("{}.v_scale", beside[1])];
        let shape: &[usize] = if self == Self::ModelOpt { &[] } else { &[1] };
        let mut tensors = names.into_iter().zip(ranges.scales(format));
        let mut next = || {
            let (name, scale) = tensors.next().expect("a key and a value");
            scales::f32_tensor(name, shape, &[scale])
        };
        Ok([next(), next()])
    }

    /// Whether the format has words for a cache.
    fn check_kv(self, module: &str, format: KvFormat) -> Result<(), CheckpointError> {
        let known: &[KvFormat] = match self {
            Self::CompressedTensors => &[KvFormat::Fp8, KvFormat::Int8],
            Self::ModelOpt => &[KvFormat::Fp8],
        };
        if known.contains(&format) {
            return Ok(());
        }
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        let way_out = format!("use a cache of {}", known.join(" or "));
        Err(self.cannot(module, &format!("calibrated scales of a {format} cache"), way_out))
    }

    /// The error that the format has no words for something.
    fn cannot(self, module: &str, what: &str, way_out: String) -> CheckpointError {
        let (module, what) = (module.to_owned(), what.to_owned());
        CheckpointError::Inexpressible { module, format: self.name(), what, way_out }
    }

    /// The error for a scheme without words; `known` says which there are.
    fn cannot_hold(self, layer: &LayerScheme, known: &str) -> CheckpointError {
        let LayerScheme { module, scheme, static_input, channel_factors } = layer;
        let input = match (scheme.activation, static_input) {
            (ActivationFormat::F32 | ActivationFormat::BF16, _) => "",
            (_, true) => " with static scales",
            (_, false) => " with a scale for each token",
        };
        let factors = if *channel_factors { " and factors on the channels" } else { "" };
        self.cannot(module, &format!("{scheme}{input}{factors}"), format!("use {known}"))
    }
}
