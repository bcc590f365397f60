//! The paged key/value cache: block tables that grow, share their beginnings and are given back.

use crate::Limits;
use crate::blocks::{BlockId, BlockPool, BlockUsage};
use crate::prefix::{PrefixId, PrefixIndex};

/// The blocks of one sequence, in order of position.
#[derive(Debug)]
pub(crate) struct BlockTable {
    blocks: Vec<BlockId>,
    /// The first so many blocks are full, computed, and in the prefix index.
    num_cached: usize,
    /// The prefix that they hold.
    prefix: PrefixId,
}

impl Default for BlockTable {
    fn default() -> Self {
        Self { blocks: Vec::new(), num_cached: 0, prefix: PrefixId::EMPTY }
    }
}

impl BlockTable {
    /// Block numbers, `[B]`.
    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }
}

/// Hands out blocks and remembers what they hold.
///
/// A sequence that holds a block holds all blocks before it, and gives the last back first. So a
/// block is never evicted before the blocks that continue it: every block known to the index can
/// be reached.
pub(crate) struct PagedCache {
    pool: BlockPool,
    /// None when beginnings are not shared.
    index: Option<PrefixIndex>,
    block_tokens: usize,
    num_evictions: u64,
}

impl PagedCache {
    /// An empty cache of the size in `limits`.
    pub(crate) fn new(limits: &Limits, share_prefixes: bool) -> Self {
        Self {
            pool: BlockPool::new(limits.num_blocks),
            index: share_prefixes.then(PrefixIndex::default),
            block_tokens: limits.block_tokens,
            num_evictions: 0,
        }
    }

    /// A table for `num_tokens` that begins with the blocks that hold `beginning`, or the first part
    /// of it, already, and the number of tokens in these. None, with nothing taken, if fewer than
    /// `reserve` blocks would be left.
    pub(crate) fn admit(
        &mut self,
        salt: u64,
        beginning: &[u32],
        num_tokens: usize,
        reserve: usize,
    ) -> Option<(BlockTable, usize)> {
        let hits =
            self.index.as_ref().map_or(vec![], |i| i.lookup(salt, beginning, self.block_tokens));
        let mut table = BlockTable {
            num_cached: hits.len(),
            prefix: hits.last().map_or(PrefixId::EMPTY, |hit| hit.prefix),
            blocks: hits.into_iter().map(|hit| hit.block).collect(),
        };
        for &block in &table.blocks {
            self.pool.acquire(block);
        }
        let missing = num_tokens.div_ceil(self.block_tokens) - table.blocks.len();
        if self.pool.available() < missing + reserve || !self.grow(&mut table, num_tokens) {
            self.release(&mut table);
            return None;
        }
        let cached_tokens = table.num_cached * self.block_tokens;
        Some((table, cached_tokens))
    }

    /// Adds blocks until `num_tokens` have a place; false, with nothing taken, if there are too few.
    pub(crate) fn grow(&mut self, table: &mut BlockTable, num_tokens: usize) -> bool {
        let wanted = num_tokens.div_ceil(self.block_tokens);
        if wanted.saturating_sub(table.blocks.len()) > self.pool.available() {
            return false;
        }
        while table.blocks.len() < wanted {
            let taken = self.pool.allocate().expect("as many blocks as were counted above");
            if let Some(index) = self.index.as_mut().filter(|_| taken.evicted) {
                index.remove(taken.block);
                self.num_evictions += 1;
            }
            table.blocks.push(taken.block);
        }
        true
    }

    /// Enters the blocks that `computed`, the computed tokens of the sequence, have filled.
    ///
    /// Where another sequence entered the same tokens first, its block replaces ours: they hold the
    /// same bits, and one of them is free again.
    pub(crate) fn commit(&mut self, table: &mut BlockTable, salt: u64, computed: &[u32]) {
        let Some(index) = &mut self.index else { return };
        let full = computed.chunks_exact(self.block_tokens).enumerate();
        for (i, tokens) in full.skip(table.num_cached) {
            let own = table.blocks[i];
            let cached = index.insert(salt, table.prefix, tokens, own);
            if cached.block == own {
                self.pool.mark_cached(own);
            } else {
                self.pool.acquire(cached.block);
                self.pool.release(own);
                table.blocks[i] = cached.block;
            }
            table.prefix = cached.prefix;
            table.num_cached = i + 1;
        }
    }

    /// Gives all blocks back, the last first; those in the index stay there until they are evicted.
    pub(crate) fn release(&mut self, table: &mut BlockTable) {
        for &block in table.blocks.iter().rev() {
            self.pool.release(block);
        }
        *table = BlockTable::default();
    }

    /// Tokens of `shared`, a common beginning of two sequences, that lie in blocks which one can have
    /// from the other.
    pub(crate) fn shareable(&self, shared: usize) -> usize {
        if self.index.is_some() { shared / self.block_tokens * self.block_tokens } else { 0 }
    }

    /// How many blocks are in which state.
    pub(crate) fn usage(&self) -> BlockUsage {
        self.pool.usage()
    }

    /// Cached blocks that were overwritten, since the start.
    pub(crate) fn num_evictions(&self) -> u64 {
        self.num_evictions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    const S: usize = 2;

    fn limits(num_blocks: usize) -> Limits {
        Limits {
            vocab_size: 4,
            context: 100,
            max_batch_tokens: 8,
            max_sequences: 8,
            max_logit_rows: 8,
            num_blocks,
            block_tokens: S,
        }
    }

    #[derive(Clone, Debug)]
    enum Action {
        Admit { salt: u64, tokens: Vec<u32>, reserve: usize },
        Append { sequence: usize, token: u32 },
        Release { sequence: usize },
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        // Two letters and two salts: beginnings are often equal.
        let tokens = proptest::collection::vec(0u32..2, 1..9);
        let action = prop_oneof![
            2 => (0u64..2, tokens, 0usize..3)
                .prop_map(|(salt, tokens, reserve)| Action::Admit { salt, tokens, reserve }),
            4 => (any::<usize>(), 0u32..2)
                .prop_map(|(sequence, token)| Action::Append { sequence, token }),
            2 => any::<usize>().prop_map(|sequence| Action::Release { sequence }),
        ];
        proptest::collection::vec(action, 0..120)
    }

    struct Live {
        salt: u64,
        tokens: Vec<u32>,
        table: BlockTable,
    }

    /// What a device would hold: (salt, all tokens up to this one) at every slot.
    type Slots = BTreeMap<usize, (u64, Vec<u32>)>;

    fn slot(table: &BlockTable, position: usize) -> usize {
        table.blocks()[position / S] as usize * S + position % S
    }

    /// Computes the tokens from `start`, as a step does.
    fn compute(cache: &mut PagedCache, slots: &mut Slots, live: &mut Live, start: usize) {
        for position in start..live.tokens.len() {
            let seen = (live.salt, live.tokens[..=position].to_vec());
            slots.insert(slot(&live.table, position), seen);
        }
        cache.commit(&mut live.table, live.salt, &live.tokens);
    }

    proptest! {
        #[test]
        fn tables_hold_their_tokens_and_no_block_is_lost(
            num_blocks in 1usize..12,
            share: bool,
            actions in actions(),
        ) {
            let mut cache = PagedCache::new(&limits(num_blocks), share);
            let (mut slots, mut live) = (Slots::new(), Vec::<Live>::new());
            for action in actions {
                match action {
                    Action::Admit { salt, tokens, reserve } => {
                        let before = cache.usage();
                        let shared = &tokens[..tokens.len() - 1];
                        match cache.admit(salt, shared, tokens.len(), reserve) {
                            None => prop_assert_eq!(cache.usage(), before),
                            Some((table, cached)) => {
                                prop_assert!(cached < tokens.len() && cached.is_multiple_of(S));
                                prop_assert!(share || cached == 0);
                                prop_assert!(cache.pool.available() >= reserve);
                                let mut sequence = Live { salt, tokens, table };
                                compute(&mut cache, &mut slots, &mut sequence, cached);
                                live.push(sequence);
                            }
                        }
                    }
                    Action::Append { sequence, token } if !live.is_empty() => {
                        let n = sequence % live.len();
                        let sequence = &mut live[n];
                        let length = sequence.tokens.len();
                        if cache.grow(&mut sequence.table, length + 1) {
                            sequence.tokens.push(token);
                            compute(&mut cache, &mut slots, sequence, length);
                        } else {
                            prop_assert_eq!(cache.pool.available(), 0);
                        }
                    }
                    Action::Release { sequence } if !live.is_empty() => {
                        let mut sequence = live.swap_remove(sequence % live.len());
                        cache.release(&mut sequence.table);
                    }
                    Action::Append { .. } | Action::Release { .. } => {}
                }
                // Every token of every live sequence stands where its table says, as it should.
                for sequence in &live {
                    for position in 0..sequence.tokens.len() {
                        let expected = (sequence.salt, sequence.tokens[..=position].to_vec());
                        prop_assert_eq!(&slots[&slot(&sequence.table, position)], &expected);
                    }
                }
                let blocks = live.iter().flat_map(|s| s.table.blocks());
                let referenced = blocks.collect::<HashSet<_>>().len();
                prop_assert_eq!(cache.usage().referenced, referenced);
                prop_assert_eq!(cache.usage().total(), num_blocks);
                // Known blocks are full blocks in use, or idle.
                if let Some(index) = &cache.index {
                    let cached = live.iter().flat_map(|s| &s.table.blocks()[..s.table.num_cached]);
                    let cached = cached.collect::<HashSet<_>>().len();
                    prop_assert_eq!(index.len(), cached + cache.usage().idle);
                }
            }
            for mut sequence in live {
                cache.release(&mut sequence.table);
            }
            prop_assert_eq!(cache.usage().referenced, 0);
            prop_assert_eq!(cache.pool.available(), num_blocks);
        }
    }

    #[test]
    fn the_end_of_a_beginning_is_evicted_first() {
        let mut cache = PagedCache::new(&limits(3), true);
        let tokens = [1, 2, 3, 4, 5, 6];
        let (mut table, _) = cache.admit(0, &tokens, 6, 0).unwrap();
        cache.commit(&mut table, 0, &tokens);
        cache.release(&mut table);
        assert_eq!(cache.usage(), BlockUsage { free: 0, idle: 3, referenced: 0 });
        let (mut other, hits) = cache.admit(0, &[], 1, 0).unwrap();
        assert_eq!((hits, cache.num_evictions()), (0, 1));
        cache.release(&mut other);
        let (_, hits) = cache.admit(0, &[1, 2, 3, 4], 5, 0).unwrap();
        assert_eq!(hits, 4);
    }
}
