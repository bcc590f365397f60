//! Attention over the paged cache.
//!
//! The keys of a sequence are cut at fixed positions into chunks. For a tile of query rows that
//! share a key/value head, each chunk gives a *partial* result: the maximum score, the sum of
//! exponentials and the weighted values (flash attention, Dao et al. 2022); partials are merged in
//! the order of their chunks. Chunks may be computed by different threads (flash-decoding), and
//! since neither their borders nor the order of merging depends on that, a row's bits do not either.

pub(crate) mod schedule;

use crate::cache::CpuCache;
use crate::element::{Element, ReadBy};
use crate::layout::QUAD;
use crate::panels::accumulate;
use crate::simd::{Kernel, LANES, Simd};
use bantam_backend::AttentionShape;
use std::marker::PhantomData;
use std::ops::Range;

/// Keys of a chunk; a multiple of every block size in use.
pub(crate) const CHUNK: usize = 256;
/// Query rows of a tile.
pub(crate) const TILE_ROWS: usize = 6;

/// A query row: one head of one token.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueryRow {
    /// Row of the batch.
    pub(crate) row: usize,
    /// Position of its token.
    pub(crate) position: usize,
    /// Query head.
    pub(crate) head: usize,
}

/// Query rows that read the same keys and values together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<'a> {
    rows: [QueryRow; TILE_ROWS],
    len: usize,
    pub(crate) kv_head: usize,
    /// The sequence's block table.
    pub(crate) table: &'a [u32],
}

impl<'a> Tile<'a> {
    pub(crate) fn new(rows: &[QueryRow], kv_head: usize, table: &'a [u32]) -> Self {
        let mut tile = [QueryRow::default(); TILE_ROWS];
        tile[..rows.len()].copy_from_slice(rows);
        Self { rows: tile, len: rows.len(), kv_head, table }
    }

    pub(crate) fn rows(&self) -> &[QueryRow] {
        &self.rows[..self.len]
    }

    /// The chunks that any row of the tile sees.
    pub(crate) fn chunks(&self, shape: &AttentionShape) -> Range<usize> {
        let positions = || self.rows().iter().map(|row| row.position);
        let first = positions().map(|p| shape.first_visible(p)).min().unwrap_or(0);
        let last = positions().max().unwrap_or(0);
        first / CHUNK..last / CHUNK + 1
    }
}

/// What one chunk, or several merged ones, contribute to a tile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partial {
    /// Largest score of each row.
    max: [f32; TILE_ROWS],
    /// Σ exp(score − max) of each row.
    sum: [f32; TILE_ROWS],
    /// Σ exp(score − max)·value, `[TILE_ROWS, padded D]`.
    values: Vec<f32>,
}

impl Partial {
    /// Nothing yet, for heads of `head_dim` elements.
    pub(crate) fn reset(&mut self, head_dim: usize) {
        self.max = [f32::NEG_INFINITY; TILE_ROWS];
        self.sum = [0.0; TILE_ROWS];
        self.values.clear();
        self.values.resize(TILE_ROWS * head_dim.next_multiple_of(LANES), 0.0);
    }

    /// Adds a later chunk's partial.
    #[inline(always)]
    pub(crate) fn merge(&mut self, later: &Self) {
        let padded = self.values.len() / TILE_ROWS;
        for row in 0..TILE_ROWS {
            if later.max[row] == f32::NEG_INFINITY {
                continue;
            }
            let max = self.max[row].max(later.max[row]);
            let (old, new) = ((self.max[row] - max).exp(), (later.max[row] - max).exp());
            self.max[row] = max;
            self.sum[row] = self.sum[row] * old + later.sum[row] * new;
            let range = row * padded..(row + 1) * padded;
            for (a, b) in self.values[range.clone()].iter_mut().zip(&later.values[range]) {
                *a = *a * old + *b * new;
            }
        }
    }
}

/// Memory that one worker needs, grown on first use.
#[derive(Debug)]
pub(crate) struct Scratch<E> {
    /// `[TILE_ROWS, padded D]`.
    queries: Vec<E>,
    /// `[TILE_ROWS, CHUNK]`.
    scores: Vec<f32>,
    /// `[TILE_ROWS, CHUNK]`.
    probabilities: Vec<E>,
    /// One chunk.
    pub(crate) chunk: Partial,
    /// All chunks so far.
    pub(crate) total: Partial,
}

impl<E: Element> Default for Scratch<E> {
    fn default() -> Self {
        Self {
            queries: Vec::new(),
            scores: vec![0.0; TILE_ROWS * CHUNK],
            probabilities: vec![E::default(); TILE_ROWS * CHUNK],
            chunk: Partial::default(),
            total: Partial::default(),
        }
    }
}

/// What all tiles of one attention operation share.
pub(crate) struct Attention<'a> {
    /// `[T, columns]`, queries first.
    pub(crate) qkv: &'a [f32],
    pub(crate) columns: usize,
    pub(crate) shape: &'a AttentionShape,
    pub(crate) cache: &'a CpuCache,
    pub(crate) layer: usize,
}

/// Computes some chunks of a tile and merges them into `scratch.total`.
pub(crate) struct TileChunks<'a, C, Q> {
    attention: &'a Attention<'a>,
    tile: &'a Tile<'a>,
    chunks: Range<usize>,
    scratch: &'a mut Scratch<Q>,
    marker: PhantomData<C>,
}

impl<'a, C, Q> TileChunks<'a, C, Q> {
    pub(crate) fn new(
        attention: &'a Attention<'a>,
        tile: &'a Tile<'a>,
        chunks: Range<usize>,
        scratch: &'a mut Scratch<Q>,
    ) -> Self {
        Self { attention, tile, chunks, scratch, marker: PhantomData }
    }
}

impl<C: ReadBy<Q>, Q: Element> Kernel for TileChunks<'_, C, Q> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { attention, tile, chunks, scratch, .. } = self;
        let head_dim = attention.shape.head_dim;
        scratch.total.reset(head_dim);
        attention.load_queries(tile, &mut scratch.queries);
        for chunk in chunks {
            scratch.chunk.reset(head_dim);
            let run = ChunkRun::<C, Q, S> { attention, tile, chunk, marker: PhantomData };
            // SAFETY: the caller's.
            unsafe {
                let mut first = 0;
                while first < tile.len {
                    // As many rows at a time as the registers hold.
                    first += match tile.len - first {
                        6 if S::WIDE => run.rows::<6>(first, scratch),
                        4 | 5 if S::WIDE => run.rows::<4>(first, scratch),
                        3 => run.rows::<3>(first, scratch),
                        1 => run.rows::<1>(first, scratch),
                        _ => run.rows::<2>(first, scratch),
                    };
                }
            }
            scratch.total.merge(&scratch.chunk);
        }
    }
}

impl Attention<'_> {
    #[inline(always)]
    fn load_queries<E: Element>(&self, tile: &Tile<'_>, queries: &mut Vec<E>) {
        let head_dim = self.shape.head_dim;
        let padded = head_dim.next_multiple_of(LANES);
        queries.clear();
        queries.resize(TILE_ROWS * padded, E::default());
        for (row, out) in tile.rows().iter().zip(queries.chunks_exact_mut(padded)) {
            let head = &self.qkv[row.row * self.columns + row.head * head_dim..][..head_dim];
            for (out, &q) in out.iter_mut().zip(head) {
                *out = E::from_f32(q);
            }
        }
    }
}

/// One chunk of one tile.
struct ChunkRun<'a, C, Q, S> {
    attention: &'a Attention<'a>,
    tile: &'a Tile<'a>,
    chunk: usize,
    marker: PhantomData<(C, Q, S)>,
}

impl<C: ReadBy<Q>, Q: Element, S: Simd> ChunkRun<'_, C, Q, S> {
    /// Rows `first..first + R` of the tile; returns R.
    #[inline(always)]
    unsafe fn rows<const R: usize>(&self, first: usize, scratch: &mut Scratch<Q>) -> usize {
        // SAFETY: the caller's; the steps share one scratch.
        unsafe {
            if let Some(keys) = self.scores::<R>(first, scratch) {
                for r in first..first + R {
                    self.softmax(r, &keys, scratch);
                }
                self.weigh::<R>(first, &keys, scratch);
            }
        }
        R
    }

    /// The blocks' first key positions within `keys`, block by block.
    #[inline(always)]
    fn blocks(&self, keys: &Range<usize>) -> impl Iterator<Item = (usize, usize)> + use<C, Q, S> {
        let tokens = self.attention.cache.layout.block_tokens;
        (keys.start / tokens..keys.end.div_ceil(tokens)).map(move |block| (block, block * tokens))
    }

    /// q·Kᵀ of the keys that these rows see, into `scores[row][key − chunk start]`.
    /// Returns those keys, widened to whole panels; none if there are none in this chunk.
    #[inline(always)]
    unsafe fn scores<const R: usize>(
        &self,
        first: usize,
        scratch: &mut Scratch<Q>,
    ) -> Option<Range<usize>> {
        let shape = self.attention.shape;
        let start = self.chunk * CHUNK;
        let rows = &self.tile.rows()[first..first + R];
        let low = rows.iter().map(|row| shape.first_visible(row.position)).min()?;
        let high = rows.iter().map(|row| row.position).max()? + 1;
        let keys = start.max(low) / LANES * LANES..(start + CHUNK).min(high);
        if keys.is_empty() {
            return None;
        }
        // SAFETY: keys lie in blocks of the table; a last panel may reach past them, not past a block.
        unsafe {
            let mut key = keys.start;
            while S::WIDE && key + LANES < keys.end {
                self.score_panels::<R, 2>(first, key, scratch);
                key += 2 * LANES;
            }
            while key < keys.end {
                self.score_panels::<R, 1>(first, key, scratch);
                key += LANES;
            }
        }
        Some(keys)
    }

    /// The scores of N panels of keys from position `key` on.
    #[inline(always)]
    unsafe fn score_panels<const R: usize, const N: usize>(
        &self,
        first: usize,
        key: usize,
        scratch: &mut Scratch<Q>,
    ) {
        let Attention { shape, cache, layer, .. } = *self.attention;
        let padded = shape.head_dim.next_multiple_of(LANES);
        let quads = shape.head_dim.div_ceil(QUAD);
        let tokens = cache.layout.block_tokens;
        // SAFETY: queries hold TILE_ROWS padded rows, scores CHUNK a row; blocks come from the table.
        unsafe {
            let mut queries = [scratch.queries.as_ptr(); R];
            for (r, pointer) in queries.iter_mut().enumerate() {
                *pointer = pointer.add((first + r) * padded);
            }
            let mut panels = [std::ptr::null(); N];
            for (n, panel) in panels.iter_mut().enumerate() {
                let key = key + n * LANES;
                let block = self.tile.table[key / tokens] as usize;
                *panel = cache.keys(layer, block, self.tile.kv_head, key % tokens / LANES);
            }
            let mut sums = [[S::splat(0.0); N]; R];
            accumulate::<S, C::Panel<S>, R, N>(&mut sums, queries, panels, 0..quads);
            for n in 0..N {
                let key = key + n * LANES;
                if C::FORMAT.is_scaled() {
                    let block = self.tile.table[key / tokens] as usize;
                    let scales = cache.scales(layer, block, self.tile.kv_head);
                    let scale = S::load_f16(scales.add(key % tokens));
                    for sums in &mut sums {
                        sums[n] = S::mul(sums[n], scale);
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    let at = (first + r) * CHUNK + key - self.chunk * CHUNK;
                    S::store(scratch.scores.as_mut_ptr().add(at), sums[n]);
                }
            }
        }
    }

    /// Scores of row `r` to unnormalised probabilities; records their maximum and sum.
    #[inline(always)]
    unsafe fn softmax(&self, r: usize, keys: &Range<usize>, scratch: &mut Scratch<Q>) {
        let shape = self.attention.shape;
        let QueryRow { position, head, .. } = self.tile.rows()[r];
        let start = self.chunk * CHUNK;
        let visible = shape.first_visible(position)..position + 1;
        let slope = shape.alibi_slopes.as_ref().map(|slopes| slopes[head]);
        let whole = keys.start..keys.end.next_multiple_of(LANES);
        let at = whole.start - start..whole.end - start;
        let scores = &mut scratch.scores[r * CHUNK..][at.clone()];
        let probabilities = &mut scratch.probabilities[r * CHUNK..][at];
        for (key, score) in whole.clone().zip(scores.iter_mut()) {
            let bias = slope.map_or(0.0, |slope| -slope * position.abs_diff(key) as f32);
            let seen = key >= visible.start && key < visible.end;
            *score = if seen { *score * shape.scale + bias } else { f32::NEG_INFINITY };
        }
        // SAFETY: both slices are whole lanes long.
        unsafe {
            let mut max = S::splat(f32::NEG_INFINITY);
            for lanes in scores.chunks_exact(LANES) {
                max = S::max(S::load(lanes.as_ptr()), max);
            }
            let max = S::largest(max);
            if max == f32::NEG_INFINITY {
                probabilities.fill(Q::default());
                return;
            }
            let mut sum = S::splat(0.0);
            let lanes = scores.chunks_exact(LANES).zip(probabilities.chunks_exact_mut(LANES));
            for (key, (lanes, out)) in whole.step_by(LANES).zip(lanes) {
                let mut p = S::exp(S::sub(S::load(lanes.as_ptr()), S::splat(max)));
                sum = S::add(sum, p);
                if C::FORMAT.is_scaled() {
                    // The values' scales ride on the probabilities.
                    p = S::mul(p, self.value_scales(key));
                }
                Q::store::<S>(out.as_mut_ptr(), LANES, p);
            }
            scratch.chunk.max[r] = max;
            scratch.chunk.sum[r] = S::sum(sum);
        }
    }

    /// The scales of the 16 values from position `key` on.
    #[inline(always)]
    unsafe fn value_scales(&self, key: usize) -> S::F {
        let Attention { cache, layer, .. } = *self.attention;
        let tokens = cache.layout.block_tokens;
        let block = self.tile.table[key / tokens] as usize;
        // SAFETY: a block has a scale for each token, and keys come in whole panels.
        unsafe {
            let scales = cache.scales(layer, block, self.tile.kv_head);
            S::load_f16(scales.add(tokens + key % tokens))
        }
    }

    /// p·V of the chunk.
    #[inline(always)]
    unsafe fn weigh<const R: usize>(
        &self,
        first: usize,
        keys: &Range<usize>,
        scratch: &mut Scratch<Q>,
    ) {
        let panels = self.attention.shape.head_dim.div_ceil(LANES);
        // SAFETY: panels stay within D; `values` holds TILE_ROWS padded rows.
        unsafe {
            let mut panel = 0;
            while S::WIDE && panel + 2 <= panels {
                self.weigh_panels::<R, 2>(first, keys, panel, scratch);
                panel += 2;
            }
            while panel < panels {
                self.weigh_panels::<R, 1>(first, keys, panel, scratch);
                panel += 1;
            }
        }
    }

    /// N panels of p·V, accumulated over the blocks of the chunk.
    #[inline(always)]
    unsafe fn weigh_panels<const R: usize, const N: usize>(
        &self,
        first: usize,
        keys: &Range<usize>,
        panel: usize,
        scratch: &mut Scratch<Q>,
    ) {
        let Attention { shape, cache, layer, .. } = *self.attention;
        let padded = shape.head_dim.next_multiple_of(LANES);
        let start = self.chunk * CHUNK;
        // SAFETY: probabilities cover whole panels of keys, so every quad below is written.
        unsafe {
            let mut sums = [[S::splat(0.0); N]; R];
            for (index, block_start) in self.blocks(keys) {
                let block = self.tile.table[index] as usize;
                let from = keys.start.max(block_start);
                let to = keys.end.min(block_start + cache.layout.block_tokens);
                let mut p = [scratch.probabilities.as_ptr(); R];
                for (r, pointer) in p.iter_mut().enumerate() {
                    // Quads count from the block's start, which may lie before the chunk's keys
                    // but never before the chunk: chunks are whole blocks.
                    *pointer = pointer.add((first + r) * CHUNK + block_start - start);
                }
                let mut values = [std::ptr::null(); N];
                for (n, pointer) in values.iter_mut().enumerate() {
                    *pointer = cache.values(layer, block, self.tile.kv_head, panel + n);
                }
                let quads = (from - block_start) / QUAD..(to - block_start).div_ceil(QUAD);
                accumulate::<S, C::Panel<S>, R, N>(&mut sums, p, values, quads);
            }
            for (r, row) in sums.into_iter().enumerate() {
                for (n, sum) in row.into_iter().enumerate() {
                    let at = (first + r) * padded + (panel + n) * LANES;
                    S::store(scratch.chunk.values.as_mut_ptr().add(at), sum);
                }
            }
        }
    }
}

/// Divides a tile's merged values by their sums and stores them: `out` row of head h at `h·D`.
pub(crate) struct Finish<'a, E> {
    pub(crate) tile: &'a Tile<'a>,
    pub(crate) head_dim: usize,
    pub(crate) total: &'a Partial,
    /// `[T, stride]`; this tile's heads are this task's alone.
    pub(crate) out: *mut E,
    pub(crate) stride: usize,
}

impl<E: Element> Kernel for Finish<'_, E> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let padded = self.head_dim.next_multiple_of(LANES);
        for (r, row) in self.tile.rows().iter().enumerate() {
            // SAFETY: the row and head exist in the output; values hold padded rows.
            unsafe {
                let inverse = S::splat(self.total.sum[r].recip());
                let out = self.out.add(row.row * self.stride + row.head * self.head_dim);
                for at in (0..self.head_dim).step_by(LANES) {
                    let value = S::load(self.total.values.as_ptr().add(r * padded + at));
                    let n = LANES.min(self.head_dim - at);
                    E::store::<S>(out.add(at), n, S::mul(value, inverse));
                }
            }
        }
    }
}
