//! Small unsigned integers inside 32-bit words, as compressed-tensors, GPTQ and AutoAWQ pack them: the
//! first in the lowest bits, along the columns of a matrix or along its rows.

/// Bits of a word.
const WORD_BITS: usize = 32;
/// Bytes of a word.
pub(crate) const WORD_BYTES: usize = WORD_BITS / 8;

/// Numbers of `bits` bits that a word holds.
pub(crate) const fn per_word(bits: usize) -> usize {
    WORD_BITS / bits
}

/// A matrix of words that are read as smaller numbers.
pub(crate) struct Words {
    /// Little-endian words.
    pub(crate) bytes: Vec<u8>,
    /// Words in a row.
    pub(crate) columns: usize,
    /// Bits of a number; they divide 32.
    pub(crate) bits: usize,
}

impl Words {
    /// The number in row `row` and column `column` of a matrix packed along its columns.
    pub(crate) fn along_columns(&self, row: usize, column: usize) -> u32 {
        let per_word = per_word(self.bits);
        self.part(row * self.columns + column / per_word, column % per_word)
    }

    /// The same of a matrix packed along its rows.
    pub(crate) fn along_rows(&self, row: usize, column: usize) -> u32 {
        let per_word = per_word(self.bits);
        self.part(row / per_word * self.columns + column, row % per_word)
    }

    fn part(&self, word: usize, part: usize) -> u32 {
        let bytes = &self.bytes[WORD_BYTES * word..][..WORD_BYTES];
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        word >> (part * self.bits) & ((1u64 << self.bits) - 1) as u32
    }
}

/// Packs a matrix along its columns; a last word that is not full has zeros above.
pub(crate) fn pack_columns(
    rows: usize,
    columns: usize,
    bits: usize,
    number: impl Fn(usize, usize) -> u32,
) -> Vec<u8> {
    let words_each = columns.div_ceil(per_word(bits));
    let words = (0..rows * words_each).map(|at| {
        let (row, word) = (at / words_each, at % words_each);
        pack_word(columns, bits, word, |column| number(row, column))
    });
    words.flat_map(u32::to_le_bytes).collect()
}

/// Packs a matrix along its rows; a last word that is not full has zeros above.
pub(crate) fn pack_rows(
    rows: usize,
    columns: usize,
    bits: usize,
    number: impl Fn(usize, usize) -> u32,
) -> Vec<u8> {
    let words = (0..rows.div_ceil(per_word(bits)) * columns).map(|at| {
        let (word, column) = (at / columns, at % columns);
        pack_word(rows, bits, word, |row| number(row, column))
    });
    words.flat_map(u32::to_le_bytes).collect()
}

/// Word `word` of `count` numbers in sequence.
fn pack_word(count: usize, bits: usize, word: usize, number: impl Fn(usize) -> u32) -> u32 {
    let first = word * per_word(bits);
    let numbers = (first..count.min(first + per_word(bits))).enumerate();
    numbers.fold(0, |packed, (part, at)| packed | number(at) << (part * bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_number_is_in_the_lowest_bits() {
        let bytes = pack_columns(1, 8, 4, |_, column| column as u32);
        assert_eq!(bytes, 0x7654_3210u32.to_le_bytes());
        let bytes = pack_rows(4, 1, 8, |row, _| row as u32);
        assert_eq!(bytes, 0x0302_0100u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_again(
            rows in 1usize..20, columns in 1usize..20, bits in 0usize..2, seed: u32,
        ) {
            let bits = [4, 8][bits];
            let number = |row: usize, column: usize| {
                (seed ^ (row * 31 + column * 17) as u32).wrapping_mul(2_654_435_761) >> (32 - bits)
            };
            let by_columns = pack_columns(rows, columns, bits, number);
            let by_rows = pack_rows(rows, columns, bits, number);
            let wide = Words { bytes: by_columns, columns: columns.div_ceil(per_word(bits)), bits };
            let tall = Words { bytes: by_rows, columns, bits };
            for row in 0..rows {
                for column in 0..columns {
                    prop_assert_eq!(wide.along_columns(row, column), number(row, column));
                    prop_assert_eq!(tall.along_rows(row, column), number(row, column));
                }
            }
        }
    }
}
