//! The "k-quants": super-blocks of 256 weights, whose sub-blocks have small integers as their scales.

use super::half_at;

/// Q2_K: scale (low nibble) and offset (high nibble) of each sub-block `[16]`, weights `[64]`, f16 d and
/// dmin. The 32 bytes of a half of 128 weights hold its quarters in their pairs of bits.
pub(super) fn decode_q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, weights) = (&block[..16], &block[16..80]);
    let (d, d_min) = (half_at(block, 80), half_at(block, 82));
    for (j, values) in out.chunks_exact_mut(16).enumerate() {
        let (scale, min) = (d * f32::from(scales[j] & 0xF), d_min * f32::from(scales[j] >> 4));
        for (x, byte) in values.iter_mut().zip(two_bit_bytes(weights, j)) {
            *x = scale * f32::from(byte >> (2 * (j / 2 % 4)) & 3) - min;
        }
    }
}

/// The bytes that hold two bits of each weight of sub-block `j` (0..16).
fn two_bit_bytes(weights: &[u8], j: usize) -> &[u8] {
    &weights[32 * (j / 8) + 16 * (j % 2)..][..16]
}

/// Q3_K: third bits `[32]` (bit j of byte l belongs to weight l of the j-th 32), lower bits `[64]` as
/// those of Q2_K, 6-bit scales `[12]`, f16 d. A third bit that is *not* set takes 4 away.
pub(super) fn decode_q3_k(block: &[u8], out: &mut [f32]) {
    let (third_bits, weights, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (j, values) in out.chunks_exact_mut(16).enumerate() {
        // Lower four bits in the nibbles of eight bytes, upper two in the pairs of bits of four.
        let low = scales[j % 8] >> (4 * (j / 8)) & 0xF;
        let high = scales[8 + j % 4] >> (2 * (j / 4)) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        for (l, x) in values.iter_mut().enumerate() {
            let q = two_bit_bytes(weights, j)[l] >> (2 * (j / 2 % 4)) & 3;
            let third = third_bits[16 * (j % 2) + l] >> (j / 2) & 1;
            *x = scale * (f32::from(q) - if third == 0 { 4.0 } else { 0.0 });
        }
    }
}

pub(super) fn decode_q4_k(block: &[u8], out: &mut [f32]) {
    decode_sub_blocks(block, &[0; 32], &block[16..], out);
}

pub(super) fn decode_q5_k(block: &[u8], out: &mut [f32]) {
    decode_sub_blocks(block, &block[16..48], &block[48..], out);
}

/// The common part of Q4_K and Q5_K. `block` begins with f16 d, f16 dmin and 12 bytes of 6-bit
/// scales; `fifth_bits` is `[32]` (bit j of byte l belongs to element l of sub-block j) and
/// `packed` `[128]` (sub-blocks 2p and 2p + 1 are the low and high nibbles of 32 bytes).
fn decode_sub_blocks(block: &[u8], fifth_bits: &[u8], packed: &[u8], out: &mut [f32]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = six_bit_scale(&block[4..16], j);
        let (scale, min) = (d * f32::from(scale), d_min * f32::from(min));
        let bytes = &packed[32 * (j / 2)..];
        for (l, x) in values.iter_mut().enumerate() {
            let nibble = bytes[l] >> (4 * (j % 2)) & 0xF;
            let q = nibble | (fifth_bits[l] >> j & 1) << 4;
            *x = scale * f32::from(q) - min;
        }
    }
}

/// Scale and minimum of sub-block `j` (0..8), six bits each, from the 12 bytes that hold all of
/// them: the last four sub-blocks keep their upper two bits above those of the first four.
fn six_bit_scale(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let low = packed[j + 4];
        ((low & 0xF) | (packed[j - 4] >> 6) << 4, (low >> 4) | (packed[j] >> 6) << 4)
    }
}

/// Q6_K: lower four bits `[128]`, upper two bits `[64]`, signed scales `[16]`, f16 d. Each half of
/// 128 elements has four quarters of 32 that share the 32 bytes of upper bits.
pub(super) fn decode_q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let d = half_at(block, 208);
    for (chunk, values) in out.chunks_exact_mut(32).enumerate() {
        let (half, quarter) = (chunk / 4, chunk % 4);
        let low = &low[64 * half + 32 * (quarter % 2)..];
        let high = &high[32 * half..];
        for (l, x) in values.iter_mut().enumerate() {
            let scale = scales[2 * chunk + l / 16].cast_signed();
            let nibble = low[l] >> (4 * (quarter / 2)) & 0xF;
            let q = nibble | (high[l] >> (2 * quarter) & 3) << 4;
            *x = d * f32::from(scale) * (f32::from(q) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bit_scales_round_trip_through_their_packing() {
        // Pack scales 8j + 7 and minima 63 − 5j by the rule of the format, read them back.
        let scales: Vec<u8> = (0..8).map(|j| 8 * j + 7).collect();
        let minima: Vec<u8> = (0..8).map(|j| 63 - 5 * j).collect();
        let mut packed = [0u8; 12];
        for j in 0..4 {
            packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
            packed[j + 4] = minima[j] | (minima[j + 4] >> 4) << 6;
            packed[j + 8] = (scales[j + 4] & 15) | (minima[j + 4] & 15) << 4;
        }
        for j in 0..8 {
            assert_eq!(six_bit_scale(&packed, j), (scales[j], minima[j]), "sub-block {j}");
        }
    }
}
