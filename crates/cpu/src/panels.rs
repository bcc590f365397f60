//! The inner loop of every matrix product: rows of x against panels of 16 columns.
//!
//! Linear layers and attention share it. What differs is how a quad of a panel becomes lanes:
//! [`Panel`]. Each output element accumulates over k in ascending order, whatever the tile's size,
//! which is what makes a row's bits independent of its neighbours.

use crate::element::Element;
use crate::layout::{PanelFormat, QUAD};
use crate::simd::{LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// How one panel format is read.
///
/// # Safety
/// As for [`Simd`]; a quad pointer leads to `QUAD_BYTES`, an input pointer to four elements.
pub(crate) trait Panel<S: Simd> {
    /// The type of x.
    type Element: Element;
    /// Four k of 16 columns.
    type Weights: Copy;
    /// Four k of one row of x.
    type Inputs: Copy;
    /// A sum of products for each of 16 columns.
    type Sum: Copy;
    const QUAD_BYTES: usize;
    /// The stored level that means zero. Where it is not zero, it is taken out of a sum through the
    /// sum of x.
    const ZERO: i32 = 0;

    unsafe fn weights(quad: *const u8) -> Self::Weights;
    unsafe fn inputs(x: *const Self::Element) -> Self::Inputs;
    /// A sum of no products yet, over inputs whose own sum is `x_sum`.
    unsafe fn start(x_sum: f32) -> Self::Sum;
    unsafe fn dot(sum: Self::Sum, weights: Self::Weights, inputs: Self::Inputs) -> Self::Sum;
    unsafe fn finish(sum: Self::Sum) -> S::F;
    /// `a·b + c` as this format's contract has it: integer formats round twice, on every machine.
    unsafe fn multiply_add(a: S::F, b: S::F, c: S::F) -> S::F;
}

/// A format whose panels can be unpacked once for many rows.
///
/// # Safety
/// As for [`Panel`]; `to` holds a quad of the unpacked format.
pub(crate) trait Unpack<S: Simd>: Panel<S> {
    /// What it is unpacked to.
    type Unpacked: Panel<S, Element = Self::Element>;

    unsafe fn store(weights: Self::Weights, to: *mut u8);
}

/// f32 panels against f32 rows.
pub(crate) struct F32Panel;
/// bf16 panels against bf16 rows.
pub(crate) struct Bf16Panel;
/// INT8 panels, widened in registers, against bf16 rows.
pub(crate) struct Int8Panel;
/// E4M3 panels, widened in registers, against bf16 rows.
pub(crate) struct Fp8Panel;
/// INT4 panels, widened in registers, against bf16 rows.
pub(crate) struct Int4Panel;
/// Panels that are bf16 pairs in registers, widened once more, against f32 rows.
pub(crate) struct WidePanel<P>(PhantomData<P>);
/// Panels of unsigned bytes, the level plus `ZERO`, against INT8 rows.
pub(crate) struct QuadPanel<const ZERO: i32>;
/// INT8 panels against INT8 rows.
pub(crate) type Int8QuadPanel = QuadPanel<128>;
/// INT4 panels, unpacked in registers, against INT8 rows.
pub(crate) struct Int4QuadPanel;

/// What sums of floats have in common.
macro_rules! float_sums {
    () => {
        type Sum = S::F;

        #[inline(always)]
        unsafe fn start(_x_sum: f32) -> S::F {
            unsafe { S::splat(0.0) }
        }
        #[inline(always)]
        unsafe fn finish(sum: S::F) -> S::F {
            sum
        }
        #[inline(always)]
        unsafe fn multiply_add(a: S::F, b: S::F, c: S::F) -> S::F {
            unsafe { S::fma(a, b, c) }
        }
    };
}

/// What sums of integers have in common.
macro_rules! integer_sums {
    () => {
        type Element = i8;
        type Weights = S::Quads;
        type Inputs = S::Quad;
        type Sum = S::I;

        #[inline(always)]
        unsafe fn inputs(x: *const i8) -> S::Quad {
            unsafe { S::splat_quad(x) }
        }
        #[inline(always)]
        unsafe fn start(x_sum: f32) -> S::I {
            unsafe { S::splat_i32(-<Self as Panel<S>>::ZERO * x_sum as i32) }
        }
        #[inline(always)]
        unsafe fn dot(sum: S::I, weights: S::Quads, inputs: S::Quad) -> S::I {
            unsafe { S::dot_i8(sum, weights, inputs) }
        }
        #[inline(always)]
        unsafe fn finish(sum: S::I) -> S::F {
            unsafe { S::to_f32(sum) }
        }
        #[inline(always)]
        unsafe fn multiply_add(a: S::F, b: S::F, c: S::F) -> S::F {
            unsafe { S::add(S::mul(a, b), c) }
        }
    };
}

// SAFETY of the blocks below: the trait's contract.
impl<S: Simd> Panel<S> for F32Panel {
    type Element = f32;
    type Weights = [S::F; QUAD];
    type Inputs = [S::F; QUAD];
    const QUAD_BYTES: usize = PanelFormat::F32.quad_bytes();
    float_sums!();

    #[inline(always)]
    unsafe fn weights(quad: *const u8) -> Self::Weights {
        let quad = quad.cast::<f32>();
        unsafe {
            [
                S::load(quad),
                S::load(quad.add(LANES)),
                S::load(quad.add(2 * LANES)),
                S::load(quad.add(3 * LANES)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn inputs(x: *const f32) -> Self::Inputs {
        unsafe { [S::splat(*x), S::splat(*x.add(1)), S::splat(*x.add(2)), S::splat(*x.add(3))] }
    }
    #[inline(always)]
    unsafe fn dot(mut acc: S::F, weights: Self::Weights, inputs: Self::Inputs) -> S::F {
        for k in 0..QUAD {
            acc = unsafe { S::fma(weights[k], inputs[k], acc) };
        }
        acc
    }
}

/// The formats that become bf16 pairs differ in one line.
macro_rules! pair_panel {
    ($panel:ident, $format:ident, |$quad:ident| $weights:expr) => {
        impl<S: Simd> Panel<S> for $panel {
            type Element = u16;
            type Weights = [S::Pairs; 2];
            type Inputs = [S::Pair; 2];
            const QUAD_BYTES: usize = PanelFormat::$format.quad_bytes();
            float_sums!();

            #[inline(always)]
            unsafe fn weights($quad: *const u8) -> Self::Weights {
                unsafe { $weights }
            }
            #[inline(always)]
            unsafe fn inputs(x: *const u16) -> Self::Inputs {
                unsafe { [S::splat_pair(x), S::splat_pair(x.add(2))] }
            }
            #[inline(always)]
            unsafe fn dot(acc: S::F, weights: Self::Weights, inputs: Self::Inputs) -> S::F {
                unsafe { S::dot(S::dot(acc, weights[0], inputs[0]), weights[1], inputs[1]) }
            }
        }
    };
}

pair_panel!(Bf16Panel, Bf16, |quad| {
    let quad = quad.cast::<u16>();
    [S::pairs_bf16(quad), S::pairs_bf16(quad.add(2 * LANES))]
});
pair_panel!(Int8Panel, Int8, |quad| {
    let quad = quad.cast::<i8>();
    [S::pairs_i8(quad), S::pairs_i8(quad.add(2 * LANES))]
});
pair_panel!(Fp8Panel, Fp8, |quad| [S::pairs_e4m3(quad), S::pairs_e4m3(quad.add(2 * LANES))]);
pair_panel!(Int4Panel, Int4, |quad| S::pairs_i4(quad));

impl<S: Simd, P: Panel<S, Weights = [S::Pairs; 2]>> Panel<S> for WidePanel<P> {
    type Element = f32;
    type Weights = [S::F; QUAD];
    type Inputs = [S::F; QUAD];
    const QUAD_BYTES: usize = P::QUAD_BYTES;
    float_sums!();

    #[inline(always)]
    unsafe fn weights(quad: *const u8) -> Self::Weights {
        unsafe {
            let [low, high] = P::weights(quad);
            let ([first, second], [third, fourth]) = (S::widen(low), S::widen(high));
            [first, second, third, fourth]
        }
    }
    #[inline(always)]
    unsafe fn inputs(x: *const f32) -> Self::Inputs {
        unsafe { <F32Panel as Panel<S>>::inputs(x) }
    }
    #[inline(always)]
    unsafe fn dot(acc: S::F, weights: Self::Weights, inputs: Self::Inputs) -> S::F {
        unsafe { <F32Panel as Panel<S>>::dot(acc, weights, inputs) }
    }
}

/// Formats of fewer bits are unpacked to bf16.
macro_rules! unpack_to_bf16 {
    ($($panel:ident),*) => {$(
        impl<S: Simd> Unpack<S> for $panel {
            type Unpacked = Bf16Panel;

            #[inline(always)]
            unsafe fn store(weights: [S::Pairs; 2], to: *mut u8) {
                let to = to.cast::<u16>();
                unsafe {
                    S::store_pairs(to, weights[0]);
                    S::store_pairs(to.add(2 * LANES), weights[1]);
                }
            }
        }
    )*};
}

unpack_to_bf16!(Int8Panel, Fp8Panel, Int4Panel);

impl<S: Simd, const LEVEL: i32> Panel<S> for QuadPanel<LEVEL> {
    const QUAD_BYTES: usize = PanelFormat::Int8Quads.quad_bytes();
    const ZERO: i32 = LEVEL;
    integer_sums!();

    #[inline(always)]
    unsafe fn weights(quad: *const u8) -> S::Quads {
        unsafe { S::quads_u8(quad) }
    }
}

impl<S: Simd> Panel<S> for Int4QuadPanel {
    const QUAD_BYTES: usize = PanelFormat::Int4Quads.quad_bytes();
    const ZERO: i32 = 8;
    integer_sums!();

    #[inline(always)]
    unsafe fn weights(quad: *const u8) -> S::Quads {
        unsafe { S::quads_u4(quad) }
    }
}

impl<S: Simd> Unpack<S> for Int4QuadPanel {
    type Unpacked = QuadPanel<8>;

    #[inline(always)]
    unsafe fn store(weights: S::Quads, to: *mut u8) {
        unsafe { S::store_quads(to, weights) }
    }
}

/// `sums[r][n] += Σ_k x[r][k] · panel[n][k]` over the quads of a range.
///
/// # Safety
/// As for [`Panel`]: rows and panels reach to the end of the range.
#[inline(always)]
pub(crate) unsafe fn accumulate<S: Simd, P: Panel<S>, const R: usize, const N: usize>(
    sums: &mut [[P::Sum; N]; R],
    x: [*const P::Element; R],
    panels: [*const u8; N],
    quads: Range<usize>,
) {
    for quad in quads {
        // SAFETY: the caller's ranges.
        unsafe {
            let mut weights = [P::weights(panels[0].add(quad * P::QUAD_BYTES)); N];
            for n in 1..N {
                weights[n] = P::weights(panels[n].add(quad * P::QUAD_BYTES));
            }
            for r in 0..R {
                let inputs = P::inputs(x[r].add(quad * QUAD));
                for n in 0..N {
                    sums[r][n] = P::dot(sums[r][n], weights[n], inputs);
                }
            }
        }
    }
}

/// Unpacks a panel of so many quads.
///
/// # Safety
/// As for [`Unpack`]; `to` holds as many quads.
#[inline(always)]
pub(crate) unsafe fn unpack<S: Simd, P: Unpack<S>>(panel: *const u8, quads: usize, to: *mut u8) {
    for quad in 0..quads {
        // SAFETY: the caller's ranges.
        unsafe {
            let weights = P::weights(panel.add(quad * P::QUAD_BYTES));
            P::store(weights, to.add(quad * P::Unpacked::QUAD_BYTES));
        }
    }
}
