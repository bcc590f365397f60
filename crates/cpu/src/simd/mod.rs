//! Sixteen lanes of arithmetic, and the instruction sets that provide them.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for each instruction set;
//! [`Isa::run`] enters the right copy. Kernels and their helpers are `#[inline(always)]`, so that
//! everything lands inside the one function that enables the instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::fmt;
use std::str::FromStr;

/// Lanes of [`Simd::F`], and columns of a weight panel.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes, bf16 pairs to feed them, and sixteen i32 lanes with quads of bytes for theirs.
///
/// # Safety
/// Methods may use instructions of the set: call them only below [`Isa::run`]. Pointers must be
/// valid for the number of elements that the method names.
pub(crate) trait Simd: Copy + 'static {
    /// 16 × f32.
    type F: Copy;
    /// 16 pairs of bf16: two consecutive k for each of 16 columns.
    type Pairs: Copy;
    /// One pair of bf16, the same in all lanes.
    type Pair: Copy;
    /// 16 × i32.
    type I: Copy;
    /// 16 quads of unsigned bytes: four consecutive k for each of 16 columns.
    type Quads: Copy;
    /// One quad of signed bytes, the same in all lanes.
    type Quad: Copy;
    /// Whether registers suffice for the large tiles.
    const WIDE: bool;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// `a·b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer.
    unsafe fn round(a: Self::F) -> Self::F;
    /// 2ⁿ for integral −126 ≤ n ≤ 127.
    unsafe fn exp2_integral(n: Self::F) -> Self::F;
    /// `value` where `a ≥ bound`, zero elsewhere (also where a is NaN).
    unsafe fn zero_below(a: Self::F, bound: f32, value: Self::F) -> Self::F;
    /// The sum of all lanes, in an order of its own.
    unsafe fn sum(a: Self::F) -> f32;
    /// The largest lane.
    unsafe fn largest(a: Self::F) -> f32;
    /// 16 × f16, widened.
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// Rounds to nearest even bf16.
    unsafe fn store_bf16(to: *mut u16, value: Self::F);
    /// Rounds to the nearest integer, ties to even. Lanes lie in −128..=127.
    unsafe fn store_i8(to: *mut i8, value: Self::F);
    /// The largest power of two not above |a|, by its bits: zero for subnormal numbers.
    unsafe fn power_below(a: Self::F) -> Self::F;

    /// 32 × bf16.
    unsafe fn pairs_bf16(from: *const u16) -> Self::Pairs;
    /// 32 × i8, exact in bf16.
    unsafe fn pairs_i8(from: *const i8) -> Self::Pairs;
    /// 32 × E4M3, exact in bf16; the NaN codes become ±480.
    unsafe fn pairs_e4m3(from: *const u8) -> Self::Pairs;
    /// 32 bytes of nibbles, level + 8 each: the low ones, then the high ones.
    unsafe fn pairs_i4(from: *const u8) -> [Self::Pairs; 2];
    /// The first and the second of each pair, as f32.
    unsafe fn widen(pairs: Self::Pairs) -> [Self::F; 2];
    /// Writes 32 × bf16.
    unsafe fn store_pairs(to: *mut u16, pairs: Self::Pairs);
    /// Two bf16 for every lane.
    unsafe fn splat_pair(from: *const u16) -> Self::Pair;
    /// `acc + w₀·x₀ + w₁·x₁` in each lane, f32 accumulation.
    unsafe fn dot(acc: Self::F, w: Self::Pairs, x: Self::Pair) -> Self::F;

    /// The same integer in all lanes.
    unsafe fn splat_i32(value: i32) -> Self::I;
    /// To the nearest f32.
    unsafe fn to_f32(a: Self::I) -> Self::F;
    /// 64 × u8.
    unsafe fn quads_u8(from: *const u8) -> Self::Quads;
    /// 32 bytes of nibbles: byte 2c + j holds k = 2j of column c in its low half, 2j + 1 in its high.
    unsafe fn quads_u4(from: *const u8) -> Self::Quads;
    /// Writes 64 × u8.
    unsafe fn store_quads(to: *mut u8, quads: Self::Quads);
    /// Four i8 for every lane.
    unsafe fn splat_quad(from: *const i8) -> Self::Quad;
    /// `acc + w₀·x₀ + w₁·x₁ + w₂·x₂ + w₃·x₃` in each lane: exact, but for wrapping at 2³².
    unsafe fn dot_i8(acc: Self::I, w: Self::Quads, x: Self::Quad) -> Self::I;

    /// eˣ within 2 units in the last place; zero below −87.3.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        const LOWEST: f32 = -87.3;
        // SAFETY: same contract as the caller's.
        unsafe {
            let clamped = Self::min(Self::max(x, Self::splat(LOWEST)), Self::splat(88.3));
            let n = Self::round(Self::mul(clamped, Self::splat(std::f32::consts::LOG2_E)));
            // ln 2 in two parts, so that r keeps its last bits.
            let r = Self::fma(n, Self::splat(-0.693_359_4), clamped);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            // The Taylor series of eʳ on |r| ≤ ln2/2, to the seventh power.
            let mut p = Self::splat(1.0 / 5040.0);
            for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                p = Self::fma(p, r, Self::splat(c));
            }
            Self::zero_below(x, LOWEST, Self::mul(p, Self::exp2_integral(n)))
        }
    }

    /// The first `n ≤ 16` elements, the rest `fill`.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize, fill: f32) -> Self::F {
        // SAFETY: the caller's pointer holds n elements; the buffer holds all 16.
        unsafe {
            if n >= LANES {
                return Self::load(from);
            }
            let mut buffer = [fill; LANES];
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), n);
            Self::load(buffer.as_ptr())
        }
    }

    /// Stores the first `n ≤ 16` lanes.
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, n: usize, value: Self::F) {
        // SAFETY: as for `load_part`.
        unsafe {
            if n >= LANES {
                return Self::store(to, value);
            }
            let mut buffer = [0.0; LANES];
            Self::store(buffer.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, n);
        }
    }
}

/// A piece of work that is compiled for each instruction set.
pub(crate) trait Kernel {
    /// Does the work.
    ///
    /// # Safety
    /// Only [`Isa::run`] may call this. Implementations must be `#[inline(always)]`.
    unsafe fn run<S: Simd>(self);
}

/// An instruction set that the kernels are compiled for.
///
/// ```
/// use bantam_cpu::Isa;
/// assert!(Isa::available().contains(&Isa::Scalar));
/// assert_eq!("avx2".parse(), Ok(Isa::Avx2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, for every machine.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, BF16 and VNNI (Zen 4, Cooper Lake, Sapphire Rapids and later). Every
    /// processor that has BF16 has VNNI; where a virtual machine hides either, AVX2 serves.
    Avx512,
}

impl Isa {
    /// The sets that this machine has, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512].into_iter().filter(|isa| isa.detected()).collect()
    }

    /// The fastest set that this machine has.
    #[must_use]
    pub fn best() -> Self {
        *Self::available().last().expect("scalar code runs everywhere")
    }

    #[cfg(target_arch = "x86_64")]
    fn detected(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.detected()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512vnni")
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected(self) -> bool {
        self == Self::Scalar
    }

    /// Runs a kernel with these instructions.
    ///
    /// # Panics
    /// If the machine lacks them.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        match self {
            // SAFETY: scalar code needs nothing.
            Self::Scalar => unsafe { kernel.run::<scalar::Scalar>() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` in use was detected when the back end was made.
            Self::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512::run(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => unreachable!("refused when the back end was made"),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// The text names no instruction set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set '{0}'; use scalar, avx2 or avx512")]
pub struct UnknownIsa(String);

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(text: &str) -> Result<Self, UnknownIsa> {
        [Self::Scalar, Self::Avx2, Self::Avx512]
            .into_iter()
            .find(|isa| isa.to_string() == text)
            .ok_or_else(|| UnknownIsa(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
