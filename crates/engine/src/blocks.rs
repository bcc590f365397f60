//! Which blocks of the cache are free, in use, or kept because they may be wanted again.

use std::collections::BTreeMap;

/// Number of a block of the cache.
pub(crate) type BlockId = u32;

/// The blocks of a cache, by who holds them.
///
/// A block is in one of three states: *free*, with nothing worth keeping; *referenced* by one or
/// more sequences; or *idle*, referenced by none but still holding tokens that the prefix index
/// knows. Idle blocks are handed out when no free one is left, the longest idle first.
pub(crate) struct BlockPool {
    states: Vec<BlockState>,
    free: Vec<BlockId>,
    /// Idle blocks by the time they became idle.
    idle: BTreeMap<u64, BlockId>,
    /// Counts releases; the time of `idle`.
    clock: u64,
}

#[derive(Clone, Copy, Default)]
struct BlockState {
    references: u32,
    /// The prefix index knows the block.
    cached: bool,
    /// Key of `BlockPool::idle`, while the block is there.
    idle_since: u64,
}

/// A block that was free or idle, and is now referenced once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) block: BlockId,
    /// It was idle: the prefix index must forget it.
    pub(crate) evicted: bool,
}

/// How many blocks of a cache are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// Blocks that hold nothing.
    pub free: usize,
    /// Blocks that no request holds, kept for requests that begin with the same tokens.
    pub idle: usize,
    /// Blocks that requests hold.
    pub referenced: usize,
}

impl BlockUsage {
    /// B: all blocks.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.free + self.idle + self.referenced
    }
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks.
    pub(crate) fn new(num_blocks: usize) -> Self {
        Self {
            states: vec![BlockState::default(); num_blocks],
            // From the end of the list: block 0 is handed out first.
            free: (0..num_blocks as BlockId).rev().collect(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Blocks that can be allocated: free and idle ones.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// How many blocks are in which state.
    pub(crate) fn usage(&self) -> BlockUsage {
        let (free, idle) = (self.free.len(), self.idle.len());
        BlockUsage { free, idle, referenced: self.states.len() - free - idle }
    }

    /// Takes a free block, or the block that has been idle longest.
    pub(crate) fn allocate(&mut self) -> Option<Allocation> {
        let (block, evicted) = match self.free.pop() {
            Some(block) => (block, false),
            None => (self.idle.pop_first()?.1, true),
        };
        self.states[block as usize] = BlockState { references: 1, ..BlockState::default() };
        Some(Allocation { block, evicted })
    }

    /// Adds a reference to a block that is referenced or idle.
    pub(crate) fn acquire(&mut self, block: BlockId) {
        let state = &mut self.states[block as usize];
        if state.references == 0 {
            let taken = self.idle.remove(&state.idle_since);
            assert!(taken == Some(block), "block {block} is acquired while it is free");
        }
        state.references += 1;
    }

    /// Gives one reference back.
    pub(crate) fn release(&mut self, block: BlockId) {
        let state = &mut self.states[block as usize];
        let left = state.references.checked_sub(1);
        state.references = left.expect("a block is released once for each time it was taken");
        if state.references > 0 {
            return;
        }
        if state.cached {
            self.clock += 1;
            state.idle_since = self.clock;
            self.idle.insert(self.clock, block);
        } else {
            self.free.push(block);
        }
    }

    /// Notes that the prefix index knows a referenced block: it will be kept when released.
    pub(crate) fn mark_cached(&mut self, block: BlockId) {
        let state = &mut self.states[block as usize];
        debug_assert!(state.references > 0, "block {block} is marked while nobody holds it");
        state.cached = true;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The obvious pool: a list of holders, and what became idle in which order.
    #[derive(Default)]
    struct Model {
        references: HashMap<BlockId, u32>,
        cached: Vec<BlockId>,
        idle: Vec<BlockId>,
    }

    #[derive(Clone, Debug)]
    enum Action {
        Allocate,
        Acquire(usize),
        Release(usize),
        Mark(usize),
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            3 => Just(Action::Allocate),
            2 => any::<usize>().prop_map(Action::Acquire),
            4 => any::<usize>().prop_map(Action::Release),
            2 => any::<usize>().prop_map(Action::Mark),
        ];
        proptest::collection::vec(action, 0..200)
    }

    fn pick(from: &[BlockId], n: usize) -> Option<BlockId> {
        (!from.is_empty()).then(|| from[n % from.len()])
    }

    proptest! {
        #[test]
        fn every_block_is_where_an_obvious_model_says(num_blocks in 1usize..9, actions in actions()) {
            let mut pool = BlockPool::new(num_blocks);
            let mut model = Model::default();
            for action in actions {
                let mut held: Vec<BlockId> = model.references.keys().copied().collect();
                held.sort_unstable();
                match action {
                    Action::Allocate => {
                        let full = model.references.len() + model.idle.len() == num_blocks;
                        match pool.allocate() {
                            None => prop_assert_eq!(model.references.len(), num_blocks),
                            Some(Allocation { block, evicted }) => {
                                prop_assert!(!model.references.contains_key(&block));
                                prop_assert_eq!(evicted, full);
                                if evicted {
                                    prop_assert_eq!(block, model.idle.remove(0));
                                    model.cached.retain(|&b| b != block);
                                }
                                prop_assert!(!model.idle.contains(&block));
                                model.references.insert(block, 1);
                            }
                        }
                    }
                    Action::Acquire(n) => {
                        let all: Vec<BlockId> = held.iter().chain(&model.idle).copied().collect();
                        if let Some(block) = pick(&all, n) {
                            pool.acquire(block);
                            model.idle.retain(|&b| b != block);
                            *model.references.entry(block).or_default() += 1;
                        }
                    }
                    Action::Release(n) => {
                        if let Some(block) = pick(&held, n) {
                            pool.release(block);
                            let left = model.references.get_mut(&block).unwrap();
                            *left -= 1;
                            if *left == 0 {
                                model.references.remove(&block);
                                if model.cached.contains(&block) {
                                    model.idle.push(block);
                                }
                            }
                        }
                    }
                    Action::Mark(n) => {
                        if let Some(block) = pick(&held, n) {
                            pool.mark_cached(block);
                            if !model.cached.contains(&block) {
                                model.cached.push(block);
                            }
                        }
                    }
                }
                let (referenced, idle) = (model.references.len(), model.idle.len());
                let free = num_blocks - referenced - idle;
                prop_assert_eq!(pool.usage(), BlockUsage { free, idle, referenced });
                prop_assert_eq!(pool.available(), free + idle);
            }
        }
    }

    #[test]
    #[should_panic(expected = "released once")]
    fn a_double_release_is_a_bug_that_shows() {
        let mut pool = BlockPool::new(1);
        let block = pool.allocate().unwrap().block;
        pool.release(block);
        pool.release(block);
    }

    #[test]
    #[should_panic(expected = "while it is free")]
    fn a_free_block_cannot_be_acquired() {
        BlockPool::new(1).acquire(0);
    }
}
