//! The two number types of activations and cached keys and values.

use crate::layout::pair_index;
use crate::panels::{Bf16Panel, F32Panel, Panel};
use crate::simd::{LANES, Simd};
use half::bf16;

/// f32, or bf16 as its bits.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// The panel format of these elements.
    type Panel<S: Simd>: Panel<S, Element = Self>;

    fn from_f32(value: f32) -> Self;
    /// Where element (column, k) of a panel's quad lies, `column < 16`, `k < 4`.
    fn index(column: usize, k: usize) -> usize;
    /// Rounds and stores the first `n ≤ 16` lanes.
    ///
    /// # Safety
    /// As for [`Simd`]; `to` holds n elements.
    unsafe fn store<S: Simd>(to: *mut Self, n: usize, value: S::F);
}

impl Element for f32 {
    type Panel<S: Simd> = F32Panel;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn index(column: usize, k: usize) -> usize {
        k * LANES + column
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, n: usize, value: S::F) {
        // SAFETY: the caller's.
        unsafe { S::store_part(to, n, value) }
    }
}

impl Element for u16 {
    type Panel<S: Simd> = Bf16Panel;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value).to_bits()
    }
    #[inline(always)]
    fn index(column: usize, k: usize) -> usize {
        pair_index(column, k)
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
