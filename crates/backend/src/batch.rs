//! One step's work, as flat arrays.

use std::ops::Range;

/// The tokens that one sequence contributes to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The rows of the batch that are this sequence's tokens.
    pub rows: Range<usize>,
    /// The position of the first of them; earlier positions are in the cache already.
    pub start: usize,
    /// The sequence's block table, as a range of [`Batch::block_tables`].
    pub blocks: Range<usize>,
}

impl Span {
    /// Tokens in the cache once the step has run: the context that the last row sees.
    #[must_use]
    pub fn context(&self) -> usize {
        self.start + self.rows.len()
    }
}

/// A ragged batch: prefill, chunked prefill, decode and verification alike are spans of tokens that
/// continue sequences.
///
/// ```
/// use bantam_backend::Batch;
/// let mut batch = Batch::default();
/// batch.push(&[11, 12, 13], 0, &[4, 9])?; // a prompt
/// batch.push(&[7], 16, &[2, 3])?; // a sequence that decodes its 17th token
/// batch.want_last_logits();
/// assert_eq!(batch.positions, [0, 1, 2, 16]);
/// assert_eq!(batch.logit_rows, [2, 3]);
/// assert_eq!(batch.slot(&batch.spans[1], 16, 16), 3 * 16);
/// # Ok::<(), bantam_backend::BatchError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence, `[T]`.
    pub positions: Vec<u32>,
    /// One entry for each sequence, in row order.
    pub spans: Vec<Span>,
    /// All block tables, one after the other.
    pub block_tables: Vec<u32>,
    /// The rows whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
}

/// Why a span cannot join a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A span without tokens computes nothing.
    #[error("a span of a batch needs at least one token")]
    Empty,
}

impl Batch {
    /// Adds `tokens` of a sequence, the first of which stands at position `start`.
    ///
    /// # Errors
    /// If there are no tokens.
    pub fn push(
        &mut self,
        tokens: &[u32],
        start: usize,
        block_table: &[u32],
    ) -> Result<(), BatchError> {
        if tokens.is_empty() {
            return Err(BatchError::Empty);
        }
        let first = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((start..start + tokens.len()).map(|p| p as u32));
        let blocks = self.block_tables.len()..self.block_tables.len() + block_table.len();
        self.block_tables.extend_from_slice(block_table);
        self.spans.push(Span { rows: first..first + tokens.len(), start, blocks });
        Ok(())
    }

    /// Asks for the logits of every sequence's last token.
    pub fn want_last_logits(&mut self) {
        self.logit_rows = self.spans.iter().map(|span| span.rows.end as u32 - 1).collect();
    }

    /// Asks for the logits of every token.
    pub fn want_all_logits(&mut self) {
        self.logit_rows = (0..self.tokens.len() as u32).collect();
    }

    /// T, the number of tokens in the step.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The block table of a span.
    #[must_use]
    pub fn table(&self, span: &Span) -> &[u32] {
        &self.block_tables[span.blocks.clone()]
    }

    /// The cache slot (block · S + place in the block) of a position of a span.
    ///
    /// # Panics
    /// If the block table does not reach the position.
    #[must_use]
    pub fn slot(&self, span: &Span, position: usize, block_tokens: usize) -> usize {
        self.table(span)[position / block_tokens] as usize * block_tokens + position % block_tokens
    }

    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.spans.clear();
        self.block_tables.clear();
        self.logit_rows.clear();
    }
}
