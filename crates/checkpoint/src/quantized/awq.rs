//! AutoAWQ, as its GEMM kernels store weights: W transposed, `[K, N]`, eight columns in a word in an
//! order of their own, with integer zero points.

use bantam_backend::QuantizedLinear;
use bantam_numerics::{
    DType, GroupAffine, PackedWeight, QuantScheme, WeightData, WeightFormat, weight::pack_nibbles,
};

use super::{
    LayerFormat, Pattern, Rule, Settings, Source, StoredTensor, WEIGHT_ONLY, group_of, unsupported,
};
use crate::CheckpointError;
use crate::packing::{Words, per_word};

pub(super) const METHOD: &str = "awq";

const BITS: usize = 4;
/// Where in its word column i of eight lies: the kernels unpack pairs.
const PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// INT4 in groups, or per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    /// None for K.
    group: Option<usize>,
}

pub(super) fn parse(settings: &Settings<'_>) -> Result<Vec<Rule>, CheckpointError> {
    // The file of its own has other names.
    let bits = settings.integer("bits")?.or(settings.integer("w_bit")?).unwrap_or(4);
    let group = settings.integer("group_size")?.or(settings.integer("q_group_size")?);
    let version = settings.text("version")?.unwrap_or("gemm").to_lowercase();
    let zero_point = settings.flag("zero_point")?.unwrap_or(true);
    let layout = if bits == BITS as i64 && version == "gemm" && zero_point {
        let group = usize::try_from(group.unwrap_or(128)).ok().filter(|&size| size > 0);
        super::Layout::Awq(Layout { group })
    } else {
        let zeros = if zero_point { "with" } else { "without" };
        let what = format!("{bits} bits in version `{version}` {zeros} zero points");
        unsupported(&what, "4 bits in version `gemm` with zero points")
    };
    let mut excluded = settings.parts("modules_to_not_convert")?;
    excluded.push(Pattern::Name("lm_head".to_owned()));
    Ok(vec![
        Rule { modules: excluded, layout: None },
        Rule { modules: vec![Pattern::Every], layout: Some(layout) },
    ])
}

impl LayerFormat for Layout {
    fn scheme(&self, n: usize, k: usize) -> Result<QuantScheme, String> {
        if !n.is_multiple_of(per_word(BITS)) {
            return Err(format!("{n} output features are no whole words of 8"));
        }
        let group = group_of(self.group.unwrap_or(k), k)?;
        let weight = WeightFormat::Int4 { group, symmetric: false };
        Ok(QuantScheme { weight, activation: WEIGHT_ONLY })
    }

    fn tensors(&self, n: usize, k: usize) -> Vec<StoredTensor> {
        let (words, groups) = (n / per_word(BITS), k / self.group.unwrap_or(k));
        vec![
            StoredTensor::required("qweight", &[k, words]),
            StoredTensor::required("qzeros", &[groups, words]),
            StoredTensor::required("scales", &[groups, n]),
        ]
    }

    fn read(&self, source: &Source<'_>) -> Result<QuantizedLinear, CheckpointError> {
        let &Source { n, k, .. } = source;
        let group = self.group.unwrap_or(k);
        let (columns, groups) = (n / per_word(BITS), k / group);
        let words = |part, rows| {
            let bytes = source.bytes(part, DType::I32, [rows, columns])?;
            Ok::<_, CheckpointError>(Words { bytes, columns, bits: BITS })
        };
        let (weights, zeros) = (words("qweight", k)?, words("qzeros", groups)?);
        let by_group = source.numbers("scales", groups * n)?;
        let place = |n: usize| n / 8 * 8 + PLACES[n % 8];
        let nibbles = (0..n).flat_map(|n| {
            let level = |k| weights.along_columns(k, place(n)) as i8 - 8;
            pack_nibbles(&(0..k).map(level).collect::<Vec<_>>())
        });
        let scales: Vec<f32> =
            (0..n * groups).map(|i| by_group[i % groups * n + i / groups]).collect();
        let offset = |(i, scale): (usize, &f32)| {
            let zero = zeros.along_columns(i % groups, place(i / groups)) as i32;
            (8 - zero) as f32 * scale
        };
        let offsets = scales.iter().enumerate().map(offset).collect();
        let nibbles = nibbles.collect();
        let affine = GroupAffine { group, scales, offsets: Some(offsets) };
        let data = WeightData::Int4 { nibbles, affine };
        Ok(QuantizedLinear::new(PackedWeight { n, k, activation: WEIGHT_ONLY, data }))
    }
}
