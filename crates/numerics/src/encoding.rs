//! How the elements of a stored tensor are encoded: plain scalars or blocks.

use std::fmt;

use half::{bf16, f16};
use thiserror::Error;

use crate::{BlockType, DType, float8};

/// The encoding of a tensor's bytes.
///
/// ```
/// use bantam_numerics::{BlockType, DType, Encoding};
/// let row = Encoding::Block(BlockType::Q8_0);
/// assert_eq!(row.bytes_for(576), Some(18 * 34));
/// assert_eq!(row.bytes_for(100), None); // not a whole number of blocks
///
/// let mut values = [0.0; 2];
/// Encoding::Scalar(DType::BF16).decode(&[0x80, 0x3F, 0x00, 0xC0], &mut values)?;
/// assert_eq!(values, [1.0, -2.0]);
/// # Ok::<(), bantam_numerics::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One scalar after the other, little-endian.
    Scalar(DType),
    /// GGML blocks, one after the other.
    Block(BlockType),
}

/// Bytes and values handed to [`Encoding::decode`] that do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The values are not a whole number of blocks.
    #[error(
        "{encoding}: {elements} elements are not whole blocks of {block}; \
         decode a multiple of {block} elements"
    )]
    PartialBlock {
        /// The encoding asked for.
        encoding: Encoding,
        /// Values asked for.
        elements: usize,
        /// Values per block.
        block: usize,
    },
    /// The byte count is not that of the values.
    #[error("{encoding}: {elements} elements take {expected} bytes, got {got}")]
    ByteCount {
        /// The encoding asked for.
        encoding: Encoding,
        /// Values asked for.
        elements: usize,
        /// Bytes those values take.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}

impl Encoding {
    /// The lower-case name used in messages and JSON, such as `bf16` or `q4_1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar(dtype) => dtype.name(),
            Self::Block(block) => block.name(),
        }
    }

    /// Elements that are stored together and cannot be told apart by a byte offset: 1 for scalars.
    #[must_use]
    pub const fn elements_per_block(self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            Self::Block(block) => block.block_elements(),
        }
    }

    /// Bytes of one block, or of one scalar.
    #[must_use]
    pub const fn bytes_per_block(self) -> usize {
        match self {
            Self::Scalar(dtype) => dtype.bytes(),
            Self::Block(block) => block.block_bytes(),
        }
    }

    /// Bytes that `elements` values take; `None` when they are not a whole number of blocks or the
    /// number of bytes overflows.
    #[must_use]
    pub const fn bytes_for(self, elements: usize) -> Option<usize> {
        if elements.is_multiple_of(self.elements_per_block()) {
            (elements / self.elements_per_block()).checked_mul(self.bytes_per_block())
        } else {
            None
        }
    }

    /// Decodes `bytes` into `out` as binary32: exact for 16-bit and 8-bit floats and for blocks;
    /// `f64` and integers above 2²⁴ are rounded to nearest; `bool` gives 0 or 1.
    ///
    /// # Errors
    ///
    /// When `out` is not a whole number of blocks, or `bytes` is not exactly their size.
    pub fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        let expected = self.bytes_for(out.len()).ok_or(DecodeError::PartialBlock {
            encoding: *self,
            elements: out.len(),
            block: self.elements_per_block(),
        })?;
        if bytes.len() != expected {
            return Err(DecodeError::ByteCount {
                encoding: *self,
                elements: out.len(),
                expected,
                got: bytes.len(),
            });
        }
        match self {
            Self::Scalar(dtype) => decode_scalars(*dtype, bytes, out),
            Self::Block(block) => block.decode(bytes, out),
        }
        Ok(())
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Converts scalars whose byte count has been checked.
fn decode_scalars(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F32 => convert(bytes, out, f32::from_le_bytes),
        DType::F16 => convert(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => convert(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        DType::F8E4M3 => convert(bytes, out, |[b]| float8::e4m3_to_f32(b)),
        DType::F8E5M2 => convert(bytes, out, |[b]| float8::e5m2_to_f32(b)),
        DType::I64 => convert(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::I32 => convert(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::I16 => convert(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::I8 => convert(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::U8 => convert(bytes, out, |[b]| f32::from(b)),
        DType::Bool => convert(bytes, out, |[b]| f32::from(u8::from(b != 0))),
    }
}

/// Applies `value` to each `SIZE` bytes.
fn convert<const SIZE: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; SIZE]) -> f32) {
    let (scalars, _) = bytes.as_chunks::<SIZE>();
    for (x, &scalar) in out.iter_mut().zip(scalars) {
        *x = value(scalar);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCALARS: [DType; 12] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8E4M3,
        DType::F8E5M2,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U8,
        DType::Bool,
    ];

    fn encodings() -> impl Iterator<Item = Encoding> {
        let scalars = SCALARS.into_iter().map(Encoding::Scalar);
        scalars.chain(BlockType::ALL.into_iter().map(Encoding::Block))
    }

    #[test]
    fn one_decodes_to_one() {
        let ones: [(DType, &[u8]); 12] = [
            (DType::F64, &1f64.to_le_bytes()),
            (DType::F32, &1f32.to_le_bytes()),
            (DType::F16, &[0x00, 0x3C]),
            (DType::BF16, &[0x80, 0x3F]),
            (DType::F8E4M3, &[0x38]),
            (DType::F8E5M2, &[0x3C]),
            (DType::I64, &1i64.to_le_bytes()),
            (DType::I32, &1i32.to_le_bytes()),
            (DType::I16, &1i16.to_le_bytes()),
            (DType::I8, &[1]),
            (DType::U8, &[1]),
            (DType::Bool, &[1]),
        ];
        for (dtype, bytes) in ones {
            let mut value = [0.0];
            Encoding::Scalar(dtype).decode(bytes, &mut value).expect("one scalar");
            assert_eq!(value, [1.0], "{dtype}");
        }
    }

    #[test]
    fn signs_are_kept() {
        let mut value = [0.0];
        for (dtype, bytes) in [
            (DType::I64, &(-3i64).to_le_bytes()[..]),
            (DType::I32, &(-3i32).to_le_bytes()),
            (DType::I16, &(-3i16).to_le_bytes()),
            (DType::I8, &(-3i8).to_le_bytes()),
        ] {
            Encoding::Scalar(dtype).decode(bytes, &mut value).expect("one scalar");
            assert_eq!(value, [-3.0], "{dtype}");
        }
    }

    #[test]
    fn overflow_of_the_byte_count_is_none() {
        assert_eq!(Encoding::Scalar(DType::F32).bytes_for(usize::MAX), None);
        assert_eq!(Encoding::Block(BlockType::Q8_0).bytes_for(usize::MAX - 31), None);
    }

    proptest! {
        #[test]
        fn any_lengths_give_a_result_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..1024),
            elements in 0usize..600,
        ) {
            for encoding in encodings() {
                let mut out = vec![0.0; elements];
                let decoded = encoding.decode(&bytes, &mut out);
                let fits = encoding.bytes_for(elements) == Some(bytes.len());
                prop_assert_eq!(decoded.is_ok(), fits, "{}", encoding);
            }
        }

        #[test]
        fn blocks_decode_alike_alone_and_together(seed in any::<u64>()) {
            for encoding in encodings() {
                let (size, elements) = (encoding.bytes_per_block(), encoding.elements_per_block());
                let bytes: Vec<u8> = (0..3 * size as u64)
                    .map(|i| (seed.wrapping_mul(2 * i + 1).rotate_left(i as u32 % 64) >> 24) as u8)
                    .collect();
                let mut together = vec![0.0; 3 * elements];
                encoding.decode(&bytes, &mut together).expect("three blocks");
                let mut alone = vec![0.0; elements];
                for (block, together) in bytes.chunks(size).zip(together.chunks(elements)) {
                    encoding.decode(block, &mut alone).expect("one block");
                    for (a, b) in alone.iter().zip(together) {
                        prop_assert_eq!(a.to_bits(), b.to_bits(), "{}", encoding);
                    }
                }
            }
        }
    }
}
