//! Writes a checkpoint in formats that no recipe has, rounded to nearest: what
//! `tools/interchange/read_back.py` reads in transformers.
//!
//! ```text
//! cargo run -p bantam-model --example write_quantized -- SOURCE OUT
//! ```

use std::path::Path;

use bantam_backend::QuantizedLinear;
use bantam_checkpoint::write::{LayerScheme, is_in_configuration, write_companions};
use bantam_checkpoint::{Checkpoint, Dialect, ShardWriter};
use bantam_model::{ArchSpec, LinearRole};
use bantam_numerics::{ActivationFormat, Group, QuantScheme, ScaleBlock, WeightFormat, quantize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: write_quantized SOURCE OUT".into());
    };
    let source = Checkpoint::open(Path::new(&source))?;
    let int4 = WeightFormat::Int4 { group: Group::Of(32), symmetric: true };
    let int8 = WeightFormat::Int8 { group: Group::PerChannel };
    let fp8 = WeightFormat::Fp8 { block: ScaleBlock::CHANNEL };
    let cases = [
        ("w4a16", int4, ActivationFormat::BF16, None),
        ("w4afp8", int4, ActivationFormat::Fp8, None),
        ("w8a8-static", int8, ActivationFormat::Int8, Some(0.05)),
        ("fp8-naive", fp8, ActivationFormat::BF16, None),
    ];
    for (name, weight, activation, scale) in cases {
        let scheme = QuantScheme { weight, activation };
        write(&source, &Path::new(&out).join(name), scheme, scale)?;
    }
    Ok(())
}

/// Writes one folder.
fn write(
    source: &Checkpoint,
    folder: &Path,
    scheme: QuantScheme,
    scale: Option<f32>,
) -> Result<()> {
    let dialect = Dialect::CompressedTensors;
    let arch = ArchSpec::from_checkpoint(source)?;
    let mut writer = ShardWriter::create(folder, 5 << 30)?;
    let mut layers = Vec::new();
    let linears = (0..arch.sizes.layers).flat_map(|layer| arch.linears(layer));
    for linear in linears.filter(|linear| linear.role != LinearRole::Head) {
        for part in &linear.parts {
            let weight = source.tensor(&format!("{}.weight", part.module))?;
            let packed = quantize(&weight.to_f32()?, part.rows, linear.k, scheme)?;
            let mut quantized = QuantizedLinear::new(packed);
            quantized.input.scale = scale;
            layers.push(LayerScheme::new(&part.module, &quantized));
            for tensor in dialect.tensors(&part.module, &quantized)? {
                writer.push_owned(&tensor)?;
            }
        }
    }
    let rounded =
        |name: &str| layers.iter().any(|layer| name == format!("{}.weight", layer.module));
    let kept = |name: &str| !rounded(name) && !is_in_configuration(name);
    for tensor in source.tensors().filter(|tensor| kept(tensor.name)) {
        writer.copy(&tensor)?;
    }
    let files = dialect.files(&layers, &["lm_head".to_owned()], None)?;
    write_companions(source, folder, Some(&files))?;
    writer.finish()?;
    Ok(())
}
