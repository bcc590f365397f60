//! Packs sequences into steps, so that what several begin with is computed once.
//!
//! Sequences are placed in the cache block by block. A full block that lies before the first wanted
//! row and continues a known block with the same tokens as another is that block: a block table may
//! share it. So the choices of an item share its prompt, and the items of a subject their examples.
//! What is left of a sequence is a *segment* of its own. A step takes tokens from as many segments
//! as fit; one that reads a block waits for the step after the one that writes it.
//!
//! When the cache is full, what is placed is run to its end and the cache begins anew: a *wave*.

use std::borrow::Cow;
use std::collections::HashMap;

use bantam_backend::{Batch, BatchError};
use bantam_engine::Limits;

use super::encode::Query;

/// One step and what its rows of logits are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) batch: Batch,
    /// For each row of logits: a sequence, as its place in the list, and a position in it.
    pub(crate) rows: Vec<(usize, usize)>,
}

/// The steps for a list of sequences, each no longer than the context.
pub(crate) struct Steps<'q> {
    queries: Vec<Cow<'q, Query>>,
    limits: Limits,
    /// The first sequence that has no place yet.
    next: usize,
    wave: Vec<Segment>,
    blocks: Blocks,
}

/// What has to be computed of a sequence.
struct Segment {
    query: usize,
    blocks: Vec<u32>,
    /// Positions before are computed, or are another segment's to compute.
    next: usize,
    end: usize,
    /// A segment of the same wave, and how far it must have come.
    waits_for: Option<(usize, usize)>,
}

/// The blocks of the cache in a wave.
#[derive(Default)]
struct Blocks {
    used: u32,
    /// Full blocks that may be shared: the block before and the tokens within.
    known: HashMap<(Option<u32>, Vec<u32>), Known>,
}

#[derive(Clone, Copy)]
struct Known {
    block: u32,
    /// Who computes it.
    segment: usize,
}

impl<'q> Steps<'q> {
    pub(crate) fn new(queries: Vec<Cow<'q, Query>>, limits: Limits) -> Self {
        Self { queries, limits, next: 0, wave: Vec::new(), blocks: Blocks::default() }
    }

    /// The next step, if anything is left. The one before must have been run.
    pub(crate) fn next_step(&mut self) -> Result<Option<Step>, BatchError> {
        if self.wave.iter().all(|segment| segment.next == segment.end) {
            self.begin_wave();
        }
        let mut step = Step::default();
        let computed: Vec<usize> = self.wave.iter().map(|segment| segment.next).collect();
        for segment in self.wave.iter_mut().filter(|segment| segment.next < segment.end) {
            let is_ready = segment.waits_for.is_none_or(|(other, until)| computed[other] >= until);
            if is_ready && !step.take(segment, &self.queries[segment.query], &self.limits)? {
                break;
            }
        }
        Ok((step.batch.num_tokens() > 0).then_some(step))
    }

    /// Places as many sequences as the cache holds.
    fn begin_wave(&mut self) {
        self.wave.clear();
        self.blocks = Blocks::default();
        while let Some(query) = self.queries.get(self.next) {
            let place = self.blocks.place(query, self.wave.len(), &self.limits);
            let Some(segment) = place else { break };
            self.wave.push(Segment { query: self.next, ..segment });
            self.next += 1;
        }
    }
}

impl Step {
    /// Takes what fits of a segment; whether there may be room for another.
    fn take(
        &mut self,
        segment: &mut Segment,
        query: &Query,
        limits: &Limits,
    ) -> Result<bool, BatchError> {
        let room = limits.max_batch_tokens - self.batch.num_tokens();
        let rows_left = limits.max_logit_rows - self.rows.len();
        let last = query.first_row.max(segment.next) + rows_left;
        let end = segment.end.min(segment.next + room).min(last);
        if end <= segment.next || self.batch.spans.len() == limits.max_sequences {
            return Ok(false);
        }
        let first = self.batch.num_tokens();
        let span = segment.next..end;
        self.batch.push(&query.tokens[span.clone()], span.start, &segment.blocks)?;
        for position in span.start.max(query.first_row)..end {
            self.batch.logit_rows.push((first + position - span.start) as u32);
            self.rows.push((segment.query, position));
        }
        segment.next = end;
        Ok(true)
    }
}

impl Blocks {
    /// A place for a sequence that will be this segment of the wave; none if there is no room.
    fn place(&mut self, query: &Query, segment: usize, limits: &Limits) -> Option<Segment> {
        let size = limits.block_tokens;
        // A block with wanted rows is computed by its own sequence, for its logits.
        let (sharable, rest) = query.tokens.split_at(query.first_row / size * size);
        let mut blocks: Vec<u32> = Vec::new();
        let mut waits_for = None;
        for tokens in sharable.chunks_exact(size) {
            let key = (blocks.last().copied(), tokens.to_vec());
            let Some(known) = self.known.get(&key) else { break };
            blocks.push(known.block);
            waits_for = Some((known.segment, blocks.len() * size));
        }
        let start = blocks.len() * size;
        let needed = sharable.len() / size - blocks.len() + rest.len().div_ceil(size);
        if needed > limits.num_blocks - self.used as usize {
            return None;
        }
        for tokens in sharable[start..].chunks_exact(size) {
            let block = self.used;
            let key = (blocks.last().copied(), tokens.to_vec());
            self.known.insert(key, Known { block, segment });
            blocks.push(block);
            self.used += 1;
        }
        let tail = self.used..self.used + rest.len().div_ceil(size) as u32;
        self.used = tail.end;
        blocks.extend(tail);
        Some(Segment { query: 0, blocks, next: start, end: query.tokens.len(), waits_for })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Runs all steps over a cache of token slots. Every row that is wanted comes once, and sees the
    /// tokens of its sequence; the tokens run in all.
    fn run(queries: &[Query], limits: Limits) -> usize {
        let mut steps = Steps::new(queries.iter().map(Cow::Borrowed).collect(), limits);
        let mut cache: HashMap<usize, u32> = HashMap::new();
        let (mut wanted, mut num_tokens) = (Vec::new(), 0);
        while let Some(Step { batch, rows }) = steps.next_step().unwrap() {
            assert!(batch.num_tokens() <= limits.max_batch_tokens);
            assert!(
                batch.spans.len() <= limits.max_sequences && rows.len() <= limits.max_logit_rows
            );
            assert_eq!(rows.len(), batch.logit_rows.len());
            num_tokens += batch.num_tokens();
            let slot = |span, position| batch.slot(span, position, limits.block_tokens);
            // All that a span reads of others is there before anything of this step is written.
            let before = cache.clone();
            for span in &batch.spans {
                for (row, position) in span.rows.clone().zip(span.start..) {
                    cache.insert(slot(span, position), batch.tokens[row]);
                }
            }
            let mut row_queries = rows.iter();
            for span in &batch.spans {
                let read = |p| (if p < span.start { &before } else { &cache })[&slot(span, p)];
                let seen: Vec<u32> = (0..span.context()).map(read).collect();
                let logit_rows = batch.logit_rows.iter();
                for &row in logit_rows.filter(|&&row| span.rows.contains(&(row as usize))) {
                    let &(query, position) = row_queries.next().unwrap();
                    assert_eq!(position, span.start + row as usize - span.rows.start);
                    assert_eq!(seen[..=position], queries[query].tokens[..=position]);
                    wanted.push((query, position));
                }
            }
        }
        wanted.sort_unstable();
        let all = queries.iter().enumerate().flat_map(|(i, q)| q.rows().map(move |row| (i, row)));
        assert_eq!(wanted, all.collect::<Vec<_>>());
        num_tokens
    }

    fn limits(tokens: usize, sequences: usize, rows: usize, blocks: usize) -> Limits {
        Limits {
            vocab_size: 3,
            context: 40,
            max_batch_tokens: tokens,
            max_sequences: sequences,
            max_logit_rows: rows,
            num_blocks: blocks,
            block_tokens: 4,
        }
    }

    fn query(tokens: Vec<u32>, rows: usize) -> Query {
        let first_row = tokens.len() - rows.clamp(1, tokens.len());
        Query { tokens, first_row, targets: Vec::new() }
    }

    proptest! {
        #[test]
        fn every_row_sees_its_own_sequence(
            // Few kinds of tokens, so that much is shared.
            sequences in proptest::collection::vec(
                (proptest::collection::vec(0u32..2, 1..40), 1usize..9), 0..12),
            tokens in 1usize..50,
            side_by_side in 1usize..6,
            rows in 1usize..12,
            blocks in 10usize..60,
        ) {
            let queries: Vec<Query> =
                sequences.into_iter().map(|(tokens, rows)| query(tokens, rows)).collect();
            let run_tokens = run(&queries, limits(tokens, side_by_side, rows, blocks));
            prop_assert!(run_tokens <= queries.iter().map(|query| query.tokens.len()).sum());
        }
    }

    #[test]
    fn what_sequences_begin_with_is_computed_once() {
        // Five full blocks in common, then three choices of two tokens each.
        let shared = |last: [u32; 2]| query([vec![1; 22], last.to_vec()].concat(), 2);
        let queries = [shared([0, 0]), shared([0, 1]), shared([1, 0])];
        assert_eq!(run(&queries, limits(100, 8, 8, 20)), 24 + 2 * 4);
        // A cache for one sequence at a time computes all of each.
        assert_eq!(run(&queries, limits(100, 8, 8, 6)), 3 * 24);
    }
}
