//! The block formats of GGML: a few dozen weights that share one or two scales.
//!
//! A row of K weights is cut into blocks along K; each block holds its scales and its packed
//! integers together, little-endian. Byte layouts follow the GGML block definitions that GGUF
//! files refer to by number. Nibbles of a 32-element block are split by halves: byte j holds
//! element j in its low nibble and element j + 16 in its high one.

mod code_books;
mod k_quants;
mod simple;
mod ternary;

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
    /// 256 weights of 2 bits in 16 sub-blocks with 4-bit scales and offsets.
    Q2K,
    /// 256 weights of 3 bits in 16 sub-blocks with 6-bit scales.
    Q3K,
    /// 256 weights of 4 bits in 8 sub-blocks with 6-bit scales and offsets.
    Q4K,
    /// 256 weights of 5 bits in 8 sub-blocks with 6-bit scales and offsets.
    Q5K,
    /// 256 weights of 6 bits in 16 sub-blocks with 8-bit scales.
    Q6K,
    /// 32 weights of 4 bits that name one of 16 unevenly spaced levels.
    IQ4_NL,
    /// 256 weights as those of [`IQ4_NL`](Self::IQ4_NL), in 8 sub-blocks with 6-bit scales.
    IQ4_XS,
    /// 256 weights of −1, 0 or 1, five in a byte.
    TQ1_0,
    /// 256 weights of −1, 0 or 1 in 2 bits.
    TQ2_0,
    /// 32 weights in FP4 (E2M1) with a power of two (E8M0) as their scale (OCP Microscaling 1.0).
    MXFP4,
    /// 64 weights in FP4 (E2M1), 16 of them with a scale in FP8 (E4M3) each.
    NVFP4,
}

/// What there is to know about a format.
struct Layout {
    block: BlockType,
    /// The number GGUF files store for it.
    ggml_type: u32,
    name: &'static str,
    elements: usize,
    bytes: usize,
    decode: fn(&[u8], &mut [f32]),
}

/// Every format in the order of [`BlockType`]. Bytes are written as the sum of a block's parts.
const LAYOUTS: [Layout; BlockType::ALL.len()] = {
    use BlockType as B;
    const fn row(
        block: BlockType,
        ggml_type: u32,
        name: &'static str,
        elements: usize,
        bytes: usize,
        decode: fn(&[u8], &mut [f32]),
    ) -> Layout {
        Layout { block, ggml_type, name, elements, bytes, decode }
    }
    [
        row(B::Q4_0, 2, "q4_0", 32, 2 + 16, simple::decode_q4_0),
        row(B::Q4_1, 3, "q4_1", 32, 2 + 2 + 16, simple::decode_q4_1),
        row(B::Q5_0, 6, "q5_0", 32, 2 + 4 + 16, simple::decode_q5_0),
        row(B::Q5_1, 7, "q5_1", 32, 2 + 2 + 4 + 16, simple::decode_q5_1),
        row(B::Q8_0, 8, "q8_0", 32, 2 + 32, simple::decode_q8_0),
        row(B::Q2K, 10, "q2_k", 256, 16 + 64 + 2 + 2, k_quants::decode_q2_k),
        row(B::Q3K, 11, "q3_k", 256, 32 + 64 + 12 + 2, k_quants::decode_q3_k),
        row(B::Q4K, 12, "q4_k", 256, 2 + 2 + 12 + 128, k_quants::decode_q4_k),
        row(B::Q5K, 13, "q5_k", 256, 2 + 2 + 12 + 32 + 128, k_quants::decode_q5_k),
        row(B::Q6K, 14, "q6_k", 256, 128 + 64 + 16 + 2, k_quants::decode_q6_k),
        row(B::IQ4_NL, 20, "iq4_nl", 32, 2 + 16, code_books::decode_iq4_nl),
        row(B::IQ4_XS, 23, "iq4_xs", 256, 2 + 2 + 4 + 128, code_books::decode_iq4_xs),
        row(B::TQ1_0, 34, "tq1_0", 256, 48 + 4 + 2, ternary::decode_tq1_0),
        row(B::TQ2_0, 35, "tq2_0", 256, 64 + 2, ternary::decode_tq2_0),
        row(B::MXFP4, 39, "mxfp4", 32, 1 + 16, code_books::decode_mxfp4),
        row(B::NVFP4, 40, "nvfp4", 64, 4 + 32, code_books::decode_nvfp4),
    ]
};

impl BlockType {
    /// Every block format, in the order of their GGML type numbers.
    pub const ALL: [Self; 16] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::MXFP4,
        Self::NVFP4,
    ];

    const fn layout(self) -> &'static Layout {
        &LAYOUTS[self as usize]
    }

    /// The format with this GGML type number, or `None` for plain scalars and other blocks.
    #[must_use]
    pub fn from_ggml_type(id: u32) -> Option<Self> {
        LAYOUTS.iter().find(|layout| layout.ggml_type == id).map(|layout| layout.block)
    }

    /// The number GGUF files store for this format.
    #[must_use]
    pub const fn ggml_type(self) -> u32 {
        self.layout().ggml_type
    }

    /// The lower-case name used in messages and JSON, such as `q4_1` or `q4_k`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// Weights per block.
    #[must_use]
    pub const fn block_elements(self) -> usize {
        self.layout().elements
    }

    /// Bytes per block, scales included.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        self.layout().bytes
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
        let decode_block = self.layout().decode;
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
            assert_eq!(block.layout().block, block);
        }
        // F32, F16 and IQ2_XXS are not block formats of this list.
        for id in [0, 1, 16, u32::MAX] {
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
        let mut rest: &[u8] = include_bytes!("../../tests/data/ggml_blocks.bin");
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
