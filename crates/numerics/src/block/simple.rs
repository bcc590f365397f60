//! Blocks of 32 weights with one scale, and an offset or none.

use super::{half_at, word_at};

/// Unpacks 32 elements: `packed` is `[16]` bytes of nibbles split by halves, bit j of `fifth_bits`
/// is bit 4 of element j.
fn unpack_32(packed: &[u8], fifth_bits: u32, out: &mut [f32], value: impl Fn(u32) -> f32) {
    let q = |j: usize, nibble: u8| u32::from(nibble) | ((fifth_bits >> j) & 1) << 4;
    for (j, &byte) in packed.iter().enumerate() {
        out[j] = value(q(j, byte & 0xF));
        out[j + 16] = value(q(j + 16, byte >> 4));
    }
}

pub(super) fn decode_q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    unpack_32(&block[2..], 0, out, |q| d * (q as f32 - 8.0));
}

pub(super) fn decode_q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    unpack_32(&block[4..], 0, out, |q| d * q as f32 + m);
}

pub(super) fn decode_q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    unpack_32(&block[6..], word_at(block, 2), out, |q| d * (q as f32 - 16.0));
}

pub(super) fn decode_q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    unpack_32(&block[8..], word_at(block, 4), out, |q| d * q as f32 + m);
}

pub(super) fn decode_q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (x, &q) in out.iter_mut().zip(&block[2..]) {
        *x = d * f32::from(q.cast_signed());
    }
}
