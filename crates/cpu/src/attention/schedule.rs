//! How appending and attending are cut into tasks.

use super::{Attention, Finish, Partial, QueryRow, Scratch, TILE_ROWS, Tile, TileChunks};
use crate::cache::{CacheWriter, CpuCache, Slot};
use crate::cpu::{Cpu, TASK_ELEMENTS, WorkerScratch};
use crate::element::{Bf16Cached, Element, F32Cached, Fp8Cached, Int8Cached, ReadBy};
use crate::rowwise::{NormHead, SameRows};
use crate::tensor::{CpuOperand, CpuTensor, Shared};
use bantam_backend::reference::{check_attention, check_writes};
use bantam_backend::{
    AttentionPrecision, AttentionShape, BackendError, Batch, HeadNorm, KvFormat, LinearInput, Rope,
};
use bantam_numerics::ActivationFormat;
use bantam_numerics::reference::rotate;

/// [`append`](bantam_backend::Backend::append): tasks are runs of whole blocks of a sequence.
#[allow(clippy::too_many_arguments)] // the signature of the seam
pub(crate) fn append(
    cpu: &Cpu,
    qkv: &mut CpuTensor,
    shape: &AttentionShape,
    head_norm: Option<&HeadNorm<Vec<f32>>>,
    rope: Option<&Rope>,
    batch: &Batch,
    layer: usize,
    cache: &mut CpuCache,
) -> Result<(), BackendError> {
    check_attention("append", qkv.columns, qkv.rows, shape, batch, &cache.layout)?;
    check_writes("append", batch, &cache.layout)?;
    if let Some(rope) = rope {
        let reach = batch.spans.iter().map(bantam_backend::Span::context).max().unwrap_or(0);
        BackendError::check_capacity("append", reach, rope.positions())?;
    }
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let columns = qkv.columns;
    let layout = cache.layout;
    let writer = cache.writer();
    let values = Shared(qkv.values_mut().as_mut_ptr());
    // Tasks end where blocks do: a block's first token clears what the last owner left.
    let tokens_per_task = (TASK_ELEMENTS / columns).max(1).next_multiple_of(layout.block_tokens);
    let mut tasks = Vec::new();
    for span in &batch.spans {
        let mut position = span.start;
        while position < span.context() {
            let end = (position / layout.block_tokens * layout.block_tokens + tokens_per_task)
                .min(span.context());
            tasks.push((span, position..end));
            position = end;
        }
    }
    cpu.pool().run(tasks.len(), |_, task| {
        let (span, positions) = &tasks[task];
        for position in positions.clone() {
            let row = span.rows.start + position - span.start;
            // SAFETY: this row is this task's alone.
            let row =
                unsafe { std::slice::from_raw_parts_mut(values.get().add(row * columns), columns) };
            let (turned, value_heads) = row.split_at_mut((heads + kv_heads) * head_dim);
            for (index, head) in turned.chunks_exact_mut(head_dim).enumerate() {
                if let Some(norm) = head_norm {
                    let weight = if index < heads { &norm.q } else { &norm.k };
                    cpu.run(NormHead { head, weight, eps: norm.eps });
                }
                if let Some(rope) = rope {
                    let (cos, sin) = rope.at(position);
                    rotate(head, cos, sin, rope.pairs);
                }
            }
            let slot = batch.slot(span, position, layout.block_tokens);
            let (block, place) = (slot / layout.block_tokens, slot % layout.block_tokens);
            let keys = turned[heads * head_dim..].chunks_exact(head_dim);
            let pairs = keys.zip(value_heads.chunks_exact(head_dim));
            for (head, (key, value)) in pairs.enumerate() {
                let put = match layout.format {
                    KvFormat::F32 => CacheWriter::put::<F32Cached>,
                    KvFormat::BF16 => CacheWriter::put::<Bf16Cached>,
                    KvFormat::Int8 => CacheWriter::put::<Int8Cached>,
                    KvFormat::Fp8 => CacheWriter::put::<Fp8Cached>,
                };
                // SAFETY: no two spans write one block, and a block's tokens are one task's.
                unsafe {
                    put(&writer, Slot { layer, block, place, head }, key, value, shape.kv_ranges);
                };
            }
        }
    });
    Ok(())
}

/// [`attention`](bantam_backend::Backend::attention): tasks are tiles, or chunks of tiles where
/// there are few.
#[allow(clippy::too_many_arguments)] // the signature of the seam
pub(crate) fn attention(
    cpu: &Cpu,
    qkv: &CpuTensor,
    shape: &AttentionShape,
    batch: &Batch,
    layer: usize,
    cache: &CpuCache,
    input: &LinearInput<Vec<f32>>,
    out: &mut CpuOperand,
) -> Result<(), BackendError> {
    check_attention("attention", qkv.columns, qkv.rows, shape, batch, &cache.layout)?;
    let columns = shape.heads * shape.head_dim;
    BackendError::check_shape("attention", "output columns", out.columns, columns)?;
    out.begin("attention", qkv.rows, input)?;
    let tiles = tiles(batch, shape);
    let stride = out.stride;
    let job = Attention { qkv: qkv.values(), columns: qkv.columns, shape, cache, layer };
    let (elements, _) = out.parts();
    match input.format {
        // Tiles write heads, not the padding after a row.
        ActivationFormat::F32 if input.keeps_channels() && stride == columns => {
            attend_over(cpu, &job, &tiles, elements.cast::<f32>(), stride);
        }
        ActivationFormat::BF16 if input.keeps_channels() && stride == columns => {
            attend_over(cpu, &job, &tiles, elements.cast::<u16>(), stride);
        }
        // A row's heads come from several tiles: its scale is known only when all are there.
        _ => {
            let mut rows = cpu.attended(out.rows * columns);
            attend_over(cpu, &job, &tiles, Shared(rows.as_mut_ptr()), columns);
            cpu.fill_operand(&SameRows { x: &rows }, input, out);
        }
    }
    Ok(())
}

/// Runs all tiles over the cache, whatever its format.
fn attend_over<O: Element>(
    cpu: &Cpu,
    job: &Attention<'_>,
    tiles: &[Tile<'_>],
    out: Shared<O>,
    stride: usize,
) {
    use {AttentionPrecision as As, KvFormat as Kv};
    let run = match (job.cache.layout.format, job.shape.precision) {
        (Kv::F32, _) => attend::<F32Cached, f32, O>,
        (Kv::BF16, As::F32) => attend::<Bf16Cached, f32, O>,
        (Kv::BF16, As::Bf16) => attend::<Bf16Cached, u16, O>,
        (Kv::Int8, As::F32) => attend::<Int8Cached, f32, O>,
        (Kv::Int8, As::Bf16) => attend::<Int8Cached, u16, O>,
        (Kv::Fp8, As::F32) => attend::<Fp8Cached, f32, O>,
        (Kv::Fp8, As::Bf16) => attend::<Fp8Cached, u16, O>,
    };
    run(cpu, job, tiles, out, stride);
}

/// The type of queries and probabilities.
trait Query: Element {
    /// A worker's memory for them.
    fn scratch(worker: &mut WorkerScratch) -> &mut Scratch<Self>;
}

impl Query for f32 {
    fn scratch(worker: &mut WorkerScratch) -> &mut Scratch<f32> {
        &mut worker.f32
    }
}

impl Query for u16 {
    fn scratch(worker: &mut WorkerScratch) -> &mut Scratch<u16> {
        &mut worker.bf16
    }
}

/// Runs all tiles over a cache of format `C` with queries of type `Q`.
fn attend<C: ReadBy<Q>, Q: Query, O: Element>(
    cpu: &Cpu,
    attention: &Attention<'_>,
    tiles: &[Tile<'_>],
    out: Shared<O>,
    stride: usize,
) {
    let shape = attention.shape;
    let finish = |tile: &Tile<'_>, total: &Partial| {
        let out = out.get();
        cpu.run(Finish { tile, head_dim: shape.head_dim, total, out, stride });
    };
    let most_chunks = tiles.iter().map(|tile| tile.chunks(shape).len()).max().unwrap_or(0);
    if tiles.len() >= 2 * cpu.threads() || most_chunks < 2 {
        cpu.pool().run(tiles.len(), |worker, task| {
            let tile = &tiles[task];
            let mut worker = cpu.scratch(worker);
            let scratch = Q::scratch(&mut worker);
            let chunks = tile.chunks(shape);
            cpu.run(TileChunks::<C, Q>::new(attention, tile, chunks, scratch));
            finish(tile, &scratch.total);
        });
        return;
    }
    // Few heads and long sequences: one task a chunk.
    let tasks: Vec<(&Tile<'_>, usize)> =
        tiles.iter().flat_map(|tile| tile.chunks(shape).map(move |chunk| (tile, chunk))).collect();
    let mut partials = cpu.partials();
    let enough = tasks.len().max(partials.len());
    partials.resize_with(enough, Partial::default);
    let all = Shared(partials.as_mut_ptr());
    cpu.pool().run(tasks.len(), |worker, task| {
        let (tile, chunk) = tasks[task];
        let mut worker = cpu.scratch(worker);
        let scratch = Q::scratch(&mut worker);
        cpu.run(TileChunks::<C, Q>::new(attention, tile, chunk..chunk + 1, scratch));
        // SAFETY: partial number `task` is this task's alone.
        let partial = unsafe { &mut *all.get().add(task) };
        std::mem::swap(partial, &mut scratch.total);
    });
    let mut partials = partials.iter();
    let mut total = Partial::default();
    for tile in tiles {
        total.reset(shape.head_dim);
        for partial in partials.by_ref().take(tile.chunks(shape).len()) {
            total.merge(partial);
        }
        finish(tile, &total);
    }
}

/// The tiles of a batch: query rows that share a sequence and a key/value head, six at a time.
fn tiles<'a>(batch: &'a Batch, shape: &AttentionShape) -> Vec<Tile<'a>> {
    let group = shape.heads / shape.kv_heads;
    let mut tiles = Vec::new();
    for span in &batch.spans {
        let table = batch.table(span);
        for kv_head in 0..shape.kv_heads {
            let mut rows = Vec::with_capacity(TILE_ROWS);
            for (i, row) in span.rows.clone().enumerate() {
                for head in kv_head * group..(kv_head + 1) * group {
                    rows.push(QueryRow { row, position: span.start + i, head });
                    if rows.len() == TILE_ROWS {
                        tiles.push(Tile::new(&rows, kv_head, table));
                        rows.clear();
                    }
                }
            }
            if !rows.is_empty() {
                tiles.push(Tile::new(&rows, kv_head, table));
            }
        }
    }
    tiles
}
