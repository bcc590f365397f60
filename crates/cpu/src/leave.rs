//! How a computed row is left for the linear layer that reads it: channel factors, channel order,
//! scales, rounding.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd};
use bantam_backend::LinearInput;
use bantam_numerics::ActivationFormat;
use bantam_numerics::activation::normal_scale;

/// A row of an operand.
pub(crate) struct OperandRow<'a> {
    /// `[stride]` of the format.
    pub(crate) elements: *mut u8,
    /// `[columns, stride)` is zero-padding.
    pub(crate) stride: usize,
    /// One for each block of channels.
    pub(crate) scales: &'a mut [f32],
}

/// Leaves one row as a linear layer asks.
pub(crate) struct LeaveRow<'a> {
    /// What was computed; factors are multiplied into it.
    pub(crate) row: &'a mut [f32],
    /// Room for the row in another order.
    pub(crate) ordered: &'a mut [f32],
    pub(crate) input: &'a LinearInput<Vec<f32>>,
    pub(crate) out: OperandRow<'a>,
}

impl Kernel for LeaveRow<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, ordered, input, out } = self;
        if let Some(factors) = &input.channel_factors {
            for (value, factor) in row.iter_mut().zip(factors) {
                *value *= factor;
            }
        }
        let row = match &input.order {
            None => &*row,
            Some(order) => {
                for (to, &channel) in ordered.iter_mut().zip(order) {
                    *to = row[channel as usize];
                }
                ordered
            }
        };
        // SAFETY: the operand's row holds `stride ≥ columns` elements of the format's type.
        unsafe {
            match input.format {
                ActivationFormat::F32 => round::<S, f32>(row, out),
                ActivationFormat::BF16 => round::<S, u16>(row, out),
                ActivationFormat::Int8 => {
                    quantize::<S, i8>(row, input, out, |v| v);
                }
                ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => {
                    quantize::<S, u16>(row, input, out, |v| round_e4m3::<S>(v));
                }
            }
        }
    }
}

/// Stores a row without scales.
#[inline(always)]
unsafe fn round<S: Simd, E: Element>(row: &[f32], out: OperandRow<'_>) {
    let to = out.elements.cast::<E>();
    // SAFETY: the caller's; parts are cut to the row's length.
    unsafe {
        for at in (0..row.len()).step_by(LANES) {
            let n = LANES.min(row.len() - at);
            E::store::<S>(to.add(at), n, S::load_part(row.as_ptr().add(at), n, 0.0));
        }
        pad(to, row.len(), out.stride);
    }
}

/// Finds the scale of each block of a row and stores `code(x/s)`: what
/// [`ActivationFormat::quantize`] defines.
#[inline(always)]
unsafe fn quantize<S: Simd, E: Element>(
    row: &[f32],
    input: &LinearInput<Vec<f32>>,
    out: OperandRow<'_>,
    code: impl Fn(S::F) -> S::F,
) {
    let to = out.elements.cast::<E>();
    let largest_code = input.format.largest_code().unwrap_or(1.0);
    let block = input.format.scale_block(row.len());
    // SAFETY: the caller's; parts are cut to the block's length.
    unsafe {
        for (b, (values, scale)) in row.chunks(block).zip(out.scales).enumerate() {
            let zero = S::splat(0.0);
            let (mut largest, mut taint) = (zero, zero);
            for at in (0..values.len()).step_by(LANES) {
                let n = LANES.min(values.len() - at);
                let v = S::load_part(values.as_ptr().add(at), n, 0.0);
                largest = S::max(largest, S::max(v, S::sub(zero, v)));
                // Zero, or NaN from a NaN or an infinity on.
                taint = S::fma(v, zero, taint);
            }
            let own = normal_scale(S::largest(largest) / largest_code);
            *scale = input.scale.unwrap_or(own) + S::sum(taint);
            let divisor = S::splat(*scale);
            for at in (0..values.len()).step_by(LANES) {
                let n = LANES.min(values.len() - at);
                let v = S::load_part(values.as_ptr().add(at), n, 0.0);
                E::store::<S>(to.add(b * block + at), n, code(S::div(v, divisor)));
            }
        }
        pad(to, row.len(), out.stride);
    }
}

/// Clears the elements past a row.
#[inline(always)]
unsafe fn pad<E: Element>(to: *mut E, columns: usize, stride: usize) {
    for at in columns..stride {
        // SAFETY: the caller's row holds `stride` elements.
        unsafe { to.add(at).write(E::default()) }
    }
}

/// Rounds to the nearest E4M3 number, ties to even, saturating.
#[inline(always)]
unsafe fn round_e4m3<S: Simd>(v: S::F) -> S::F {
    const MAX: f32 = bantam_numerics::float8::E4M3_MAX;
    const SMALLEST_NORMAL: f32 = 1.0 / 64.0;
    // SAFETY: the caller's.
    unsafe {
        let v = S::min(S::max(v, S::splat(-MAX)), S::splat(MAX));
        let binade = S::max(S::power_below(v), S::splat(SMALLEST_NORMAL));
        // Added to 1.5·2²⁰ of its binade, a number keeps three bits below its first.
        let anchor = S::mul(binade, S::splat(1_572_864.0));
        S::sub(S::add(v, anchor), anchor)
    }
}
