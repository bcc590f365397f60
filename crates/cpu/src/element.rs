//! The number types of activations, and the formats of cached keys and values.

use crate::layout::pair_index;
use crate::panels::{Bf16Panel, F32Panel, Fp8Panel, Int8Panel, Panel, WidePanel};
use crate::simd::{LANES, Simd};
use bantam_numerics::KvFormat;
use half::bf16;

/// f32, bf16 as its bits, or an INT8 code.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    fn from_f32(value: f32) -> Self;
    /// Rounds and stores the first `n ≤ 16` lanes.
    ///
    /// # Safety
    /// As for [`Simd`]; `to` holds n elements.
    unsafe fn store<S: Simd>(to: *mut Self, n: usize, value: S::F);
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, n: usize, value: S::F) {
        // SAFETY: the caller's.
        unsafe { S::store_part(to, n, value) }
    }
}

impl Element for u16 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value).to_bits()
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut u16, n: usize, value: S::F) {
        // SAFETY: the caller's; the buffer holds all lanes.
        unsafe {
            if n >= LANES {
                return S::store_bf16(to, value);
            }
            let mut buffer = [0; LANES];
            S::store_bf16(buffer.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, n);
        }
    }
}

impl Element for i8 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value.round_ties_even() as i8
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut i8, n: usize, value: S::F) {
        // SAFETY: the caller's; the buffer holds all lanes.
        unsafe {
            let value = S::min(S::max(value, S::splat(-128.0)), S::splat(127.0));
            if n >= LANES {
                return S::store_i8(to, value);
            }
            let mut buffer = [0; LANES];
            S::store_i8(buffer.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, n);
        }
    }
}

/// A format of cached keys and values.
pub(crate) trait Cached: Copy + Send + Sync + 'static {
    /// The type of stored numbers.
    type Stored: Copy;
    /// The format's name at the seam.
    const FORMAT: KvFormat;

    /// The stored form of a number; `inverse` is one over its vector's scale.
    fn store(value: f32, inverse: f32) -> Self::Stored;
    /// Where element (column, k) of a panel's quad lies, `column < 16`, `k < 4`.
    fn index(column: usize, k: usize) -> usize;
}

/// A format that queries and probabilities of type `Q` can meet.
pub(crate) trait ReadBy<Q: Element>: Cached {
    /// How a panel is read.
    type Panel<S: Simd>: Panel<S, Element = Q, Sum = S::F>;
}

/// f32 keys and values.
#[derive(Clone, Copy)]
pub(crate) struct F32Cached;
/// bf16 keys and values.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Cached;
/// INT8 keys and values, a scale for each token and head.
#[derive(Clone, Copy)]
pub(crate) struct Int8Cached;
/// E4M3 keys and values, a scale for each token and head.
#[derive(Clone, Copy)]
pub(crate) struct Fp8Cached;

impl Cached for F32Cached {
    type Stored = f32;
    const FORMAT: KvFormat = KvFormat::F32;

    #[inline(always)]
    fn store(value: f32, _inverse: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn index(column: usize, k: usize) -> usize {
        k * LANES + column
    }
}

impl Cached for Bf16Cached {
    type Stored = u16;
    const FORMAT: KvFormat = KvFormat::BF16;

    #[inline(always)]
    fn store(value: f32, _inverse: f32) -> u16 {
        u16::from_f32(value)
    }
    #[inline(always)]
    fn index(column: usize, k: usize) -> usize {
        pair_index(column, k)
    }
}

/// The two formats of one byte differ in their code.
macro_rules! byte_cached {
    ($cached:ident, $format:ident) => {
        impl Cached for $cached {
            type Stored = u8;
            const FORMAT: KvFormat = KvFormat::$format;

            #[inline(always)]
            fn store(value: f32, inverse: f32) -> u8 {
                Self::FORMAT.encode(value, inverse)
            }
            #[inline(always)]
            fn index(column: usize, k: usize) -> usize {
                pair_index(column, k)
            }
        }
    };
}

byte_cached!(Int8Cached, Int8);
byte_cached!(Fp8Cached, Fp8);

macro_rules! read_by {
    ($($cached:ident, $query:ty => $panel:ty;)*) => {$(
        impl ReadBy<$query> for $cached {
            type Panel<S: Simd> = $panel;
        }
    )*};
}

read_by! {
    F32Cached, f32 => F32Panel;
    Bf16Cached, f32 => WidePanel<Bf16Panel>;
    Bf16Cached, u16 => Bf16Panel;
    Int8Cached, f32 => WidePanel<Int8Panel>;
    Int8Cached, u16 => Int8Panel;
    Fp8Cached, f32 => WidePanel<Fp8Panel>;
    Fp8Cached, u16 => Fp8Panel;
}
