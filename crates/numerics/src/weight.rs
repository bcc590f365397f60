//! A stored weight matrix, and the only code that knows the order of nibbles in it.

use crate::activation::ActivationFormat;
use crate::float8::e4m3_to_f32;
use crate::scheme::{Group, QuantScheme, ScaleBlock, WeightFormat};
use half::bf16;
use std::ops::Range;

/// The weight of a linear layer, `W: [N, K]` in row-major order, whatever its format.
///
/// This is the canonical form that readers and quantizers produce; a back end repacks it into the
/// order its kernels like. Build one with [`quantize`](crate::quantize::quantize).
///
/// ```
/// use bantam_numerics::{quantize::quantize, QuantScheme};
/// let weight = quantize(&[1.0, -0.5, 0.25, 0.125], 1, 4, QuantScheme::INT8)?;
/// assert_eq!(weight.level(0, 0), 127);
/// assert_eq!(weight.bytes(), 4 + 4); // four values and one f32 scale
/// # Ok::<(), bantam_numerics::quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PackedWeight {
    /// Output features, N.
    pub n: usize,
    /// Input features, K.
    pub k: usize,
    /// What the layer asks of its input.
    pub activation: ActivationFormat,
    /// The numbers.
    pub data: WeightData,
}

/// The numbers of a [`PackedWeight`].
#[derive(Clone, Debug, PartialEq)]
pub enum WeightData {
    /// `[N, K]`.
    F32(Vec<f32>),
    /// `[N, K]`.
    BF16(Vec<bf16>),
    /// Levels −128..=127, `[N, K]`.
    Int8 {
        /// The integers.
        levels: Vec<i8>,
        /// How they become weights.
        affine: GroupAffine,
    },
    /// Levels −8..=7 as two nibbles a byte, `[N, ⌈K/2⌉]`; see [`PackedWeight::level`].
    Int4 {
        /// The integers, offset by 8: even k in the low nibble, odd k in the high one.
        nibbles: Vec<u8>,
        /// How they become weights.
        affine: GroupAffine,
    },
    /// E4M3 codes, `[N, K]`.
    Fp8 {
        /// The codes.
        codes: Vec<u8>,
        /// Which weights share a scale.
        block: ScaleBlock,
        /// One for each block, row by row of [`ScaleBlock::grid`].
        scales: Vec<f32>,
    },
}

/// The map from integer levels to weights, one for each group along K: `w = level·scale + offset`.
///
/// An integer zero point z is the offset −z·scale, so every affine integer format of the field,
/// GGML's `d·q + m` included, is this one form.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAffine {
    /// Weights along K that share a scale; K itself for per-channel scales.
    pub group: usize,
    /// `[N, K/g]`.
    pub scales: Vec<f32>,
    /// `[N, K/g]`; none for symmetric formats.
    pub offsets: Option<Vec<f32>>,
}

impl GroupAffine {
    fn bytes(&self, bytes_per_number: usize) -> usize {
        bytes_per_number * (self.scales.len() + self.offsets.as_ref().map_or(0, Vec::len))
    }
}

/// Bytes of a group scale or offset: they are rounded to f16 when a weight is quantized.
const GROUP_SCALE_BYTES: usize = 2;
/// Bytes of a per-channel scale, and of any scale of FP8.
const CHANNEL_SCALE_BYTES: usize = 4;
/// Stored nibbles are unsigned; the level is the nibble minus this.
const NIBBLE_ZERO: i8 = 8;

impl PackedWeight {
    /// The scheme that this weight follows.
    #[must_use]
    pub fn scheme(&self) -> QuantScheme {
        let group = |affine: &GroupAffine| {
            if affine.group == self.k { Group::PerChannel } else { Group::Of(affine.group) }
        };
        let weight = match &self.data {
            WeightData::F32(_) => WeightFormat::F32,
            WeightData::BF16(_) => WeightFormat::BF16,
            WeightData::Int8 { affine, .. } => WeightFormat::Int8 { group: group(affine) },
            WeightData::Int4 { affine, .. } => {
                WeightFormat::Int4 { group: group(affine), symmetric: affine.offsets.is_none() }
            }
            WeightData::Fp8 { block, .. } => WeightFormat::Fp8 { block: *block },
        };
        QuantScheme { weight, activation: self.activation }
    }

    /// Size in bytes as stored: values, scales and offsets.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let scale_bytes = |affine: &GroupAffine| {
            affine.bytes(if affine.group == self.k {
                CHANNEL_SCALE_BYTES
            } else {
                GROUP_SCALE_BYTES
            })
        };
        match &self.data {
            WeightData::F32(values) => 4 * values.len(),
            WeightData::BF16(values) => 2 * values.len(),
            WeightData::Int8 { levels, affine } => levels.len() + scale_bytes(affine),
            WeightData::Int4 { nibbles, affine } => nibbles.len() + scale_bytes(affine),
            WeightData::Fp8 { codes, scales, .. } => {
                codes.len() + CHANNEL_SCALE_BYTES * scales.len()
            }
        }
    }

    /// The integer level of weight (n, k).
    ///
    /// # Panics
    /// If the weight is not an integer format or the index is out of range.
    #[must_use]
    pub fn level(&self, n: usize, k: usize) -> i8 {
        match &self.data {
            WeightData::Int8 { levels, .. } => levels[n * self.k + k],
            WeightData::Int4 { nibbles, .. } => {
                let byte = nibbles[n * self.k.div_ceil(2) + k / 2];
                let nibble = if k.is_multiple_of(2) { byte & 0xf } else { byte >> 4 };
                nibble as i8 - NIBBLE_ZERO
            }
            WeightData::F32(_) | WeightData::BF16(_) | WeightData::Fp8 { .. } => {
                panic!("level() of a {} weight, which has none", self.scheme())
            }
        }
    }

    /// Decodes row `n` into `out: [K]`.
    ///
    /// # Panics
    /// If `n ≥ N` or `out` is not K long.
    pub fn decode_row(&self, n: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.k, "a row has K elements");
        let row = n * self.k..(n + 1) * self.k;
        match &self.data {
            WeightData::F32(values) => out.copy_from_slice(&values[row]),
            WeightData::BF16(values) => {
                for (o, v) in out.iter_mut().zip(&values[row]) {
                    *o = v.to_f32();
                }
            }
            WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. } => {
                let groups = self.k / affine.group;
                for (k, o) in out.iter_mut().enumerate() {
                    let g = n * groups + k / affine.group;
                    let offset = affine.offsets.as_ref().map_or(0.0, |offsets| offsets[g]);
                    *o = f32::from(self.level(n, k)) * affine.scales[g] + offset;
                }
            }
            WeightData::Fp8 { codes, block, scales } => {
                let (_, along_k) = block.grid(self.n, self.k);
                let scales = &scales[n / block.rows * along_k..][..along_k];
                for (k, (o, &code)) in out.iter_mut().zip(&codes[row]).enumerate() {
                    *o = e4m3_to_f32(code) * scales[k / block.columns];
                }
            }
        }
    }

    /// All weights as f32, `[N, K]`.
    #[must_use]
    pub fn decode(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.k];
        for (n, row) in out.chunks_exact_mut(self.k).enumerate() {
            self.decode_row(n, row);
        }
        out
    }

    /// Some of its rows. FP8 rows have their own scales then.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let (n, k) = (rows.len(), self.k);
        let values = rows.start * k..rows.end * k;
        let data = match &self.data {
            WeightData::F32(all) => WeightData::F32(all[values].to_vec()),
            WeightData::BF16(all) => WeightData::BF16(all[values].to_vec()),
            WeightData::Int8 { levels, affine } => {
                WeightData::Int8 { levels: levels[values].to_vec(), affine: affine.rows(rows, k) }
            }
            WeightData::Int4 { nibbles, affine } => {
                let bytes = k.div_ceil(2);
                let nibbles = nibbles[rows.start * bytes..rows.end * bytes].to_vec();
                WeightData::Int4 { nibbles, affine: affine.rows(rows, k) }
            }
            WeightData::Fp8 { codes, block, scales } => {
                let (_, along_k) = block.grid(self.n, k);
                let of_row = |row: usize| &scales[row / block.rows * along_k..][..along_k];
                WeightData::Fp8 {
                    codes: codes[values].to_vec(),
                    block: ScaleBlock { rows: 1, ..*block },
                    scales: rows.flat_map(of_row).copied().collect(),
                }
            }
        };
        Self { n, k, activation: self.activation, data }
    }

    /// Stacks weights that read the same input (q, k, v; gate, up) into one along N.
    ///
    /// FP8 parts keep their own scales: blocks that would reach from one part into the next become
    /// rows. Returns none if K, format, group or activations differ.
    ///
    /// # Panics
    /// If `parts` is empty.
    #[must_use]
    pub fn stack(parts: Vec<Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().expect("at least one weight to stack");
        for mut part in parts {
            if !whole.share_blocks(&mut part) || part.scheme() != whole.scheme() {
                return None;
            }
            whole.n += part.n;
            match (&mut whole.data, part.data) {
                (WeightData::F32(a), WeightData::F32(b)) => a.extend(b),
                (WeightData::BF16(a), WeightData::BF16(b)) => a.extend(b),
                (
                    WeightData::Int8 { levels: a, affine: s },
                    WeightData::Int8 { levels: b, affine: t },
                ) => {
                    a.extend(b);
                    s.extend(t);
                }
                (
                    WeightData::Int4 { nibbles: a, affine: s },
                    WeightData::Int4 { nibbles: b, affine: t },
                ) => {
                    a.extend(b);
                    s.extend(t);
                }
                (
                    WeightData::Fp8 { codes: a, scales: s, .. },
                    WeightData::Fp8 { codes: b, scales: t, .. },
                ) => {
                    a.extend(b);
                    s.extend(t);
                }
                _ => return None,
            }
        }
        Some(whole)
    }

    /// The opposite of [`stack`](Self::stack): the first `rows[0]` rows, the next `rows[1]`, …
    ///
    /// ```
    /// use bantam_numerics::{quantize, PackedWeight, QuantScheme};
    /// let whole = quantize(&[1.0, -0.5, 0.25, 0.125], 2, 2, QuantScheme::INT8)?;
    /// let parts = whole.split_rows(&[1, 1]);
    /// assert_eq!(parts[1].decode()[0], 0.25);
    /// assert_eq!(PackedWeight::stack(parts), Some(whole));
    /// # Ok::<(), bantam_numerics::QuantizeError>(())
    /// ```
    ///
    /// # Panics
    /// If the rows are more than there are.
    #[must_use]
    pub fn split_rows(&self, rows: &[usize]) -> Vec<Self> {
        let mut first = 0;
        let part = |&n: &usize| {
            let range = first..first + n;
            first += n;
            self.rows(range)
        };
        rows.iter().map(part).collect()
    }

    /// Makes the FP8 scales of two parts stackable; whether both have the same K, and the same
    /// activations.
    fn share_blocks(&mut self, next: &mut Self) -> bool {
        let whole_blocks = |part: &Self, other: &Self| match (&part.data, &other.data) {
            (WeightData::Fp8 { block: a, .. }, WeightData::Fp8 { block: b, .. }) => {
                a == b && part.n.is_multiple_of(a.rows)
            }
            _ => true,
        };
        if !whole_blocks(self, next) {
            self.scale_each_row();
            next.scale_each_row();
        }
        self.k == next.k && self.activation == next.activation
    }

    /// Gives each row of an FP8 weight its own scales.
    fn scale_each_row(&mut self) {
        let (n, k) = (self.n, self.k);
        if let WeightData::Fp8 { block, scales, .. } = &mut self.data {
            let (_, along_k) = block.grid(n, k);
            let of_row = |row: usize| &scales[row / block.rows * along_k..][..along_k];
            *scales = (0..n).flat_map(of_row).copied().collect();
            block.rows = 1;
        }
    }
}

impl GroupAffine {
    /// The map of some rows of K weights.
    fn rows(&self, rows: Range<usize>, k: usize) -> Self {
        let groups = k / self.group;
        let taken = rows.start * groups..rows.end * groups;
        let offsets = self.offsets.as_ref().map(|offsets| offsets[taken.clone()].to_vec());
        Self { group: self.group, scales: self.scales[taken].to_vec(), offsets }
    }

    fn extend(&mut self, other: Self) {
        self.scales.extend(other.scales);
        if let (Some(a), Some(b)) = (&mut self.offsets, other.offsets) {
            a.extend(b);
        }
    }
}

/// Packs levels −8..=7 of one row of K weights into ⌈K/2⌉ bytes, the order [`PackedWeight`] stores.
///
/// ```
/// use bantam_numerics::weight::pack_nibbles;
/// assert_eq!(pack_nibbles(&[-8, 7, 0]), [0xf0, 0x08]);
/// ```
#[must_use]
pub fn pack_nibbles(levels: &[i8]) -> Vec<u8> {
    let nibble = |level: i8| (level + NIBBLE_ZERO) as u8 & 0xf;
    levels
        .chunks(2)
        .map(|pair| nibble(pair[0]) | pair.get(1).map_or(0, |&high| nibble(high) << 4))
        .collect()
}
