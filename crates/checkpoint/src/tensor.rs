//! One tensor of a checkpoint: its description, its bytes, and its values as binary32.

use std::ops::Range;
use std::path::Path;

use bantam_numerics::Encoding;

use crate::CheckpointError;
use crate::model_file::ModelFile;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// The order in which the rows of a stored matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As Hugging Face has them.
    Plain,
    /// Query and key rows of a GGUF file of architecture `llama`: inside each head the two rows
    /// that RoPE rotates together are adjacent (2i and 2i + 1) where Hugging Face keeps them half a
    /// head apart (i and i + D/2).
    RopeInterleaved {
        /// H or G: heads of the projection.
        heads: usize,
        /// D: rows per head, an even number.
        head_dim: usize,
    },
}

impl RowOrder {
    /// Where the file keeps the row that Hugging Face numbers `row`.
    ///
    /// ```
    /// use bantam_checkpoint::RowOrder;
    /// let order = RowOrder::RopeInterleaved { heads: 2, head_dim: 4 };
    /// let stored: Vec<_> = (0..8).map(|row| order.stored_row(row)).collect();
    /// assert_eq!(stored, [0, 2, 1, 3, 4, 6, 5, 7]);
    /// ```
    #[must_use]
    pub const fn stored_row(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::RopeInterleaved { head_dim, .. } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
                head * head_dim + 2 * pair + half
            }
        }
    }
}

/// What a reader of one format found out about a tensor, checked against its file.
#[derive(Debug)]
pub(crate) struct TensorEntry {
    /// The Hugging Face name.
    pub(crate) name: String,
    /// Outermost dimension first; the product does not overflow.
    pub(crate) shape: Vec<usize>,
    pub(crate) encoding: Encoding,
    pub(crate) row_order: RowOrder,
    /// Index of the file among those of the checkpoint.
    pub(crate) file: usize,
    /// The bytes inside that file; as many as shape and encoding take.
    pub(crate) bytes: Range<usize>,
}

/// Elements of a shape and bytes they take, or what is wrong with them.
pub(crate) fn checked_size(shape: &[usize], encoding: Encoding) -> Result<(usize, usize), String> {
    let elements = shape
        .iter()
        .try_fold(1usize, |product, &dimension| product.checked_mul(dimension))
        .ok_or_else(|| format!("shape {shape:?} overflows the number of elements"))?;
    let columns = shape.last().copied().unwrap_or(1);
    if !columns.is_multiple_of(encoding.elements_per_block()) {
        return Err(format!(
            "rows of {columns} elements are not whole {encoding} blocks of {}",
            encoding.elements_per_block()
        ));
    }
    let bytes = encoding
        .bytes_for(elements)
        .ok_or_else(|| format!("shape {shape:?} of {encoding} overflows the number of bytes"))?;
    Ok((elements, bytes))
}

/// A tensor inside an open [`Checkpoint`](crate::Checkpoint). Copying it copies no data.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// The Hugging Face name, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: &'a str,
    /// Outermost dimension first: `[N, K]` for the weight of a linear layer.
    pub shape: &'a [usize],
    /// How the elements are stored.
    pub encoding: Encoding,
    /// How the stored rows relate to those of Hugging Face; [`read_rows`](Self::read_rows) undoes
    /// it, [`read_stored`](Self::read_stored) does not.
    pub row_order: RowOrder,
    /// Where the tensor begins in its file.
    pub(crate) start: usize,
    pub(crate) stored_bytes: usize,
    pub(crate) file: &'a ModelFile,
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes that the encoded elements take.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.stored_bytes
    }

    /// The encoded elements, in the order the file has them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or was written to since it was opened.
    pub fn read_stored(&self) -> Result<Vec<u8>, CheckpointError> {
        self.file.read(self.start..self.start + self.stored_bytes)
    }

    /// The first encoded elements, so many bytes at most: enough to tell most files apart.
    ///
    /// # Errors
    ///
    /// As [`read_stored`](Self::read_stored).
    pub fn read_beginning(&self, bytes: usize) -> Result<Vec<u8>, CheckpointError> {
        self.file.read(self.start..self.start + self.stored_bytes.min(bytes))
    }

    /// The encoded elements in pieces of at most a MiB, for a tensor too large to hold.
    pub fn stored_pieces(
        &self,
    ) -> impl Iterator<Item = Result<Vec<u8>, CheckpointError>> + use<'a> {
        let (file, end) = (self.file, self.start + self.stored_bytes);
        let starts = (self.start..end).step_by(PIECE_BYTES);
        starts.map(move |start| file.read(start..end.min(start + PIECE_BYTES)))
    }

    /// The file that holds the tensor.
    #[must_use]
    pub fn file(&self) -> &'a Path {
        self.file.path()
    }

    /// N: rows of a matrix, 1 for vectors and scalars; the product of all dimensions but the last.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, leading)| leading.iter().product())
    }

    /// K: elements per row, the last dimension; 1 for scalars.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Decodes `rows` to binary32 in Hugging Face row order. `out` is `[rows.len() · K]`.
    ///
    /// # Errors
    ///
    /// When the tensor has fewer rows, `out` has another length, or the file cannot be read or was
    /// written to since it was opened.
    pub fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), CheckpointError> {
        let expected = rows.len().checked_mul(self.cols());
        if rows.start > rows.end || rows.end > self.rows() || expected != Some(out.len()) {
            return Err(CheckpointError::RowRange {
                file: self.file().to_path_buf(),
                tensor: self.name.to_owned(),
                start: rows.start,
                end: rows.end,
                rows: self.rows(),
                got: out.len(),
                expected: expected.unwrap_or(usize::MAX),
            });
        }
        if out.is_empty() {
            return Ok(());
        }
        self.decode_rows(rows, out)?;
        self.file.check_unchanged()
    }

    /// All elements as binary32 in Hugging Face order.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or was written to since it was opened.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        let mut values = vec![0.0; self.elements()];
        self.read_rows(0..self.rows(), &mut values)?;
        Ok(values)
    }

    fn is_vector(&self) -> bool {
        self.shape.len() < 2
    }

    /// Decodes rows that exist into an output of the right size, which is not empty.
    fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), CheckpointError> {
        let row_bytes = self.stored_bytes / self.rows();
        let mut scratch = Vec::new();
        if self.row_order == RowOrder::Plain {
            self.decode(rows.start * row_bytes, out, &mut scratch)
        } else if self.is_vector() {
            let mut stored = vec![0.0; out.len()];
            self.decode(0, &mut stored, &mut scratch)?;
            for (row, value) in out.iter_mut().enumerate() {
                *value = stored[self.row_order.stored_row(row)];
            }
            Ok(())
        } else {
            for (row, values) in rows.zip(out.chunks_exact_mut(self.cols())) {
                let stored = self.row_order.stored_row(row);
                self.decode(stored * row_bytes, values, &mut scratch)?;
            }
            Ok(())
        }
    }

    /// Decodes the elements that lie from byte `offset` of the tensor on, piece by piece.
    fn decode(
        &self,
        offset: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<(), CheckpointError> {
        let (block_bytes, block_elements) =
            (self.encoding.bytes_per_block(), self.encoding.elements_per_block());
        let blocks = PIECE_BYTES / block_bytes;
        let mut start = self.start + offset;
        for values in out.chunks_mut(blocks * block_elements) {
            scratch.resize(values.len() / block_elements * block_bytes, 0);
            self.file.read_into(start, scratch)?;
            start += scratch.len();
            self.encoding.decode(scratch, values).map_err(|source| CheckpointError::Decode {
                file: self.file().to_path_buf(),
                tensor: self.name.to_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bantam_numerics::DType;
    use proptest::prelude::*;

    use super::*;

    const I8: Encoding = Encoding::Scalar(DType::I8);

    /// A file whose tensor begins at its second byte.
    fn file(bytes: &[u8]) -> ModelFile {
        ModelFile::of_bytes(&[&[99], bytes].concat())
    }

    fn view<'a>(shape: &'a [usize], row_order: RowOrder, file: &'a ModelFile) -> TensorView<'a> {
        let stored_bytes = file.length() - 1;
        TensorView { name: "q", shape, encoding: I8, row_order, start: 1, stored_bytes, file }
    }

    #[test]
    fn interleaved_rows_and_biases_come_back_in_halves() {
        // Two heads of four rows; the value is the row Hugging Face would give it.
        let order = RowOrder::RopeInterleaved { heads: 2, head_dim: 4 };
        let file = file(&[0, 2, 1, 3, 4, 6, 5, 7]);
        let expected: Vec<f32> = (0u8..8).map(f32::from).collect();
        assert_eq!(view(&[8], order, &file).to_f32().expect("bias"), expected);
        let weight = view(&[8, 1], order, &file);
        assert_eq!(weight.to_f32().expect("weight"), expected);
        let mut two = [0.0; 2];
        weight.read_rows(5..7, &mut two).expect("rows 5 and 6");
        assert_eq!(two, [5.0, 6.0]);
    }

    #[test]
    fn wrong_ranges_and_lengths_are_errors() {
        let file = file(&[0; 6]);
        let tensor = view(&[2, 3], RowOrder::Plain, &file);
        for (rows, length) in [(0..3, 9), (0..2, 5), (0..0, 1), (usize::MAX - 1..usize::MAX, 3)] {
            let result = tensor.read_rows(rows.clone(), &mut vec![0.0; length]);
            assert!(result.is_err(), "{rows:?} into {length}");
        }
        assert!(tensor.read_rows(1..1, &mut []).is_ok());
    }

    #[test]
    fn scalars_have_one_row_and_empty_tensors_none_to_read() {
        let (seven, nothing) = (file(&[7]), file(&[]));
        assert_eq!(view(&[], RowOrder::Plain, &seven).to_f32().expect("scalar"), [7.0]);
        for shape in [[0, 4], [4, 0]] {
            let empty = view(&shape, RowOrder::Plain, &nothing).to_f32();
            assert!(empty.expect("nothing to read").is_empty());
        }
    }

    #[test]
    fn a_tensor_of_several_pieces_is_read_whole() {
        let bytes: Vec<u8> = (0..2 * PIECE_BYTES + 5).map(|i| (i % 127) as u8).collect();
        let (file, shape) = (file(&bytes), [bytes.len()]);
        let tensor = view(&shape, RowOrder::Plain, &file);
        let values = tensor.to_f32().expect("readable");
        assert!(values.iter().zip(&bytes).all(|(value, byte)| *value == f32::from(*byte)));
        let pieces: Result<Vec<_>, _> = tensor.stored_pieces().collect();
        let pieces = pieces.expect("readable");
        assert_eq!((pieces.len(), pieces.concat()), (3, bytes));
        assert_eq!(tensor.read_stored().expect("readable"), pieces.concat());
    }

    #[test]
    fn sizes_that_overflow_are_described() {
        assert!(checked_size(&[usize::MAX, 2], I8).is_err());
        assert!(checked_size(&[usize::MAX / 4, 2], Encoding::Scalar(DType::F64)).is_err());
        assert_eq!(checked_size(&[], I8), Ok((1, 1)));
    }

    proptest! {
        #[test]
        fn stored_rows_are_a_permutation(heads in 1usize..6, half in 1usize..40) {
            let order = RowOrder::RopeInterleaved { heads, head_dim: 2 * half };
            let mut stored: Vec<_> =
                (0..heads * 2 * half).map(|row| order.stored_row(row)).collect();
            stored.sort_unstable();
            prop_assert!(stored.into_iter().eq(0..heads * 2 * half));
        }
    }
}
