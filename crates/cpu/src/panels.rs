//! The inner loop of every matrix product: rows of x against panels of 16 columns.
//!
//! Linear layers and attention share it. What differs is how a quad of a panel becomes lanes:
//! [`Panel`]. Each output element accumulates over k in ascending order, whatever the tile's size,
//! which is what makes a row's bits independent of its neighbours.

use crate::layout::{PanelFormat, QUAD};
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// How one panel format is read.
///
/// # Safety
/// As for [`Simd`]; a quad pointer leads to `QUAD_BYTES`, an input pointer to four elements.
pub(crate) trait Panel<S: Simd> {
    /// The type of x.
    type Element: Copy;
    /// Four k of 16 columns.
    type Weights: Copy;
    /// Four k of one row of x.
    type Inputs: Copy;
    const QUAD_BYTES: usize;

    unsafe fn weights(quad: *const u8) -> Self::Weights;
    unsafe fn inputs(x: *const Self::Element) -> Self::Inputs;
    unsafe fn dot(acc: S::F, weights: Self::Weights, inputs: Self::Inputs) -> S::F;
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

// SAFETY of the blocks below: the trait's contract.
impl<S: Simd> Panel<S> for F32Panel {
    type Element = f32;
    type Weights = [S::F; QUAD];
    type Inputs = [S::F; QUAD];
    const QUAD_BYTES: usize = PanelFormat::F32.quad_bytes();

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

/// `acc[r][n] += Σ_k x[r][k] · panel[n][k]` over the quads of a range.
///
/// # Safety
/// As for [`Panel`]: rows and panels reach to the end of the range.
#[inline(always)]
pub(crate) unsafe fn accumulate<S: Simd, P: Panel<S>, const R: usize, const N: usize>(
    acc: &mut [[S::F; N]; R],
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
                    acc[r][n] = P::dot(acc[r][n], weights[n], inputs);
                }
            }
        }
    }
}

/// Widens panels of an integer format to bf16 ones.
///
/// # Safety
/// As for [`Panel`]; `to` holds `quads` bf16 quads.
#[inline(always)]
pub(crate) unsafe fn widen<S: Simd, P>(panel: *const u8, quads: usize, to: *mut u16)
where
    P: Panel<S, Weights = [S::Pairs; 2]>,
{
    for quad in 0..quads {
        // SAFETY: the caller's ranges.
        unsafe {
            let weights = P::weights(panel.add(quad * P::QUAD_BYTES));
            let to = to.add(quad * QUAD * LANES);
            S::store_pairs(to, weights[0]);
            S::store_pairs(to.add(2 * LANES), weights[1]);
        }
    }
}
