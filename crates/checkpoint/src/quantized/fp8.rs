//! FP8 checkpoints of vLLM and AutoFP8 (one scale a tensor) and of DeepSeek (one for 128×128 weights).
//!
//! `weight_scale_inv` multiplies, whatever its name says. Dynamic inputs have a scale for each token:
//! what one for the whole step would be depends on who else is in it.

use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_numerics::{
    ActivationFormat, DType, KvFormat, PackedWeight, QuantScheme, ScaleBlock, WeightData,
    WeightFormat,
};

use super::{LayerFormat, Pattern, Rule, Settings, Source, StoredTensor, unsupported};
use crate::CheckpointError;

pub(super) const METHOD: &str = "fp8";

const SCALE: &str = "weight_scale";
const INVERSE: &str = "weight_scale_inv";

/// E4M3 codes and their scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    block: ScaleBlock,
    activation: ActivationFormat,
    static_input: bool,
}

pub(super) fn parse(
    settings: &Settings<'_>,
) -> Result<(Vec<Rule>, Option<KvFormat>), CheckpointError> {
    let format = settings.text("fmt")?.unwrap_or("e4m3");
    let block = match settings.get("weight_block_size") {
        None => None,
        Some(value) => Some(block_of(value).ok_or_else(|| {
            settings.error(format!("weight_block_size is {value}, expected two positive numbers"))
        })?),
    };
    let scheme = settings.text("activation_scheme")?.unwrap_or("dynamic");
    let layout = match (format, block, scheme) {
        ("e4m3", None, "static" | "dynamic") => super::Layout::Fp8(Layout {
            block: ScaleBlock::TENSOR,
            activation: ActivationFormat::Fp8,
            static_input: scheme == "static",
        }),
        ("e4m3", Some(block), "dynamic") if block.columns == ActivationFormat::SCALE_BLOCK => {
            let activation = ActivationFormat::Fp8Blocks;
            super::Layout::Fp8(Layout { block, activation, static_input: false })
        }
        _ => unsupported(
            &format!("fp8 `{format}` with {scheme} inputs and blocks {block:?}"),
            "e4m3 with one scale a tensor and static or dynamic inputs, \
             or blocks of 128 columns and dynamic inputs",
        ),
    };
    let mut ignored = settings.parts("ignored_layers")?;
    ignored.extend(settings.parts("modules_to_not_convert")?);
    // The head is no linear layer to the tools that write and read this.
    ignored.push(Pattern::Name("lm_head".to_owned()));
    let rules = vec![
        Rule { modules: ignored, layout: None },
        Rule { modules: vec![Pattern::Every], layout: Some(layout) },
    ];
    let kv = settings.get("kv_cache_scheme").map(|_| KvFormat::Fp8);
    Ok((rules, kv))
}

/// `[rows, columns]`.
pub(super) fn block_of(value: &serde_json::Value) -> Option<ScaleBlock> {
    let number = |at: usize| value.get(at)?.as_u64().filter(|&size| size > 0);
    let [rows, columns] = [number(0)? as usize, number(1)? as usize];
    (value.as_array()?.len() == 2).then_some(ScaleBlock { rows, columns })
}

impl Layout {
    /// The tensor of scales, by the name that its own tool gives it.
    fn scale(&self) -> &'static str {
        if self.block == ScaleBlock::TENSOR { SCALE } else { INVERSE }
    }
}

impl LayerFormat for Layout {
    fn scheme(&self, _n: usize, _k: usize) -> Result<QuantScheme, String> {
        let weight = WeightFormat::Fp8 { block: self.block };
        Ok(QuantScheme { weight, activation: self.activation })
    }

    fn tensors(&self, n: usize, k: usize) -> Vec<StoredTensor> {
        let (along_n, along_k) = self.block.grid(n, k);
        let scale = StoredTensor::required(self.scale(), &[along_n, along_k]);
        let scales = if self.block == ScaleBlock::TENSOR {
            // Exporters differ in the name; `read` says what is missing where neither is there.
            let scale = scale.or(&[]).or(&[1]).if_present();
            let other = StoredTensor { name: INVERSE.to_owned(), ..scale.clone() };
            vec![scale, other]
        } else {
            vec![scale]
        };
        let weight = StoredTensor::required("weight", &[n, k]);
        let input = self.static_input.then(|| StoredTensor::scalar("input_scale"));
        std::iter::once(weight).chain(scales).chain(input).collect()
    }

    fn read(&self, source: &Source<'_>) -> Result<QuantizedLinear, CheckpointError> {
        let &Source { n, k, .. } = source;
        let renamed = source.optional(self.scale()).is_none() && source.optional(INVERSE).is_some();
        let data = codes(source, self.block, if renamed { INVERSE } else { self.scale() })?;
        let mut input = LinearInput::new(self.activation);
        if self.static_input {
            input.scale = Some(source.input_scale("input_scale")?);
        }
        let weight = PackedWeight { n, k, activation: self.activation, data };
        Ok(QuantizedLinear { weight, input })
    }
}

/// E4M3 codes with the scales of tensor `scale`.
pub(super) fn codes(
    source: &Source<'_>,
    block: ScaleBlock,
    scale: &str,
) -> Result<WeightData, CheckpointError> {
    let &Source { n, k, .. } = source;
    let codes = source.bytes("weight", DType::F8E4M3, [n, k])?;
    if let Some(at) = codes.iter().position(|code| code & 0x7f == 0x7f) {
        let (row, column) = (at / k, at % k);
        return Err(source.error("weight", format!("weight [{row}, {column}] is NaN")));
    }
    let (along_n, along_k) = block.grid(n, k);
    let scales = source.numbers(scale, along_n * along_k)?;
    Ok(WeightData::Fp8 { codes, block, scales })
}
