//! The block formats of GGML: a few dozen weights that share one or two scales.
//!
//! A row of K weights is cut into blocks along K; each block holds its scales and its packed
//! integers together, little-endian. Byte layouts follow the GGML block definitions that GGUF
//! files refer to by number. Nibbles of a 32-element block are split by halves: byte j holds
//! element j in its low nibble and element j + 16 in its high one.

use std::fmt;

use half::f16;

/// A block format of GGML, as tensors of GGUF files are stored.
///
/// Notation: `d` and `m` are binary16 scale and offset of a block, `q` an unsigned integer.
///
/// ```
/// use bantam_numerics::BlockType;
/// let block = BlockType::from_ggml_type(3).expect("Q4_1 has the number 3");
/// assert_eq!(block, BlockType::Q4_1);
/// assert_eq!((block.block_elements(), block.block_bytes()), (32, 20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the names the formats are known by")]
pub enum BlockType {
    /// 32 weights of 4 bits: `d · (q − 8)`.
    Q4_0,
    /// 32 weights of 4 bits: `d · q + m`.
    Q4_1,
    /// 32 weights of 5 bits: `d · (q − 16)`.
    Q5_0,
    /// 32 weights of 5 bits: `d · q + m`.
    Q5_1,
    /// 32 weights of 8 bits: `d · q`, q signed.
    Q8_0,
    /// 256 weights of 4 bits in 8 sub-blocks with 6-bit scales and offsets.
    Q4K,
    /// 256 weights of 5 bits in 8 sub-blocks with 6-bit scales and offsets.
    Q5K,
    /// 256 weights of 6 bits in 16 sub-blocks with 8-bit scales.
    Q6K,
}

impl BlockType {
    /// Every block format, in the order of their GGML type numbers.
    pub const ALL: [Self; 8] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The format with this GGML type number, or `None` for plain scalars and other blocks.
    #[must_use]
    pub fn from_ggml_type(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|block| block.ggml_type() == id)
    }

    /// The number GGUF files store for this format.
    #[must_use]
    pub const fn ggml_type(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
        }
    }

    /// The lower-case name used in messages and JSON, such as `q4_1` or `q4_k`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Weights per block.
    #[must_use]
    pub const fn block_elements(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block, scales included.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 2 + 2 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Dequantizes whole blocks: `bytes` is `[blocks · block_bytes]`, `out` is
    /// `[blocks · block_elements]`. The arithmetic is binary32, in the order GGML defines, so the
    /// result is the same to the bit.
    ///
    /// # Panics
    ///
    /// When the two lengths are not the same number of whole blocks.
    /// [`Encoding::decode`](crate::Encoding::decode) checks them and returns an error instead.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (elements, size) = (self.block_elements(), self.block_bytes());
        assert!(
            bytes.len().is_multiple_of(size)
                && out.len().is_multiple_of(elements)
                && bytes.len() / size == out.len() / elements,
            "{self}: {} bytes are not the blocks of {} elements",
            bytes.len(),
            out.len()
        );
        let decode_block = match self {
            Self::Q4_0 => decode_q4_0,
            Self::Q4_1 => decode_q4_1,
            Self::Q5_0 => decode_q5_0,
            Self::Q5_1 => decode_q5_1,
            Self::Q8_0 => decode_q8_0,
            Self::Q4K => decode_q4_k,
            Self::Q5K => decode_q5_k,
            Self::Q6K => decode_q6_k,
        };
        for (block, values) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(elements)) {
            decode_block(block, values);
        }
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The binary16 number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The little-endian 32-bit word at byte `at`.
fn word_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Unpacks 32 elements: `packed` is `[16]` bytes of nibbles split by halves, bit j of `fifth_bits`
/// is bit 4 of element j.
fn unpack_32(packed: &[u8], fifth_bits: u32, out: &mut [f32], value: impl Fn(u32) -> f32) {
    let q = |j: usize, nibble: u8| u32::from(nibble) | ((fifth_bits >> j) & 1) << 4;
    for (j, &byte) in packed.iter().enumerate() {
        out[j] = value(q(j, byte & 0xF));
        out[j + 16] = value(q(j + 16, byte >> 4));
    }
}

fn decode_q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    unpack_32(&block[2..], 0, out, |q| d * (q as f32 - 8.0));
}

fn decode_q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    unpack_32(&block[4..], 0, out, |q| d * q as f32 + m);
}

fn decode_q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    unpack_32(&block[6..], word_at(block, 2), out, |q| d * (q as f32 - 16.0));
}

fn decode_q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    unpack_32(&block[8..], word_at(block, 4), out, |q| d * q as f32 + m);
}

fn decode_q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (x, &q) in out.iter_mut().zip(&block[2..]) {
        *x = d * f32::from(q.cast_signed());
    }
}

fn decode_q4_k(block: &[u8], out: &mut [f32]) {
    decode_sub_blocks(block, &[0; 32], &block[16..], out);
}

fn decode_q5_k(block: &[u8], out: &mut [f32]) {
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
fn decode_q6_k(block: &[u8], out: &mut [f32]) {
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

    fn decode(block_type: BlockType, bytes: &[u8]) -> Vec<f32> {
        let blocks = bytes.len() / block_type.block_bytes();
        let mut out = vec![f32::NAN; blocks * block_type.block_elements()];
        block_type.decode(bytes, &mut out);
        out
    }

    fn half_bytes(value: f32) -> [u8; 2] {
        f16::from_f32(value).to_le_bytes()
    }

    #[test]
    fn type_numbers_lead_back_to_their_format() {
        for block in BlockType::ALL {
            assert_eq!(BlockType::from_ggml_type(block.ggml_type()), Some(block));
        }
        // F32, F16 and Q2_K are not block formats of this list.
        for id in [0, 1, 10, u32::MAX] {
            assert_eq!(BlockType::from_ggml_type(id), None);
        }
    }

    #[test]
    fn q4_0_centres_its_nibbles_on_eight() {
        let mut block = half_bytes(0.5).to_vec();
        block.extend((0..16u8).map(|j| j | (15 - j) << 4));
        let values = decode(BlockType::Q4_0, &block);
        for j in 0..16 {
            assert_eq!(values[j], 0.5 * (j as f32 - 8.0));
            assert_eq!(values[j + 16], 0.5 * (7.0 - j as f32));
        }
    }

    #[test]
    fn q4_1_adds_its_offset() {
        let mut block = half_bytes(0.25).to_vec();
        block.extend(half_bytes(-1.0));
        block.extend([0x3A; 16]);
        let values = decode(BlockType::Q4_1, &block);
        assert_eq!(values[..16], [0.25 * 10.0 - 1.0; 16]);
        assert_eq!(values[16..], [0.25 * 3.0 - 1.0; 16]);
    }

    #[test]
    fn fifth_bits_reach_their_element_only() {
        for element in 0..32 {
            let mut block = half_bytes(1.0).to_vec();
            block.extend((1u32 << element).to_le_bytes());
            block.extend([0; 16]);
            let values = decode(BlockType::Q5_0, &block);
            for (j, value) in values.iter().enumerate() {
                assert_eq!(*value, if j == element { 0.0 } else { -16.0 });
            }
        }
    }

    #[test]
    fn q8_0_is_signed() {
        let mut block = half_bytes(2.0).to_vec();
        block.extend((0..32).map(|j| (j as i8 - 16).cast_unsigned()));
        let values = decode(BlockType::Q8_0, &block);
        assert_eq!(values, (0..32).map(|j| 2.0 * (j as f32 - 16.0)).collect::<Vec<_>>());
    }

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

    #[test]
    #[should_panic(expected = "q4_0: 17 bytes are not the blocks of 32 elements")]
    fn a_partial_block_is_refused() {
        decode_into_one_block(&[0; 17]);
    }

    fn decode_into_one_block(bytes: &[u8]) {
        BlockType::Q4_0.decode(bytes, &mut [0.0; 32]);
    }

    /// Random blocks decoded by gguf-py; `tools/golden/ggml_blocks.py` writes the file: for each
    /// format in the order of [`BlockType::ALL`], three blocks, then their values as f32.
    #[test]
    fn every_format_matches_gguf_py_to_the_bit() {
        const BLOCKS: usize = 3;
        let mut rest: &[u8] = include_bytes!("../tests/data/ggml_blocks.bin");
        for block_type in BlockType::ALL {
            let (bytes, tail) = rest.split_at(BLOCKS * block_type.block_bytes());
            let (expected, tail) = tail.split_at(BLOCKS * block_type.block_elements() * 4);
            rest = tail;
            let values = decode(block_type, bytes);
            for (i, (value, expected)) in values.iter().zip(expected.chunks_exact(4)).enumerate() {
                let expected = word_at(expected, 0);
                assert_eq!(value.to_bits(), expected, "{block_type} element {i}: {value}");
            }
        }
        assert!(rest.is_empty());
    }
}
