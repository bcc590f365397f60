//! Sixteen lanes in plain Rust, for machines without AVX2.

use super::{LANES, Simd};
use half::{bf16, f16};

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

type F = [f32; LANES];

#[inline(always)]
fn map(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

// SAFETY of every block below: the trait's contract gives pointers to as many elements as are read.
impl Simd for Scalar {
    type F = F;
    type Pairs = [[u16; 2]; LANES];
    type Pair = [f32; 2];
    type I = [i32; LANES];
    type Quads = [[u8; 4]; LANES];
    type Quad = [i8; 4];
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        unsafe { from.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: F) {
        unsafe { to.cast::<F>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        map(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2_integral(n: F) -> F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn zero_below(a: F, bound: f32, value: F) -> F {
        map(a, value, |a, value| if a >= bound { value } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn sum(a: F) -> f32 {
        let eight: [f32; 8] = std::array::from_fn(|i| a[i] + a[i + 8]);
        let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    unsafe fn largest(a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: F) {
        let bits = value.map(|v| bf16::from_f32(v).to_bits());
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: F) {
        let codes = value.map(|v| v.round_ties_even() as i8);
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(codes) }
    }
    #[inline(always)]
    unsafe fn power_below(a: F) -> F {
        a.map(|a| f32::from_bits(a.to_bits() & 0x7f80_0000))
    }

    #[inline(always)]
    unsafe fn pairs_bf16(from: *const u16) -> Self::Pairs {
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn pairs_i8(from: *const i8) -> Self::Pairs {
        let levels = unsafe { from.cast::<[[i8; 2]; LANES]>().read_unaligned() };
        levels.map(|pair| pair.map(|level| bf16::from_f32(f32::from(level)).to_bits()))
    }
    #[inline(always)]
    unsafe fn pairs_e4m3(from: *const u8) -> Self::Pairs {
        let codes = unsafe { from.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        // Exponent and mantissa moved into place stand for the value times 2^-120.
        let widen = |code: u8| {
            let bits = u32::from(code & 0x80) << 24 | u32::from(code & 0x7f) << 20;
            ((f32::from_bits(bits) * f32::from_bits(247 << 23)).to_bits() >> 16) as u16
        };
        codes.map(|pair| pair.map(widen))
    }
    #[inline(always)]
    unsafe fn pairs_i4(from: *const u8) -> [Self::Pairs; 2] {
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        let level = |nibble: u8| bf16::from_f32(f32::from(nibble) - 8.0).to_bits();
        [
            bytes.map(|pair| pair.map(|byte| level(byte & 0xf))),
            bytes.map(|pair| pair.map(|byte| level(byte >> 4))),
        ]
    }
    #[inline(always)]
    unsafe fn widen(pairs: Self::Pairs) -> [F; 2] {
        [pairs.map(|pair| widen(pair[0])), pairs.map(|pair| widen(pair[1]))]
    }
    #[inline(always)]
    unsafe fn store_pairs(to: *mut u16, pairs: Self::Pairs) {
        unsafe { to.cast::<Self::Pairs>().write_unaligned(pairs) }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> Self::Pair {
        unsafe { from.cast::<[u16; 2]>().read_unaligned() }.map(widen)
    }
    #[inline(always)]
    unsafe fn dot(acc: F, w: Self::Pairs, x: Self::Pair) -> F {
        std::array::from_fn(|i| acc[i] + widen(w[i][0]) * x[0] + widen(w[i][1]) * x[1])
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::I {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    unsafe fn quads_u8(from: *const u8) -> Self::Quads {
        unsafe { from.cast::<Self::Quads>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn quads_u4(from: *const u8) -> Self::Quads {
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        bytes.map(|[a, b]| [a & 0xf, a >> 4, b & 0xf, b >> 4])
    }
    #[inline(always)]
    unsafe fn store_quads(to: *mut u8, quads: Self::Quads) {
        unsafe { to.cast::<Self::Quads>().write_unaligned(quads) }
    }
    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> Self::Quad {
        unsafe { from.cast::<Self::Quad>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: Self::I, w: Self::Quads, x: Self::Quad) -> Self::I {
        std::array::from_fn(|i| {
            let products = w[i].iter().zip(x).map(|(&w, x)| i32::from(w) * i32::from(x));
            products.fold(acc[i], i32::wrapping_add)
        })
    }
}
