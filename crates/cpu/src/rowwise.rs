//! Kernels that treat each row on its own: norms and the feed-forward non-linearity.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd};
use bantam_backend::{FeedForward, Norm, NormKind};
use bantam_numerics::reference::Activation;

/// A computation of single rows, into numbers of any type.
pub(crate) trait RowKernel: Sync {
    /// Computes row `row` into `out: [columns]`.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    unsafe fn run<S: Simd, E: Element>(&self, row: usize, out: &mut [E]);
}

/// One row of a [`RowKernel`].
pub(crate) struct OneRow<'a, R, E> {
    pub(crate) kernel: &'a R,
    pub(crate) row: usize,
    pub(crate) out: &'a mut [E],
}

impl<R: RowKernel, E: Element> Kernel for OneRow<'_, R, E> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe { self.kernel.run::<S, E>(self.row, self.out) }
    }
}

/// Rows as they are.
pub(crate) struct SameRows<'a> {
    /// `[rows, columns]`.
    pub(crate) x: &'a [f32],
}

impl RowKernel for SameRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, E: Element>(&self, row: usize, out: &mut [E]) {
        let x = &self.x[row * out.len()..][..out.len()];
        // SAFETY: parts are cut to the row's length.
        unsafe {
            for at in (0..x.len()).step_by(LANES) {
                let n = LANES.min(x.len() - at);
                let lanes = S::load_part(x.as_ptr().add(at), n, 0.0);
                E::store::<S>(out.as_mut_ptr().add(at), n, lanes);
            }
        }
    }
}

/// Rows of C elements, normalised.
pub(crate) struct NormRows<'a> {
    pub(crate) norm: &'a Norm<Vec<f32>>,
    /// `[rows, C]`.
    pub(crate) x: &'a [f32],
}

impl RowKernel for NormRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, E: Element>(&self, row: usize, out: &mut [E]) {
        let Norm { kind, weight, bias, eps } = self.norm;
        let x = &self.x[row * out.len()..][..out.len()];
        assert!(weight.len() >= x.len());
        let count = x.len() as f32;
        // SAFETY: parts are cut to the row's length.
        unsafe {
            let mean = match kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => fold::<S>(x, 0.0, |sum, v| S::add(sum, v)) / count,
            };
            // A missing lane loads the mean, so that it adds nothing to the variance.
            let squares = fold::<S>(x, mean, |sum, v| {
                let centred = S::sub(v, S::splat(mean));
                S::fma(centred, centred, sum)
            });
            let scale = S::splat((squares / count + eps).sqrt().recip());
            for at in (0..x.len()).step_by(LANES) {
                let n = LANES.min(x.len() - at);
                let v = S::sub(S::load_part(x.as_ptr().add(at), n, 0.0), S::splat(mean));
                let w = S::load_part(weight.as_ptr().add(at), n, 0.0);
                let mut y = S::mul(S::mul(v, scale), w);
                if let Some(bias) = bias {
                    y = S::add(y, S::load_part(bias.as_ptr().add(at), n, 0.0));
                }
                E::store::<S>(out.as_mut_ptr().add(at), n, y);
            }
        }
    }
}

/// The sum over a row of `step(sum, lanes)`, missing lanes being `fill`.
#[inline(always)]
unsafe fn fold<S: Simd>(x: &[f32], fill: f32, step: impl Fn(S::F, S::F) -> S::F) -> f32 {
    // SAFETY: parts are cut to the row's length.
    unsafe {
        let mut sum = S::splat(0.0);
        for at in (0..x.len()).step_by(LANES) {
            let n = LANES.min(x.len() - at);
            sum = step(sum, S::load_part(x.as_ptr().add(at), n, fill));
        }
        S::sum(sum)
    }
}

/// The RMS norm of one head, in place.
pub(crate) struct NormHead<'a> {
    pub(crate) head: &'a mut [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
}

impl Kernel for NormHead<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { head, weight, eps } = self;
        assert!(weight.len() >= head.len());
        // SAFETY: parts are cut to the head's length.
        unsafe {
            let squares = fold::<S>(head, 0.0, |sum, v| S::fma(v, v, sum));
            let scale = S::splat((squares / head.len() as f32 + eps).sqrt().recip());
            for at in (0..head.len()).step_by(LANES) {
                let n = LANES.min(head.len() - at);
                let v = S::load_part(head.as_ptr().add(at), n, 0.0);
                let w = S::load_part(weight.as_ptr().add(at), n, 0.0);
                S::store_part(head.as_mut_ptr().add(at), n, S::mul(S::mul(v, scale), w));
            }
        }
    }
}

/// The feed-forward non-linearity.
pub(crate) struct FeedForwardRows<'a> {
    pub(crate) kind: FeedForward,
    /// `[rows, 2F]` if gated, else `[rows, F]`.
    pub(crate) x: &'a [f32],
}

impl RowKernel for FeedForwardRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, E: Element>(&self, row: usize, out: &mut [E]) {
        let f = out.len();
        let columns = self.kind.input_columns(f);
        let row = &self.x[row * columns..][..columns];
        // SAFETY: parts are cut to F.
        unsafe {
            for at in (0..f).step_by(LANES) {
                let n = LANES.min(f - at);
                let x = S::load_part(row.as_ptr().add(at), n, 0.0);
                let y = match self.kind {
                    FeedForward::Plain(act) => activate::<S>(act, x),
                    FeedForward::Gated(act) => {
                        let up = S::load_part(row.as_ptr().add(f + at), n, 0.0);
                        S::mul(activate::<S>(act, x), up)
                    }
                };
                E::store::<S>(out.as_mut_ptr().add(at), n, y);
            }
        }
    }
}

#[inline(always)]
unsafe fn activate<S: Simd>(activation: Activation, x: S::F) -> S::F {
    // SAFETY: the caller's.
    unsafe {
        let one = S::splat(1.0);
        let negative = |v| S::sub(S::splat(0.0), v);
        match activation {
            Activation::Silu => S::div(x, S::add(one, S::exp(negative(x)))),
            Activation::GeluTanh => {
                // x/2·(1 + tanh u) = x·σ(2u)
                let cubic = S::fma(S::mul(S::mul(x, x), x), S::splat(0.044_715), x);
                let twice = S::mul(cubic, S::splat(-2.0 * 0.797_884_6));
                S::div(x, S::add(one, S::exp(twice)))
            }
            Activation::Gelu => {
                // Abramowitz and Stegun 7.1.26: |error| ≤ 1.5e-7 in erf.
                let z = S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2));
                let magnitude = S::max(z, negative(z));
                let t = S::div(one, S::fma(magnitude, S::splat(0.327_591_1), one));
                let mut poly = S::splat(1.061_405_4);
                for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
                    poly = S::fma(poly, t, S::splat(c));
                }
                // half the complementary error function of |z|, mirrored for positive x
                let tail = S::exp(negative(S::mul(z, z)));
                let tail = S::mul(S::mul(S::mul(poly, t), tail), S::splat(0.5));
                let positive = S::zero_below(x, 0.0, S::sub(S::sub(one, tail), tail));
                S::mul(x, S::add(positive, tail))
            }
        }
    }
}
