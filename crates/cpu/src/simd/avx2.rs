//! Sixteen lanes in pairs of AVX2 registers.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Enters a kernel with AVX2 enabled.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) {
    // SAFETY: the caller detected AVX2.
    unsafe { kernel.run::<Avx2>() }
}

type F = [__m256; 2];

/// bf16 codes of the levels −8..=7: the low bytes and the high bytes, indexed by nibble.
const LEVEL_BYTES: [[i8; 16]; 2] = {
    let mut bytes = [[0; 16]; 2];
    let mut nibble = 0;
    while nibble < 16 {
        let bits = ((nibble as i32 - 8) as f32).to_bits() >> 16;
        bytes[0][nibble] = (bits & 0xff) as i8;
        bytes[1][nibble] = (bits >> 8) as i8;
        nibble += 1;
    }
    bytes
};

// What both halves of a value need. Functions, not closures: a closure that is called twice is not
// inlined, and outside `run` each instruction is a call.
// SAFETY of the helpers: as for the trait.

/// 2ⁿ for integral n.
#[inline(always)]
unsafe fn exp2(n: __m256) -> __m256 {
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

/// The nearest bf16 of each lane, ties to even, in 32 bits.
#[inline(always)]
unsafe fn rounded_bf16(v: __m256) -> __m256i {
    unsafe {
        let bits = _mm256_castps_si256(v);
        // Add half of the last kept place, minus one where it is even.
        let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff));
        let upper = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, bias));
        // A NaN must stay one: the addition could carry it into a number.
        let quiet = _mm256_or_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(0x40));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        _mm256_blendv_epi8(upper, quiet, nan)
    }
}

/// The lower halves of the 32-bit lanes of a, then those of b.
#[inline(always)]
unsafe fn pack(a: __m256i, b: __m256i) -> __m256i {
    unsafe { _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b)) }
}

/// bf16 codes of eight i8, in 32 bits: an 8-bit integer is exact in the upper half of its f32.
#[inline(always)]
unsafe fn upper_i8(from: *const i8) -> __m256i {
    unsafe {
        let levels = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
        _mm256_srli_epi32::<16>(_mm256_castps_si256(_mm256_cvtepi32_ps(levels)))
    }
}

/// bf16 codes of eight E4M3, in 32 bits.
#[inline(always)]
unsafe fn upper_e4m3(from: *const u8) -> __m256i {
    unsafe {
        let codes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
        let sign = _mm256_and_si256(codes, _mm256_set1_epi32(i32::MIN));
        let magnitude = _mm256_and_si256(codes, _mm256_set1_epi32(0x7f));
        // Exponent and mantissa moved into place stand for the value times 2^-120.
        let bits = _mm256_or_si256(sign, _mm256_slli_epi32::<20>(magnitude));
        let rescale = _mm256_set1_ps(f32::from_bits(247 << 23));
        let value = _mm256_mul_ps(_mm256_castsi256_ps(bits), rescale);
        _mm256_srli_epi32::<16>(_mm256_castps_si256(value))
    }
}

/// bf16 codes of 16 levels by their nibbles.
#[inline(always)]
unsafe fn levels(nibbles: __m128i) -> __m256i {
    unsafe {
        let low = _mm_shuffle_epi8(_mm_loadu_si128(LEVEL_BYTES[0].as_ptr().cast()), nibbles);
        let high = _mm_shuffle_epi8(_mm_loadu_si128(LEVEL_BYTES[1].as_ptr().cast()), nibbles);
        _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high))
    }
}

/// The first and the second bf16 of each pair, widened.
#[inline(always)]
unsafe fn split(pairs: __m256i) -> [__m256; 2] {
    unsafe {
        let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
        let second = _mm256_and_si256(pairs, upper);
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second)]
    }
}

/// `acc + w₀·x₀ + w₁·x₁` of bf16 pairs.
#[inline(always)]
unsafe fn dot_pairs(acc: __m256, w: __m256i, x: __m256i) -> __m256 {
    unsafe {
        let (w, x) = (split(w), split(x));
        _mm256_fmadd_ps(w[1], x[1], _mm256_fmadd_ps(w[0], x[0], acc))
    }
}

/// `acc + Σ w·x` of quads, even and odd k apart.
#[inline(always)]
unsafe fn dot_quads(acc: __m256i, w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    unsafe {
        let even = _mm256_add_epi32(acc, _mm256_madd_epi16(w[0], x[0]));
        _mm256_add_epi32(even, _mm256_madd_epi16(w[1], x[1]))
    }
}

// SAFETY of every block below: the trait's contract gives pointers to as many elements as are read,
// and calls happen only below `run`.
impl Simd for Avx2 {
    type F = F;
    type Pairs = [__m256i; 2];
    type Pair = __m256i;
    type I = [__m256i; 2];
    /// Even and odd k as i16, of the first eight columns and of the last.
    type Quads = [[__m256i; 2]; 2];
    /// Even and odd k as i16.
    type Quad = [__m256i; 2];
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: F) {
        unsafe {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
    }
    #[inline(always)]
    unsafe fn exp2_integral(n: F) -> F {
        unsafe { [exp2(n[0]), exp2(n[1])] }
    }
    #[inline(always)]
    unsafe fn zero_below(a: F, bound: f32, value: F) -> F {
        unsafe {
            let bound = _mm256_set1_ps(bound);
            [
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a[0], bound), value[0]),
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a[1], bound), value[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn sum(a: F) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(a[0], a[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn largest(a: F) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(a[0], a[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: F) {
        unsafe {
            _mm256_storeu_si256(to.cast(), pack(rounded_bf16(value[0]), rounded_bf16(value[1])));
        }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: F) {
        unsafe {
            let words =
                _mm256_packs_epi32(_mm256_cvtps_epi32(value[0]), _mm256_cvtps_epi32(value[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm256_packs_epi16(words, words);
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
        }
    }
    #[inline(always)]
    unsafe fn power_below(a: F) -> F {
        unsafe {
            let exponent = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f80_0000));
            [_mm256_and_ps(a[0], exponent), _mm256_and_ps(a[1], exponent)]
        }
    }

    #[inline(always)]
    unsafe fn pairs_bf16(from: *const u16) -> Self::Pairs {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast())] }
    }
    #[inline(always)]
    unsafe fn pairs_i8(from: *const i8) -> Self::Pairs {
        unsafe {
            [
                pack(upper_i8(from), upper_i8(from.add(8))),
                pack(upper_i8(from.add(16)), upper_i8(from.add(24))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn pairs_e4m3(from: *const u8) -> Self::Pairs {
        unsafe {
            [
                pack(upper_e4m3(from), upper_e4m3(from.add(8))),
                pack(upper_e4m3(from.add(16)), upper_e4m3(from.add(24))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn pairs_i4(from: *const u8) -> [Self::Pairs; 2] {
        unsafe {
            let nibble = _mm_set1_epi8(0xf);
            let bytes = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(16).cast())];
            let high = [_mm_srli_epi16::<4>(bytes[0]), _mm_srli_epi16::<4>(bytes[1])];
            [
                [levels(_mm_and_si128(bytes[0], nibble)), levels(_mm_and_si128(bytes[1], nibble))],
                [levels(_mm_and_si128(high[0], nibble)), levels(_mm_and_si128(high[1], nibble))],
            ]
        }
    }
    #[inline(always)]
    unsafe fn widen(pairs: Self::Pairs) -> [F; 2] {
        let [low, high] = unsafe { [split(pairs[0]), split(pairs[1])] };
        [[low[0], high[0]], [low[1], high[1]]]
    }
    #[inline(always)]
    unsafe fn store_pairs(to: *mut u16, pairs: Self::Pairs) {
        unsafe {
            _mm256_storeu_si256(to.cast(), pairs[0]);
            _mm256_storeu_si256(to.add(16).cast(), pairs[1]);
        }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> Self::Pair {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: F, w: Self::Pairs, x: Self::Pair) -> F {
        unsafe { [dot_pairs(acc[0], w[0], x), dot_pairs(acc[1], w[1], x)] }
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::I {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> F {
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    unsafe fn quads_u8(from: *const u8) -> Self::Quads {
        unsafe {
            let low = _mm256_set1_epi16(0xff);
            let (a, b) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()));
            [
                [_mm256_and_si256(a, low), _mm256_srli_epi16::<8>(a)],
                [_mm256_and_si256(b, low), _mm256_srli_epi16::<8>(b)],
            ]
        }
    }
    #[inline(always)]
    unsafe fn quads_u4(from: *const u8) -> Self::Quads {
        unsafe {
            let low = _mm256_set1_epi16(0xf);
            let a = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
            let b = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.add(16).cast()));
            [
                [_mm256_and_si256(a, low), _mm256_srli_epi16::<4>(a)],
                [_mm256_and_si256(b, low), _mm256_srli_epi16::<4>(b)],
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_quads(to: *mut u8, quads: Self::Quads) {
        unsafe {
            let [[even, odd], [more_even, more_odd]] = quads;
            let bytes = _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd));
            _mm256_storeu_si256(to.cast(), bytes);
            let bytes = _mm256_or_si256(more_even, _mm256_slli_epi16::<8>(more_odd));
            _mm256_storeu_si256(to.add(32).cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> Self::Quad {
        unsafe {
            let quad = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quad));
            [even, _mm256_srai_epi16::<8>(quad)]
        }
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: Self::I, w: Self::Quads, x: Self::Quad) -> Self::I {
        unsafe { [dot_quads(acc[0], w[0], x), dot_quads(acc[1], w[1], x)] }
    }
}
