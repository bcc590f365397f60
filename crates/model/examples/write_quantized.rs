//! Writes a checkpoint in a quantized format, rounded to nearest, with Bantam's logits beside it: what
//! `tools/interchange/read_back.py` holds against transformers.
//!
//! ```text
//! cargo run -p bantam-model --example write_quantized -- SOURCE OUT
//! ```

use std::path::Path;

use bantam_backend::{Batch, QuantizedLinear, reference::Reference};
use bantam_checkpoint::write::{LayerScheme, write_companions, write_json};
use bantam_checkpoint::{Checkpoint, Dialect, ShardWriter};
use bantam_model::{ArchSpec, Decoder, LinearRole, LoadOptions, Precision};
use bantam_numerics::{
    ActivationFormat, Group, PackedWeight, QuantScheme, ScaleBlock, WeightData, WeightFormat,
    quantize,
};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TOKENS: [u32; 8] = [3, 14, 15, 92, 65, 35, 89, 79];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: write_quantized SOURCE OUT".into());
    };
    let source = Checkpoint::open(Path::new(&source))?;
    use ActivationFormat::{BF16, Fp8, Int8};
    let int4 = |symmetric| WeightFormat::Int4 { group: Group::Of(32), symmetric };
    let int8 = WeightFormat::Int8 { group: Group::PerChannel };
    let fp8 = |block| WeightFormat::Fp8 { block };
    let ct = Dialect::CompressedTensors;
    let cases = [
        ("w4a16", ct, int4(true), BF16, None),
        ("w4a16-asym", ct, int4(false), BF16, None),
        ("w4afp8", ct, int4(true), Fp8, None),
        ("w8a16", ct, int8, BF16, None),
        ("w8a8-static", ct, int8, Int8, Some(0.05)),
        ("fp8", ct, fp8(ScaleBlock::TENSOR), Fp8, Some(0.02)),
        ("fp8-dynamic", ct, fp8(ScaleBlock::CHANNEL), Fp8, None),
        ("fp8-naive", ct, fp8(ScaleBlock::CHANNEL), BF16, None),
    ];
    for (name, dialect, weight, activation, scale) in cases {
        let scheme = QuantScheme { weight, activation };
        write(&source, &Path::new(&out).join(name), dialect, scheme, scale)?;
        println!("{name}");
    }
    Ok(())
}

/// Writes one folder.
fn write(
    source: &Checkpoint,
    folder: &Path,
    dialect: Dialect,
    scheme: QuantScheme,
    scale: Option<f32>,
) -> Result<()> {
    let arch = ArchSpec::from_checkpoint(source)?;
    let mut writer = ShardWriter::create(folder, 5 << 30)?;
    let mut layers = Vec::new();
    let linears = (0..arch.sizes.layers).flat_map(|layer| arch.linears(layer));
    for linear in linears.filter(|linear| linear.role != LinearRole::Head) {
        for part in &linear.parts {
            let weight = source.tensor(&format!("{}.weight", part.module))?;
            let packed = quantize(&weight.to_f32()?, part.rows, linear.k, scheme)?;
            let mut quantized = QuantizedLinear::new(storable(packed));
            quantized.input.scale = scale;
            layers.push(LayerScheme::new(&part.module, &quantized));
            for tensor in dialect.tensors(&part.module, &quantized)? {
                writer.push_owned(&tensor)?;
            }
        }
    }
    let rounded =
        |name: &str| layers.iter().any(|layer| name == format!("{}.weight", layer.module));
    for tensor in source.tensors().filter(|tensor| !rounded(tensor.name)) {
        writer.copy(&tensor)?;
    }
    let files = dialect.files(&layers, &["lm_head".to_owned()], None)?;
    write_companions(source, folder, Some(&files))?;
    writer.finish()?;

    let options = LoadOptions {
        precision: Precision::F32,
        max_logit_rows: TOKENS.len(),
        ..Default::default()
    };
    let mut decoder = Decoder::load(Reference, &Checkpoint::open(folder)?, &options, &|_| {})?;
    let mut batch = Batch::default();
    batch.push(&TOKENS, 0, &[0])?;
    batch.want_all_logits();
    let logits = decoder.forward(&batch)?;
    let rows: Vec<&[f32]> = logits.chunks_exact(decoder.arch().sizes.vocabulary).collect();
    Ok(write_json(&folder.join("golden.json"), &json!({"tokens": TOKENS, "logits": rows}))?)
}

/// Offsets as whole multiples of the scales, which is all that zero points say.
fn storable(mut weight: PackedWeight) -> PackedWeight {
    if let WeightData::Int4 { affine, .. } = &mut weight.data {
        for (offset, scale) in affine.offsets.iter_mut().flatten().zip(&affine.scales) {
            *offset = -(-*offset / scale).round().clamp(-8.0, 7.0) * scale;
        }
    }
    weight
}
