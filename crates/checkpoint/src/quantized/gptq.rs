//! GPTQ, as AutoGPTQ and GPTQModel store it: W transposed, `[K, N]`, packed along K, with integer zero
//! points, and the group of each input feature where they are not in order.
//!
//! The first convention (`gptq`) stores zero points less one, subtracted from whole words, so that a zero
//! point of zero borrows from the next; the second (`gptq_v2`) stores them as they are. An
//! activation order that scatters groups becomes an order of the input's channels: columns are sorted by
//! group, so that kernels see groups side by side.

use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_numerics::{
    DType, GroupAffine, PackedWeight, QuantScheme, WeightData, WeightFormat, weight::pack_nibbles,
};

use super::{
    LayerFormat, Pattern, Rule, Settings, Source, StoredTensor, WEIGHT_ONLY, group_of, unsupported,
};
use crate::CheckpointError;
use crate::packing::{WORD_BYTES, Words, per_word};

pub(super) const METHOD: &str = "gptq";

/// INT4 or INT8 in groups, or per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    bits: usize,
    /// None for K.
    group: Option<usize>,
    symmetric: bool,
    /// Whether zero points are stored less one.
    less_one: bool,
}

pub(super) fn parse(settings: &Settings<'_>) -> Result<Vec<Rule>, CheckpointError> {
    let mut rules = Vec::new();
    let dynamic = settings.object("dynamic")?;
    for (expression, overrides) in dynamic.iter().flat_map(Settings::objects) {
        let excluded = expression.strip_prefix("-:");
        let expression = excluded.or(expression.strip_prefix("+:")).unwrap_or(expression);
        let pattern = Pattern::regex(expression).map_err(|problem| settings.error(problem))?;
        let layout = match excluded {
            Some(_) => None,
            None => Some(layout(&[overrides, *settings])?),
        };
        rules.push(Rule { modules: vec![pattern], layout });
    }
    if settings.flag("lm_head")? != Some(true) {
        let head = Pattern::Name("lm_head".to_owned());
        rules.push(Rule { modules: vec![head], layout: None });
    }
    let layout = Some(layout(&[*settings])?);
    rules.push(Rule { modules: vec![Pattern::Every], layout });
    Ok(rules)
}

/// The layout by the first of several settings that has a key.
fn layout(settings: &[Settings<'_>]) -> Result<super::Layout, CheckpointError> {
    let first = |key: &str| settings.iter().find(|settings| settings.get(key).is_some());
    let integer = |key| first(key).map_or(Ok(None), |settings| settings.integer(key));
    let bits = integer("bits")?.unwrap_or(4);
    let group = integer("group_size")?.unwrap_or(128);
    let symmetric = first("sym").map_or(Ok(None), |s| s.flag("sym"))?.unwrap_or(true);
    let text = |key| first(key).map_or(Ok(None), |settings| settings.text(key));
    let format = text("checkpoint_format")?.unwrap_or("gptq");
    let pack = text("pack_dtype")?.unwrap_or("int32");
    let less_one = match format {
        "gptq" => Some(true),
        "gptq_v2" => Some(false),
        _ => None,
    };
    Ok(match (bits, symmetric, less_one) {
        (4, _, Some(less_one)) | (8, true, Some(less_one)) if pack == "int32" => {
            let group = usize::try_from(group).ok().filter(|&size| size > 0);
            super::Layout::Gptq(Layout { bits: bits as usize, group, symmetric, less_one })
        }
        _ => {
            let sym = if symmetric { "symmetric" } else { "asymmetric" };
            let what = format!("{bits} bits, {sym}, in format `{format}` of {pack}");
            unsupported(&what, "4 bits, or 8 symmetric, in format `gptq` or `gptq_v2` of int32")
        }
    })
}

impl LayerFormat for Layout {
    fn scheme(&self, n: usize, k: usize) -> Result<QuantScheme, String> {
        let per_word = per_word(self.bits);
        if !n.is_multiple_of(per_word) || !k.is_multiple_of(per_word) {
            return Err(format!("[{n}, {k}] is no whole number of words of {per_word}"));
        }
        let group = group_of(self.group.unwrap_or(k), k)?;
        let weight = match self.bits {
            8 => WeightFormat::Int8 { group },
            _ => WeightFormat::Int4 { group, symmetric: self.symmetric },
        };
        Ok(QuantScheme { weight, activation: WEIGHT_ONLY })
    }

    fn tensors(&self, n: usize, k: usize) -> Vec<StoredTensor> {
        let (per_word, groups) = (per_word(self.bits), k / self.group.unwrap_or(k));
        vec![
            StoredTensor::required("qweight", &[k / per_word, n]),
            StoredTensor::required("qzeros", &[groups, n / per_word]),
            StoredTensor::required("scales", &[groups, n]),
            StoredTensor::required("g_idx", &[k]).if_present(),
        ]
    }

    fn read(&self, source: &Source<'_>) -> Result<QuantizedLinear, CheckpointError> {
        let &Source { n, k, .. } = source;
        let (bits, group) = (self.bits, self.group.unwrap_or(k));
        let (per_word, groups) = (per_word(bits), k / group);
        let weights = source.bytes("qweight", DType::I32, [k / per_word, n])?;
        let weights = Words { bytes: weights, columns: n, bits };
        let zeros = source.bytes("qzeros", DType::I32, [groups, n / per_word])?;
        let zeros = if self.less_one { plus_one(&zeros, bits) } else { zeros };
        let zeros = Words { bytes: zeros, columns: n / per_word, bits };
        let by_group = source.numbers("scales", groups * n)?;
        let order = order_of_groups(source, "g_idx", k, group)?;

        let middle = 1u32 << (bits - 1);
        let level = |n: usize, k: usize| {
            let k = order.as_ref().map_or(k, |order| order[k] as usize);
            (weights.along_rows(k, n) as i32 - middle as i32) as i8
        };
        let zero = |g: usize, n: usize| zeros.along_columns(g, n);
        let at = |i: usize| (i / groups, i % groups);
        let scales: Vec<f32> = (0..n * groups).map(|i| by_group[at(i).1 * n + at(i).0]).collect();
        let offsets = if self.symmetric {
            if let Some(i) = (0..n * groups).find(|&i| zero(at(i).1, at(i).0) != middle) {
                let (row, g) = at(i);
                let got = zero(g, row);
                let problem = format!(
                    "zero point of output feature {row} is {got}, expected {middle}: \
                     the configuration says symmetric"
                );
                return Err(source.error("qzeros", problem));
            }
            None
        } else {
            let offset = |(i, scale): (usize, &f32)| {
                let (row, g) = at(i);
                (middle as i32 - zero(g, row) as i32) as f32 * scale
            };
            Some(scales.iter().enumerate().map(offset).collect())
        };
        let affine = GroupAffine { group, scales, offsets };
        let rows = (0..n).map(|n| (0..k).map(|k| level(n, k)).collect::<Vec<_>>());
        let data = match bits {
            8 => WeightData::Int8 { levels: rows.flatten().collect(), affine },
            _ => {
                let nibbles = rows.flat_map(|row| pack_nibbles(&row)).collect();
                WeightData::Int4 { nibbles, affine }
            }
        };
        let weight = PackedWeight { n, k, activation: WEIGHT_ONLY, data };
        let input = LinearInput { order, ..LinearInput::new(WEIGHT_ONLY) };
        Ok(QuantizedLinear { weight, input })
    }
}

/// Words of numbers with one added to each.
fn plus_one(words: &[u8], bits: usize) -> Vec<u8> {
    let ones = u32::MAX / ((1 << bits) - 1);
    let add =
        |word: &[u8]| u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_add(ones);
    words.chunks_exact(WORD_BYTES).flat_map(|word| add(word).to_le_bytes()).collect()
}

/// The input features sorted by their group, if a tensor gives groups that are not in order already.
pub(super) fn order_of_groups(
    source: &Source<'_>,
    part: &str,
    k: usize,
    group: usize,
) -> Result<Option<Vec<u32>>, CheckpointError> {
    if source.optional(part).is_none() {
        return Ok(None);
    }
    let groups = source.numbers(part, k)?;
    // −1 everywhere is how compressed-tensors says that there is no order.
    let ordered = |(k, &g): (usize, &f32)| g == (k / group) as f32;
    if groups.iter().enumerate().all(ordered) || groups.iter().all(|&g| g == -1.0) {
        return Ok(None);
    }
    let mut order: Vec<u32> = (0..k as u32).collect();
    order.sort_by(|&a, &b| groups[a as usize].total_cmp(&groups[b as usize]));
    match order.iter().enumerate().find(|&(i, &k)| groups[k as usize] != (i / group) as f32) {
        None => Ok(Some(order)),
        Some(_) => {
            let problem = format!("does not give each of {} groups {group} features", k / group);
            Err(source.error(part, problem))
        }
    }
}
