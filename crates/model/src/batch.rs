//! Refusing batches that a model cannot run, before any of it has run.

use bantam_backend::{Batch, KvLayout, Span};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::options::LoadOptions;

/// What a step of a loaded model may be.
pub(crate) struct BatchLimits<'a> {
    pub(crate) arch: &'a ArchSpec,
    pub(crate) options: &'a LoadOptions,
    pub(crate) layout: &'a KvLayout,
}

fn refuse(what: impl Into<String>, got: usize, expected: impl Into<String>) -> ModelError {
    ModelError::Batch { what: what.into(), got: got as u64, expected: expected.into() }
}

fn at_most(what: &str, got: usize, limit: usize, option: &str) -> Result<(), ModelError> {
    if got <= limit {
        return Ok(());
    }
    Err(refuse(what, got, format!("at most {limit}; load with {option} {got}")))
}

impl BatchLimits<'_> {
    /// Checks tokens, spans, block tables and logit rows of a batch.
    pub(crate) fn check(&self, batch: &Batch) -> Result<(), ModelError> {
        let tokens = batch.num_tokens();
        let (options, vocabulary) = (self.options, self.arch.sizes.vocabulary);
        if tokens == 0 {
            return Err(refuse("number of tokens", 0, "1 or more"));
        }
        at_most("number of tokens", tokens, options.max_batch_tokens, "--max-batch-tokens")?;
        at_most("number of spans", batch.spans.len(), options.max_sequences, "--batch")?;
        let rows = batch.logit_rows.len();
        at_most("number of logit rows", rows, options.max_logit_rows, "--max-logit-rows")?;
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
            let expected = format!("{needed} for {context} tokens");
            return Err(refuse(of_span("number of blocks"), table.len(), expected));
        }
        if let Some(&block) = table.iter().find(|&&block| block as usize >= self.layout.blocks) {
            let expected = format!("below {}", self.layout.blocks);
            return Err(refuse(of_span("block id"), block as usize, expected));
        }
        Ok(())
    }
}
