//! Sixteen lanes in one AVX-512 register, with the BF16 dot product.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// AVX-512 F, BW, VL and BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// Enters a kernel with AVX-512 enabled.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) {
    // SAFETY: the caller detected these instructions.
    unsafe { kernel.run::<Avx512>() }
}

/// bf16 codes of the levels −8..=7 by nibble, twice: a lookup reads five bits of its index.
const LEVELS: [u16; 32] = {
    let mut codes = [0; 32];
    let mut i = 0;
    while i < 32 {
        codes[i] = (((i % 16) as i32 - 8) as f32).to_bits().wrapping_shr(16) as u16;
        i += 1;
    }
    codes
};

// SAFETY of every block below: the trait's contract gives pointers to as many elements as are read,
// and calls happen only below `run`.
impl Simd for Avx512 {
    type F = __m512;
    type Pairs = __m512i;
    type Pair = __m512i;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn exp2_integral(n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }
    #[inline(always)]
    unsafe fn zero_below(a: __m512, bound: f32, value: __m512) -> __m512 {
        unsafe {
            let keep = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, _mm512_set1_ps(bound));
            _mm512_maskz_mov_ps(keep, value)
        }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn largest(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: __m512) {
        unsafe {
            to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(value));
        }
    }

    #[inline(always)]
    unsafe fn pairs_bf16(from: *const u16) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn pairs_i8(from: *const i8) -> __m512i {
        unsafe {
            let widen = |at: usize| {
                let levels = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.add(at).cast()));
                _mm512_cvtepi32_ps(levels)
            };
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(widen(16), widen(0)))
        }
    }
    #[inline(always)]
    unsafe fn pairs_e4m3(from: *const u8) -> __m512i {
        unsafe {
            // Exponent and mantissa moved into place stand for the value times 2^-120.
            let rescale = _mm512_set1_ps(f32::from_bits(247 << 23));
            let widen = |at: usize| {
                let codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.add(at).cast()));
                let sign = _mm512_and_si512(codes, _mm512_set1_epi32(i32::MIN));
                let magnitude = _mm512_and_si512(codes, _mm512_set1_epi32(0x7f));
                let bits = _mm512_or_si512(sign, _mm512_slli_epi32::<20>(magnitude));
                _mm512_mul_ps(_mm512_castsi512_ps(bits), rescale)
            };
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(widen(16), widen(0)))
        }
    }
    #[inline(always)]
    unsafe fn pairs_i4(from: *const u8) -> [__m512i; 2] {
        unsafe {
            let levels = _mm512_loadu_si512(LEVELS.as_ptr().cast());
            let bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
            [
                _mm512_permutexvar_epi16(bytes, levels),
                _mm512_permutexvar_epi16(_mm512_srli_epi16::<4>(bytes), levels),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(to: *mut u16, pairs: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), pairs) }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512, w: __m512i, x: __m512i) -> __m512 {
        unsafe {
            let w = std::mem::transmute::<__m512i, __m512bh>(w);
            let x = std::mem::transmute::<__m512i, __m512bh>(x);
            _mm512_dpbf16_ps(acc, w, x)
        }
    }
}
