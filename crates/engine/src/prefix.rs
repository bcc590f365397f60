//! Which blocks hold the beginning of a prompt.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocks::BlockId;

/// The tokens from the beginning of a sequence to the end of one full block, as a number.
///
/// Two prefixes have the same number only if they were entered as the same tokens, so a block is
/// identified by (number of the prefix before it, its own tokens, salt). Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PrefixId(u64);

impl PrefixId {
    /// No tokens.
    pub(crate) const EMPTY: Self = Self(0);
}

/// What a block holds: exact, so a collision of hashes is found by comparison and harmless.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    before: PrefixId,
    /// Keeps requests apart that must not share, by adapter, cache format or tenant.
    salt: u64,
    tokens: Vec<u32>,
}

/// A full block that holds the end of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CachedBlock {
    pub(crate) block: BlockId,
    pub(crate) prefix: PrefixId,
}

/// Finds blocks by the tokens they hold, and by the tokens before them.
#[derive(Default)]
pub(crate) struct PrefixIndex {
    by_content: HashMap<Arc<Content>, CachedBlock>,
    by_block: HashMap<BlockId, Arc<Content>>,
    last_prefix: u64,
}

impl PrefixIndex {
    /// The longest run of blocks that hold the beginning of `tokens`, in blocks of `block_tokens`.
    ///
    pub(crate) fn lookup(
        &self,
        salt: u64,
        tokens: &[u32],
        block_tokens: usize,
    ) -> Vec<CachedBlock> {
        let mut content = Content { before: PrefixId::EMPTY, salt, tokens: Vec::new() };
        let mut found = Vec::new();
        for block in tokens.chunks_exact(block_tokens) {
            content.tokens.clear();
            content.tokens.extend_from_slice(block);
            let Some(&cached) = self.by_content.get(&content) else { break };
            content.before = cached.prefix;
            found.push(cached);
        }
        found
    }

    /// Enters a full block that holds `tokens` after the prefix `before`.
    ///
    /// If another block holds the same already, that one is returned and nothing changes.
    pub(crate) fn insert(
        &mut self,
        salt: u64,
        before: PrefixId,
        tokens: &[u32],
        block: BlockId,
    ) -> CachedBlock {
        let content = Arc::new(Content { before, salt, tokens: tokens.to_vec() });
        if let Some(&cached) = self.by_content.get(&content) {
            return cached;
        }
        self.last_prefix += 1;
        let cached = CachedBlock { block, prefix: PrefixId(self.last_prefix) };
        self.by_content.insert(Arc::clone(&content), cached);
        let earlier = self.by_block.insert(block, content);
        debug_assert!(earlier.is_none(), "block {block} is entered twice");
        cached
    }

    /// Forgets a block whose memory is reused.
    pub(crate) fn remove(&mut self, block: BlockId) {
        if let Some(content) = self.by_block.remove(&block) {
            self.by_content.remove(&content);
        }
    }

    /// Blocks known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.by_block.len(), self.by_content.len());
        self.by_block.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: usize = 2;

    #[test]
    fn the_longest_run_is_found() {
        let mut index = PrefixIndex::default();
        let first = index.insert(0, PrefixId::EMPTY, &[1, 2], 7);
        let second = index.insert(0, first.prefix, &[3, 4], 5);
        assert_eq!(index.lookup(0, &[1, 2, 3, 4, 5], S), [first, second]);
        assert_eq!(index.lookup(0, &[1, 2, 3, 4], S), [first, second]);
        assert_eq!(index.lookup(0, &[1, 2, 3], S), [first]);
        assert_eq!(index.lookup(0, &[1, 2, 3, 9, 5], S), [first]);
        assert_eq!(index.lookup(0, &[3, 4, 1, 2, 5], S), []);
        assert_eq!(index.lookup(1, &[1, 2, 3, 4, 5], S), []);
        assert_eq!(index.lookup(0, &[], S), []);
    }

    #[test]
    fn equal_blocks_after_different_prefixes_are_different() {
        let mut index = PrefixIndex::default();
        let a = index.insert(0, PrefixId::EMPTY, &[1, 1], 0);
        let b = index.insert(0, PrefixId::EMPTY, &[2, 2], 1);
        let after_a = index.insert(0, a.prefix, &[9, 9], 2);
        let after_b = index.insert(0, b.prefix, &[9, 9], 3);
        assert_ne!(after_a, after_b);
        assert_eq!(index.lookup(0, &[2, 2, 9, 9, 0], S), [b, after_b]);
        assert_eq!(index.insert(0, a.prefix, &[9, 9], 8), after_a);
        assert_eq!(index.len(), 4);
    }

    #[test]
    fn a_removed_block_and_what_came_after_it_are_not_found() {
        let mut index = PrefixIndex::default();
        let first = index.insert(0, PrefixId::EMPTY, &[1, 2], 0);
        index.insert(0, first.prefix, &[3, 4], 1);
        index.remove(0);
        assert_eq!(index.lookup(0, &[1, 2, 3, 4, 5], S), []);
        // The same tokens again are a new prefix, whose old continuation is not trusted.
        let again = index.insert(0, PrefixId::EMPTY, &[1, 2], 2);
        assert_eq!(index.lookup(0, &[1, 2, 3, 4, 5], S), [again]);
        index.remove(5);
        assert_eq!(index.len(), 2);
    }
}
