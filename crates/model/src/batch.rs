//! Refusing batches that a model cannot run, before any of it has run.

use bantam_backend::{Batch, KvLayout, Span};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::options::LoadOptions;
use crate::plan::in_words;

/// What a step of a loaded model may be.
pub(crate) struct BatchLimits<'a> {
    pub(crate) arch: &'a ArchSpec,
    pub(crate) options: &'a LoadOptions,
    pub(crate) layout: &'a KvLayout,
}

fn refuse(what: impl Into<String>, got: usize, expected: impl Into<String>) -> ModelError {
    ModelError::Batch { what: what.into(), got: got as u64, expected: expected.into() }
}

fn at_most(what: &str, got: usize, limit: usize, way_out: &str) -> Result<(), ModelError> {
    if got <= limit {
        return Ok(());
    }
    Err(refuse(what, got, format!("at most {limit}, as the model was loaded for; {way_out}")))
}

impl BatchLimits<'_> {
    /// Checks tokens, spans, block tables and logit rows of a batch. Its fields are public, so
    /// nothing that [`Batch::push`] would have made right is taken for granted.
    pub(crate) fn check(&self, batch: &Batch) -> Result<(), ModelError> {
        let tokens = batch.num_tokens();
        let (options, vocabulary) = (self.options, self.arch.sizes.vocabulary);
        if tokens == 0 {
            return Err(refuse("number of tokens", 0, "1 or more"));
        }
        let most = options.max_batch_tokens;
        at_most("number of tokens of a step", tokens, most, "split the step")?;
        let (spans, most) = (batch.spans.len(), options.max_sequences);
        let way_out = format!("load with --batch {spans}");
        at_most("number of sequences side by side", spans, most, &way_out)?;
        let (rows, most) = (batch.logit_rows.len(), options.max_logit_rows);
        at_most("number of logit rows of a step", rows, most, "ask for fewer, or split the step")?;
        if let Some(row) = batch.tokens.iter().position(|&id| id as usize >= vocabulary) {
            let what = format!("token id of row {row}");
            let expected = format!("below the vocabulary's size, {vocabulary}");
            return Err(refuse(what, batch.tokens[row] as usize, expected));
        }
        if batch.positions.len() != tokens {
            let got = batch.positions.len();
            return Err(refuse("number of positions", got, format!("one a token, {tokens}")));
        }
        let mut next = 0;
        for (index, span) in batch.spans.iter().enumerate() {
            self.check_span(index, span, next, batch)?;
            next = span.rows.end;
        }
        if next != tokens {
            return Err(refuse("number of rows in spans", next, format!("all {tokens} tokens")));
        }
        self.check_written_blocks(batch)?;
        if let Some(&row) = batch.logit_rows.iter().find(|&&row| row as usize >= tokens) {
            return Err(refuse("logit row", row as usize, format!("below {tokens}")));
        }
        if let Some(pair) = batch.logit_rows.windows(2).find(|pair| pair[0] >= pair[1]) {
            let expected = format!("above the row before it, {}", pair[0]);
            return Err(refuse("logit row", pair[1] as usize, expected));
        }
        Ok(())
    }

    /// Checks a span whose rows must begin at `first`.
    fn check_span(
        &self,
        index: usize,
        span: &Span,
        first: usize,
        batch: &Batch,
    ) -> Result<(), ModelError> {
        let of_span = |what: &str| format!("{what} of span {index}");
        let Span { rows, start, blocks } = span;
        if rows.start != first {
            return Err(refuse(of_span("first row"), rows.start, format!("{first}")));
        }
        let tokens = batch.num_tokens();
        if rows.end <= rows.start || rows.end > tokens {
            let expected = format!("above {first} and at most {tokens}");
            return Err(refuse(of_span("end of rows"), rows.end, expected));
        }
        let context = start.saturating_add(rows.len());
        let max_context = self.options.context(self.arch);
        if context > max_context {
            let mut expected = format!("at most {max_context} tokens");
            if context <= self.arch.sizes.max_positions {
                expected += &format!("; load with --context {context}");
            }
            return Err(refuse(of_span("context"), context, expected));
        }
        for (position, row) in (*start..).zip(rows.clone()) {
            if batch.positions[row] as usize != position {
                let got = batch.positions[row] as usize;
                return Err(refuse(format!("position of row {row}"), got, format!("{position}")));
            }
        }
        let Some(table) = batch.block_tables.get(blocks.clone()) else {
            let expected = format!("within the {} entries there are", batch.block_tables.len());
            return Err(refuse(of_span("end of the block table"), blocks.end, expected));
        };
        let needed = context.div_ceil(self.layout.block_tokens);
        if table.len() < needed {
            let expected = format!("{needed} for {}", in_words(context, "token"));
            return Err(refuse(of_span("number of blocks"), table.len(), expected));
        }
        if let Some(&block) = table.iter().find(|&&block| block as usize >= self.layout.blocks) {
            let expected = format!("below {}", self.layout.blocks);
            return Err(refuse(of_span("block id"), block as usize, expected));
        }
        Ok(())
    }

    /// Refuses a block that a span writes and that stands anywhere else: in another span's table,
    /// which would see tokens of this one, or twice in its own. Blocks that lie wholly before the
    /// starts of all spans that have them, such as those of a shared prefix, are only read.
    fn check_written_blocks(&self, batch: &Batch) -> Result<(), ModelError> {
        let block_tokens = self.layout.block_tokens;
        let written =
            |span: &Span| span.start / block_tokens..span.context().div_ceil(block_tokens);
        // Each written block, and where in which span's table.
        let mut writers: Vec<(u32, (usize, usize))> = Vec::new();
        for (index, span) in batch.spans.iter().enumerate() {
            let table = batch.table(span);
            writers.extend(written(span).map(|place| (table[place], (index, place))));
        }
        writers.sort_unstable();
        for (index, span) in batch.spans.iter().enumerate() {
            for (place, &block) in batch.table(span).iter().enumerate() {
                // The first writer is enough: a second one finds it here.
                let first = writers.partition_point(|&(known, _)| known < block);
                let Some(&(known, (writer, at))) = writers.get(first) else { continue };
                if known == block && (writer, at) != (index, place) {
                    let what = format!("block {place} of span {index}");
                    let expected =
                        format!("a block other than {block}, which span {writer} writes");
                    return Err(refuse(what, block as usize, expected));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bantam_backend::KvFormat;
    use proptest::prelude::*;

    use super::*;

    /// S.
    const BLOCK_TOKENS: usize = 4;

    /// Start, tokens and block table.
    type Sequence<'a> = (usize, usize, &'a [u32]);

    /// What a model of 8 blocks says of a batch of sequences.
    fn check(sequences: &[Sequence<'_>]) -> Result<(), String> {
        let config = serde_json::json!({"model_type": "llama", "max_position_embeddings": 64});
        let arch = ArchSpec::from_config(&config).expect("the defaults are a model");
        let options = LoadOptions { max_sequences: 8, ..LoadOptions::default() };
        let layout = KvLayout {
            layers: 1,
            blocks: 8,
            block_tokens: BLOCK_TOKENS,
            kv_heads: 1,
            head_dim: 2,
            format: KvFormat::F32,
        };
        let mut batch = Batch::default();
        for (start, tokens, blocks) in sequences {
            batch.push(&vec![1; *tokens], *start, blocks).expect("one token or more");
        }
        let limits = BatchLimits { arch: &arch, options: &options, layout: &layout };
        limits.check(&batch).map_err(|error| error.to_string())
    }

    #[test]
    fn a_shared_prefix_is_read_by_both() {
        assert_eq!(check(&[(8, 3, &[5, 6, 0]), (9, 1, &[5, 6, 1])]), Ok(()));
        // A table may be longer than needed, with blocks of its own.
        assert_eq!(check(&[(0, 1, &[0, 1, 2]), (0, 1, &[3, 4, 5])]), Ok(()));
    }

    #[test]
    fn a_block_that_a_span_writes_stands_nowhere_else() {
        let cases: [(&[Sequence<'_>], &str); 6] = [
            // Both write it.
            (
                &[(0, 1, &[3]), (0, 1, &[3])],
                "block 0 of span 1 is 3, expected a block other than 3",
            ),
            // The second reads what the first writes.
            (&[(7, 1, &[5, 6]), (8, 1, &[5, 6, 0])], "block 1 of span 1 is 6"),
            // The first reads what the second writes.
            (&[(8, 1, &[5, 6, 0]), (7, 1, &[5, 6])], "block 1 of span 0 is 6"),
            // It stands where the other will write later.
            (&[(0, 1, &[0]), (0, 1, &[1, 0])], "block 1 of span 1 is 0"),
            // A prefix whose last block the second span starts in.
            (&[(8, 1, &[5, 6, 0]), (6, 3, &[5, 6, 1])], "block 1 of span 0 is 6"),
            // One span alone.
            (
                &[(4, 1, &[2, 2])],
                "block 0 of span 0 is 2, expected a block other than 2, which span 0",
            ),
        ];
        for (sequences, words) in cases {
            let message = check(sequences).expect_err(words);
            assert!(message.contains(words), "no `{words}` in: {message}");
        }
    }

    proptest! {
        /// Accepted are exactly the batches in which no slot is written that another place sees.
        #[test]
        fn only_blocks_of_the_past_are_shared(
            sequences in proptest::collection::vec(
                (0usize..12, 1usize..6, proptest::collection::vec(0u32..8, 5)),
                1..4,
            ),
        ) {
            let sequences: Vec<Sequence<'_>> =
                sequences.iter().map(|(start, tokens, table)| (*start, *tokens, &table[..])).collect();
            let places = |written: bool| {
                let mut places = Vec::new();
                for (span, &(start, tokens, table)) in sequences.iter().enumerate() {
                    for (place, &block) in table.iter().enumerate() {
                        let slots = place * BLOCK_TOKENS..(place + 1) * BLOCK_TOKENS;
                        let writes = slots.into_iter().any(|p| (start..start + tokens).contains(&p));
                        if writes || !written {
                            places.push((span, place, block));
                        }
                    }
                }
                places
            };
            let all = places(false);
            let clash = places(true).iter().any(|writer| {
                all.iter().any(|seen| seen.2 == writer.2 && (seen.0, seen.1) != (writer.0, writer.1))
            });
            prop_assert_eq!(check(&sequences).is_err(), clash);
        }
    }
}
