//! The scales of a packed weight: a factor for each channel, and ratios to it for each group.

use crate::layout::QUAD;
use crate::simd::{LANES, Simd};
use half::f16;

/// Scales and offsets of the groups along K, as multiples of the channel's factor.
#[derive(Debug)]
pub(crate) struct GroupScales {
    /// Groups of a row.
    pub(crate) count: usize,
    /// Quads in a group; the last group may have fewer.
    pub(crate) quads: usize,
    pub(crate) ratios: Ratios,
    /// None for symmetric formats.
    pub(crate) offsets: Option<Ratios>,
}

/// One number for each group and channel, `[panels][groups][16]`.
///
/// A ratio to a power of two holds any f16 or bf16 scale of a row exactly in 16 bits; others stay
/// 32 bits, so that a scale is never rounded again.
#[derive(Debug)]
pub(crate) enum Ratios {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl Ratios {
    fn new(values: Vec<f32>) -> Self {
        let exact = |v: &f32| f16::from_f32(*v).to_f32() == *v;
        if values.iter().all(exact) {
            Self::F16(values.iter().map(|&v| f16::from_f32(v).to_bits()).collect())
        } else {
            Self::F32(values)
        }
    }

    pub(crate) fn get(&self, at: usize) -> f32 {
        match self {
            Self::F16(values) => f16::from_bits(values[at]).to_f32(),
            Self::F32(values) => values[at],
        }
    }

    /// The 16 ratios from `at` on.
    ///
    /// # Safety
    /// As for [`Simd`]; there are as many.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Simd>(&self, at: usize) -> S::F {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::F16(values) => S::load_f16(values.as_ptr().add(at)),
                Self::F32(values) => S::load(values.as_ptr().add(at)),
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F16(values) => 2 * values.len(),
            Self::F32(values) => 4 * values.len(),
        }
    }
}

/// A weight's scales in its own order, before they are laid out.
pub(crate) struct RowScales<'a> {
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Input features that share a scale; the last group may have fewer.
    pub(crate) group: usize,
    /// `[N, groups]`.
    pub(crate) scales: &'a [f32],
    /// `[N, groups]`.
    pub(crate) offsets: Option<&'a [f32]>,
}

impl RowScales<'_> {
    /// A factor for each channel, `[panels·16]`, and what the groups need beyond it.
    pub(crate) fn lay_out(&self) -> (Vec<f32>, Option<GroupScales>) {
        let groups = self.k.div_ceil(self.group);
        let panels = self.n.div_ceil(LANES);
        let mut factors = vec![0.0; panels * LANES];
        if groups == 1 && self.offsets.is_none() {
            factors[..self.n].copy_from_slice(self.scales);
            return (factors, None);
        }
        for (n, factor) in factors.iter_mut().enumerate().take(self.n) {
            let row = n * groups..(n + 1) * groups;
            let offsets = self.offsets.map(|offsets| &offsets[row.clone()]);
            let all = self.scales[row].iter().chain(offsets.into_iter().flatten());
            *factor = power_of_two_near(all.fold(0f32, |largest, v| largest.max(v.abs())));
        }
        let ratios = |values: &[f32]| {
            let mut ratios = vec![0.0; panels * groups * LANES];
            for (n, row) in values.chunks_exact(groups).enumerate() {
                for (g, value) in row.iter().enumerate() {
                    let at = (n / LANES * groups + g) * LANES + n % LANES;
                    ratios[at] = value / factors[n];
                }
            }
            Ratios::new(ratios)
        };
        let (ratios, offsets) = (ratios(self.scales), self.offsets.map(ratios));
        let quads = self.group / QUAD;
        (factors, Some(GroupScales { count: groups, quads, ratios, offsets }))
    }
}

impl GroupScales {
    pub(crate) fn bytes(&self) -> usize {
        self.ratios.bytes() + self.offsets.as_ref().map_or(0, Ratios::bytes)
    }
}

/// The largest power of two not above `value`; one for zero.
fn power_of_two_near(value: f32) -> f32 {
    let bits = value.to_bits() & 0x7f80_0000;
    if bits == 0 { 1.0 } else { f32::from_bits(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_keep_every_scale() {
        for scales in [[0.5, 0.75, 3.0, 0.125], [0.1, 0.3, 0.7, 1e-3]] {
            let rows = RowScales { n: 2, k: 8, group: 4, scales: &scales, offsets: None };
            let (factors, groups) = rows.lay_out();
            let groups = groups.expect("two groups");
            for (i, scale) in scales.into_iter().enumerate() {
                let (n, g) = (i / 2, i % 2);
                assert_eq!(groups.ratios.get(g * LANES + n) * factors[n], scale);
            }
        }
    }
}
