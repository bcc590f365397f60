//! Blocks of 256 weights that are −1, 0 or 1 times a scale.

use super::half_at;

/// TQ1_0: five weights in each of 48 bytes, four in each of 4, f16 d. A byte is a fraction in base 3:
/// times 3 to the n, without what overflows, its first digit is the n-th weight.
pub(super) fn decode_tq1_0(block: &[u8], out: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let d = half_at(block, 52);
    // Bytes that lie together hold their first weights together, then their second ones.
    let parts = [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)];
    let weights = parts.into_iter().flat_map(|(bytes, digits)| {
        let power = POWERS[..digits].iter();
        power.flat_map(move |power| bytes.iter().map(move |byte| byte.wrapping_mul(*power)))
    });
    for (x, fraction) in out.iter_mut().zip(weights) {
        *x = d * (f32::from(((u16::from(fraction) * 3) >> 8) as u8) - 1.0);
    }
}

/// TQ2_0: weights `[64]`, f16 d. The 32 bytes of a half of 128 weights hold its quarters in their pairs
/// of bits.
pub(super) fn decode_tq2_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 64);
    for (chunk, values) in out.chunks_exact_mut(32).enumerate() {
        let bytes = &block[32 * (chunk / 4)..];
        for (x, byte) in values.iter_mut().zip(bytes) {
            *x = d * (f32::from(byte >> (2 * (chunk % 4)) & 3) - 1.0);
        }
    }
}
