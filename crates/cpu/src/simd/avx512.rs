//! Sixteen lanes in one AVX-512 register, with the BF16 and VNNI dot products.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// AVX-512 F, BW, VL, BF16 and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// Enters a kernel with AVX-512 enabled.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512bf16,avx512vnni")]
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

/// bf16 codes of the subnormal E4M3 magnitudes 0..8, steps of 2⁻⁹; a lookup reads five bits of its
/// index.
const SUBNORMALS: [u16; 32] = {
    let mut codes = [0; 32];
    let mut i = 0;
    while i < 8 {
        codes[i] = (i as f32 / 512.0).to_bits().wrapping_shr(16) as u16;
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
    type I = __m512i;
    type Quads = __m512i;
    type Quad = __m512i;
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
    unsafe fn store_i8(to: *mut i8, value: __m512) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value))) }
    }
    #[inline(always)]
    unsafe fn power_below(a: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_set1_epi32(0x7f80_0000);
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), exponent))
        }
    }

    #[inline(always)]
    unsafe fn pairs_bf16(from: *const u16) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn pairs_i8(from: *const i8) -> __m512i {
        unsafe {
            let low = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.add(16).cast()));
            let (low, high) = (_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }
    #[inline(always)]
    unsafe fn pairs_e4m3(from: *const u8) -> __m512i {
        unsafe {
            let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
            // Exponent and mantissa move into place, and the bias becomes that of bf16.
            let magnitude =
                _mm512_and_si512(_mm512_slli_epi16::<4>(codes), _mm512_set1_epi16(0x7f0));
            let normal = _mm512_add_epi16(magnitude, _mm512_set1_epi16(120 << 7));
            // The eight smallest have no exponent to move: they are looked up.
            let small = _mm512_testn_epi16_mask(codes, _mm512_set1_epi16(0x78));
            let table = _mm512_loadu_si512(SUBNORMALS.as_ptr().cast());
            let magnitude = _mm512_mask_permutexvar_epi16(normal, small, codes, table);
            let sign = _mm512_and_si512(_mm512_slli_epi16::<8>(codes), _mm512_set1_epi16(i16::MIN));
            _mm512_or_si512(magnitude, sign)
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
    unsafe fn widen(pairs: __m512i) -> [__m512; 2] {
        unsafe {
            let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
            let second = _mm512_and_si512(pairs, upper);
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second)]
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

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn quads_u8(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn quads_u4(from: *const u8) -> __m512i {
        unsafe {
            // A byte becomes two: its low nibble, and its high one moved down from the byte above.
            let bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
            let spread = _mm512_or_si512(bytes, _mm512_slli_epi16::<4>(bytes));
            _mm512_and_si512(spread, _mm512_set1_epi8(0xf))
        }
    }
    #[inline(always)]
    unsafe fn store_quads(to: *mut u8, quads: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), quads) }
    }
    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot_i8(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, x) }
    }
}
