//! The paged key/value cache, stored as panels so that attention is two matrix products.
//!
//! For each (layer, block, head), keys come first: one panel for every 16 tokens, with D along k.
//! Then values: one panel for every 16 elements of D, with the block's tokens along k. So q·Kᵀ and
//! p·V both run the inner loop of a linear layer, and a block is one contiguous read. The 8-bit
//! formats end with the f16 scales of the block's keys, then of its values, one a token.

use crate::aligned::AlignedBytes;
use crate::attention::CHUNK;
use crate::element::Cached;
use crate::layout::{PanelFormat, QUAD};
use crate::pool::Pool;
use crate::simd::LANES;
use bantam_backend::{BackendError, KvFormat, KvLayout, KvRanges};

/// Bytes whose pages one task takes from the system.
const RESERVED_AT_ONCE: usize = 16 << 20;

/// Cached keys and values of one model.
#[derive(Debug)]
pub struct CpuCache {
    pub(crate) layout: KvLayout,
    pub(crate) format: PanelFormat,
    data: AlignedBytes,
    /// Bytes of the keys of one (layer, block, head).
    key_bytes: usize,
    /// Bytes of one panel of values.
    value_panel_bytes: usize,
    /// Bytes of the values of one (layer, block, head).
    value_bytes: usize,
    /// Bytes of one (layer, block, head).
    head_bytes: usize,
}

impl CpuCache {
    pub(crate) fn new(layout: &KvLayout) -> Result<Self, BackendError> {
        if !layout.block_tokens.is_multiple_of(LANES) || !CHUNK.is_multiple_of(layout.block_tokens)
        {
            return Err(BackendError::Unsupported {
                op: "cache",
                what: format!("a block of {} tokens", layout.block_tokens),
                backend: "cpu".to_owned(),
                way_out: format!("use a power of two from {LANES} to {CHUNK}"),
            });
        }
        let format = match layout.format {
            KvFormat::F32 => PanelFormat::F32,
            KvFormat::BF16 => PanelFormat::Bf16,
            KvFormat::Int8 => PanelFormat::Int8,
            KvFormat::Fp8 => PanelFormat::Fp8,
        };
        let key_panels = layout.block_tokens / LANES;
        let key_bytes = key_panels * layout.head_dim.div_ceil(QUAD) * format.quad_bytes();
        let value_panel_bytes = layout.block_tokens / QUAD * format.quad_bytes();
        let value_bytes = layout.head_dim.div_ceil(LANES) * value_panel_bytes;
        let scale_bytes = if layout.format.is_scaled() { 2 * 2 * layout.block_tokens } else { 0 };
        // Whole cache lines, so that every panel starts on one.
        let head_bytes = (key_bytes + value_bytes + scale_bytes).next_multiple_of(64);
        let len = layout.layers * layout.blocks * layout.kv_heads * head_bytes;
        let data = AlignedBytes::zeroed(len)
            .ok_or(BackendError::OutOfMemory { op: "cache", bytes: len })?;
        Ok(Self {
            layout: *layout,
            format,
            data,
            key_bytes,
            value_panel_bytes,
            value_bytes,
            head_bytes,
        })
    }

    /// Bytes that the cache occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Takes the memory from the system that blocks would take when they are first used.
    pub(crate) fn reserve(&mut self, pool: &Pool) {
        let (len, toucher) = (self.data.len(), self.data.toucher());
        pool.run(len.div_ceil(RESERVED_AT_ONCE), |_, task| {
            let start = task * RESERVED_AT_ONCE;
            // SAFETY: every task has a part of its own.
            unsafe { toucher.touch(start..start + RESERVED_AT_ONCE) };
        });
    }

    fn head_offset(&self, layer: usize, block: usize, head: usize) -> usize {
        ((layer * self.layout.blocks + block) * self.layout.kv_heads + head) * self.head_bytes
    }

    /// Panel `panel` of the keys of a block: tokens `16·panel..`, D along k.
    pub(crate) fn keys(&self, layer: usize, block: usize, head: usize, panel: usize) -> *const u8 {
        let panel_bytes = self.layout.head_dim.div_ceil(QUAD) * self.format.quad_bytes();
        self.data.bytes()[self.head_offset(layer, block, head) + panel * panel_bytes..].as_ptr()
    }

    /// Panel `panel` of the values of a block: elements `16·panel..` of D, tokens along k.
    pub(crate) fn values(
        &self,
        layer: usize,
        block: usize,
        head: usize,
        panel: usize,
    ) -> *const u8 {
        let values = self.head_offset(layer, block, head) + self.key_bytes;
        self.data.bytes()[values + panel * self.value_panel_bytes..].as_ptr()
    }

    /// The f16 scales of a block's keys; those of its values follow `block_tokens` later.
    pub(crate) fn scales(&self, layer: usize, block: usize, head: usize) -> *const u16 {
        debug_assert!(self.layout.format.is_scaled());
        let at = self.head_offset(layer, block, head) + self.key_bytes + self.value_bytes;
        self.data.bytes()[at..].as_ptr().cast()
    }

    /// A handle through which the tasks of one operation write disjoint slots.
    pub(crate) fn writer(&mut self) -> CacheWriter<'_> {
        let data = self.data.as_mut_ptr();
        CacheWriter { cache: self, data }
    }
}

/// Where the cache keeps a head of a token.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) layer: usize,
    pub(crate) block: usize,
    /// The token's number within its block.
    pub(crate) place: usize,
    pub(crate) head: usize,
}

/// Writes tokens into a cache from several threads.
#[derive(Clone, Copy)]
pub(crate) struct CacheWriter<'a> {
    cache: &'a CpuCache,
    data: *mut u8,
}

// SAFETY: `put` requires its callers to write disjoint slots.
unsafe impl Sync for CacheWriter<'_> {}

impl CacheWriter<'_> {
    /// Stores one token's key and value of a head, `[D]` each.
    ///
    /// # Safety
    /// `C` is the cache's format, and no other thread writes or reads this slot meanwhile; slot 0 of
    /// a block also clears the block's other values of this head, so a block's first token comes
    /// from the thread that writes the rest, or before it.
    #[inline(always)]
    pub(crate) unsafe fn put<C: Cached>(
        &self,
        Slot { layer, block, place, head }: Slot,
        key: &[f32],
        value: &[f32],
        ranges: Option<KvRanges>,
    ) {
        let cache = self.cache;
        assert!(layer < cache.layout.layers && block < cache.layout.blocks);
        let key_scale = C::FORMAT.scale(key, ranges.map(|ranges| ranges.key));
        let value_scale = C::FORMAT.scale(value, ranges.map(|ranges| ranges.value));
        let quad_len = cache.format.quad_bytes() / size_of::<C::Stored>();
        // SAFETY: all indices below stay inside the (layer, block, head) region by construction.
        unsafe {
            let start = self.data.add(cache.head_offset(layer, block, head));
            let keys = start.cast::<C::Stored>();
            let values = start.add(cache.key_bytes).cast::<C::Stored>();
            if place == 0 {
                // What an earlier owner left may be NaN, and zero probability times NaN is NaN.
                start.add(cache.key_bytes).write_bytes(0, cache.head_bytes - cache.key_bytes);
            }
            let key_panel = place / LANES * key.len().div_ceil(QUAD) * quad_len;
            let inverse = key_scale.to_f32().recip();
            for (d, &number) in key.iter().enumerate() {
                let at = key_panel + d / QUAD * quad_len + C::index(place % LANES, d % QUAD);
                keys.add(at).write(C::store(number, inverse));
            }
            let panel_len = cache.value_panel_bytes / size_of::<C::Stored>();
            let inverse = value_scale.to_f32().recip();
            for (d, &number) in value.iter().enumerate() {
                let quad = d / LANES * panel_len + place / QUAD * quad_len;
                let at = quad + C::index(d % LANES, place % QUAD);
                values.add(at).write(C::store(number, inverse));
            }
            if C::FORMAT.is_scaled() {
                let scales = start.add(cache.key_bytes + cache.value_bytes).cast::<u16>();
                scales.add(place).write(key_scale.to_bits());
                scales.add(cache.layout.block_tokens + place).write(value_scale.to_bits());
            }
        }
    }
}
