//! Blocks whose nibbles name one of 16 levels that are not evenly spaced.

use super::half_at;
use crate::float8;

/// The levels of IQ4_NL and IQ4_XS: close together near zero, where most weights are.
const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// FP4 (E2M1) times two, to be whole numbers.
const FP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Unpacks nibbles split by halves: `packed` is half as long as `out`.
fn look_up(levels: &[i8; 16], packed: &[u8], scale: f32, out: &mut [f32]) {
    let (low, high) = out.split_at_mut(packed.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
        *low = scale * f32::from(levels[usize::from(byte & 0xF)]);
        *high = scale * f32::from(levels[usize::from(byte >> 4)]);
    }
}

/// IQ4_NL: f16 d, nibbles `[16]`.
pub(super) fn decode_iq4_nl(block: &[u8], out: &mut [f32]) {
    look_up(&UNEVEN, &block[2..], half_at(block, 0), out);
}

/// IQ4_XS: f16 d, upper two bits of the scales (16 bits), their lower four bits `[4]`, nibbles `[128]`.
pub(super) fn decode_iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + j / 2] >> (4 * (j % 2)) & 0xF;
        let high = (upper >> (2 * j) & 3) as u8;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        look_up(&UNEVEN, &block[8 + 16 * j..][..16], scale, values);
    }
}

/// MXFP4: E8M0 scale, nibbles `[16]`.
pub(super) fn decode_mxfp4(block: &[u8], out: &mut [f32]) {
    look_up(&FP4_DOUBLED, &block[1..], half_power(block[0]), out);
}

/// Half of the power of two that E8M0 says, 2^(e − 128), since the levels are doubled. All are finite.
fn half_power(e: u8) -> f32 {
    let e = u32::from(e);
    // The two smallest are below what a normal binary32 can be.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
}

/// NVFP4: E4M3 scales `[4]`, nibbles `[32]`, those of each 16 weights split by halves.
pub(super) fn decode_nvfp4(block: &[u8], out: &mut [f32]) {
    for (j, values) in out.chunks_exact_mut(16).enumerate() {
        look_up(&FP4_DOUBLED, &block[4 + 8 * j..][..8], 0.5 * unsigned_e4m3(block[j]), values);
    }
}

/// E4M3 whose sign bit says nothing; the two codes that are not numbers are zero, as GGML has them.
fn unsigned_e4m3(code: u8) -> f32 {
    let value = float8::e4m3_to_f32(code & 0x7F);
    if value.is_nan() { 0.0 } else { value }
}
