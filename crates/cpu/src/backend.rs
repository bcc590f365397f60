//! [`Cpu`]: the operations of the seam, cut into tasks for the pool.

use crate::attention::{self, Attention, Finish, Partial, QueryRow, TILE_ROWS, Tile, TileChunks};
use crate::cache::CpuCache;
use crate::element::Element;
use crate::gemm::{Gemm, Input, Output, group_sums, scratch_len};
use crate::layout::{CpuWeight, QUAD};
use crate::pool::{self, Pool};
use crate::rowwise::{FeedForwardRow, NormHead, NormRow, RoundRow};
use crate::simd::{Isa, Kernel};
use crate::tensor::{CpuOperand, CpuTensor, OperandData, Shared};
use bantam_backend::reference::check_attention;
use bantam_backend::{
    AttentionShape, Backend, BackendError, Batch, FeedForward, HeadNorm, KvLayout, Norm, Rope,
    Store,
};
use bantam_numerics::reference::rotate;
use bantam_numerics::{ActivationFormat, GroupAffine, PackedWeight, WeightData};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How to set up the CPU back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads, the caller's included; none for one on each processor.
    pub threads: Option<usize>,
    /// Instruction set; none for the best there is.
    pub isa: Option<Isa>,
}

/// Why the CPU back end could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The machine lacks the instructions asked for.
    #[error("this machine has no {asked}; it has {}", list(available))]
    Isa {
        /// What was asked for.
        asked: Isa,
        /// What there is.
        available: Vec<Isa>,
    },
    /// No thread could do any work.
    #[error("0 threads cannot compute; use 1 to {available}")]
    NoThreads {
        /// Processors there are.
        available: usize,
    },
    /// The operating system refused a thread.
    #[error("cannot start {threads} threads: {source}; use fewer")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn list(isas: &[Isa]) -> String {
    isas.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The CPU back end. Clones share one pool of threads.
///
/// ```
/// use bantam_backend::Backend;
/// use bantam_cpu::{Cpu, CpuOptions, Isa};
/// let cpu = Cpu::new(CpuOptions { threads: Some(1), isa: Some(Isa::Scalar) })?;
/// assert_eq!(cpu.describe(), "cpu (scalar, 1 thread)");
/// # Ok::<(), bantam_cpu::CpuError>(())
/// ```
#[derive(Clone)]
pub struct Cpu {
    shared: Arc<Inner>,
}

struct Inner {
    isa: Isa,
    pool: Pool,
    /// One for each worker; a lock is never contended, it only makes the borrow checkable.
    scratch: Vec<Mutex<WorkerScratch>>,
    /// Group sums of the input of the linear layer that runs.
    group_sums: Mutex<Vec<f32>>,
    /// Partial results of an attention that is split along the keys.
    partials: Mutex<Vec<Partial>>,
}

#[derive(Default)]
struct WorkerScratch {
    panels: Vec<u16>,
    f32: attention::Scratch<f32>,
    bf16: attention::Scratch<u16>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Scratch holds nothing across operations, so what a panic left behind is harmless.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Elements of row-wise work that are worth a task.
const TASK_ELEMENTS: usize = 16 * 1024;
/// Panels of a linear layer's task: a multiple of every tile's, small enough to balance.
const TASK_PANELS: Range<usize> = 4..32;

impl Cpu {
    /// Starts the threads and picks the kernels.
    ///
    /// # Errors
    /// If the machine lacks the instructions or threads asked for.
    pub fn new(options: CpuOptions) -> Result<Self, CpuError> {
        let isa = options.isa.unwrap_or_else(Isa::best);
        let available = Isa::available();
        if !available.contains(&isa) {
            return Err(CpuError::Isa {
                asked: isa,
                available,
            });
        }
        let threads = options.threads.unwrap_or_else(pool::available_threads);
        if threads == 0 {
            return Err(CpuError::NoThreads {
                available: pool::available_threads(),
            });
        }
        let pool = Pool::new(threads).map_err(|source| CpuError::Threads { threads, source })?;
        let scratch = (0..threads).map(|_| Mutex::default()).collect();
        let group_sums = Mutex::default();
        let partials = Mutex::default();
        Ok(Self {
            shared: Arc::new(Inner {
                isa,
                pool,
                scratch,
                group_sums,
                partials,
            }),
        })
    }

    /// Threads that compute, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.pool.threads()
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.shared.isa
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(crate) fn run<K: Kernel>(&self, kernel: K) {
        self.shared.isa.run(kernel);
    }

    /// Calls `body` for every row, several rows a task.
    fn each_row(&self, rows: usize, columns: usize, body: impl Fn(usize) + Sync) {
        let rows_per_task = (TASK_ELEMENTS / columns.max(1)).max(1);
        self.pool().run(rows.div_ceil(rows_per_task), |_, task| {
            let first = task * rows_per_task;
            (first..rows.min(first + rows_per_task)).for_each(&body);
        });
    }

    /// Fills an operand row by row with the kernel that `make(row index, row of out)` returns.
    fn fill_operand<'a, A, B>(
        &self,
        out: &'a mut CpuOperand,
        for_f32: impl Fn(usize, &'a mut [f32]) -> A + Sync,
        for_bf16: impl Fn(usize, &'a mut [u16]) -> B + Sync,
    ) where
        A: Kernel,
        B: Kernel,
    {
        let (rows, columns, stride) = (out.rows, out.columns, out.stride);
        /// One row of a buffer whose rows go to different tasks.
        unsafe fn row<'a, E>(all: Shared<E>, start: usize, len: usize) -> &'a mut [E] {
            // SAFETY: the caller gives each row to one task, within the buffer.
            unsafe { std::slice::from_raw_parts_mut(all.get().add(start), len) }
        }
        match &mut out.data {
            OperandData::F32(values) => {
                let all = Shared(values.as_mut_ptr());
                self.each_row(rows, columns, |r| {
                    // SAFETY: row r is this call's alone.
                    self.run(for_f32(r, unsafe { row(all, r * stride, columns) }));
                });
            }
            OperandData::Bf16(values) => {
                let all = Shared(values.as_mut_ptr());
                self.each_row(rows, columns, |r| {
                    // SAFETY: row r is this call's alone.
                    self.run(for_bf16(r, unsafe { row(all, r * stride, columns) }));
                });
            }
        }
    }

    /// Σx of each group, where the weight has offsets to multiply them with.
    fn sum_groups(&self, x: &CpuOperand, weight: &CpuWeight) -> MutexGuard<'_, Vec<f32>> {
        let mut sums = lock(&self.shared.group_sums);
        let Some(groups) = weight
            .groups
            .as_ref()
            .filter(|groups| groups.offsets.is_some())
        else {
            return sums;
        };
        let group = groups.quads * QUAD;
        let num_groups = weight.k / group;
        sums.resize(x.rows * num_groups, 0.0);
        if let Input::Bf16(values) = x.input() {
            let all = Shared(sums.as_mut_ptr());
            self.each_row(x.rows, x.columns, |row| {
                // SAFETY: row's sums are this call's alone.
                let out = unsafe {
                    std::slice::from_raw_parts_mut(all.get().add(row * num_groups), num_groups)
                };
                group_sums(&values[row * x.stride..][..x.columns], group, out);
            });
        }
        sums
    }

    fn attend<E: Element>(
        &self,
        attention: &Attention<'_>,
        tiles: &[Tile<'_>],
        scratch: impl Fn(&mut WorkerScratch) -> &mut attention::Scratch<E> + Sync,
        out: Shared<impl Element>,
        stride: usize,
    ) {
        let shape = attention.shape;
        let finish = |tile: &Tile<'_>, total: &Partial| {
            let out = out.get();
            self.run(Finish {
                tile,
                head_dim: shape.head_dim,
                total,
                out,
                stride,
            });
        };
        let most_chunks = tiles
            .iter()
            .map(|tile| tile.chunks(shape).len())
            .max()
            .unwrap_or(0);
        if tiles.len() >= 2 * self.threads() || most_chunks < 2 {
            self.pool().run(tiles.len(), |worker, task| {
                let tile = &tiles[task];
                let mut worker = lock(&self.shared.scratch[worker]);
                let scratch = scratch(&mut worker);
                let chunks = tile.chunks(shape);
                self.run(TileChunks {
                    attention,
                    tile,
                    chunks,
                    scratch: &mut *scratch,
                });
                finish(tile, &scratch.total);
            });
            return;
        }
        // Few heads and long sequences: one task a chunk.
        let tasks: Vec<(&Tile<'_>, usize)> = tiles
            .iter()
            .flat_map(|tile| tile.chunks(shape).map(move |chunk| (tile, chunk)))
            .collect();
        let mut partials = lock(&self.shared.partials);
        let enough = tasks.len().max(partials.len());
        partials.resize_with(enough, Partial::default);
        let all = Shared(partials.as_mut_ptr());
        self.pool().run(tasks.len(), |worker, task| {
            let (tile, chunk) = tasks[task];
            let mut worker = lock(&self.shared.scratch[worker]);
            let scratch = scratch(&mut worker);
            self.run(TileChunks {
                attention,
                tile,
                chunks: chunk..chunk + 1,
                scratch,
            });
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
                    rows.push(QueryRow {
                        row,
                        position: span.start + i,
                        head,
                    });
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

impl Backend for Cpu {
    type Weight = CpuWeight;
    type Vector = Vec<f32>;
    type Tensor = CpuTensor;
    type Operand = CpuOperand;
    type Cache = CpuCache;

    fn describe(&self) -> String {
        let threads = self.threads();
        format!(
            "cpu ({}, {threads} thread{})",
            self.isa(),
            if threads == 1 { "" } else { "s" }
        )
    }

    fn block_tokens(&self) -> usize {
        16
    }

    fn weight(&self, weight: PackedWeight) -> Result<CpuWeight, BackendError> {
        if let WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. } = &weight.data {
            let GroupAffine { group, .. } = affine;
            if *group != weight.k && !group.is_multiple_of(QUAD) {
                return Err(BackendError::Unsupported {
                    op: "weight",
                    what: format!("a group size of {group}"),
                    backend: "cpu".to_owned(),
                    way_out: "use a multiple of 4".to_owned(),
                });
            }
        }
        Ok(CpuWeight::new(weight))
    }

    fn vector(&self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn tensor(&self, rows: usize, columns: usize) -> CpuTensor {
        CpuTensor::new(rows, columns)
    }

    fn operand(&self, rows: usize, columns: usize, format: ActivationFormat) -> CpuOperand {
        CpuOperand::new(rows, columns, format)
    }

    fn cache(&self, layout: &KvLayout) -> Result<CpuCache, BackendError> {
        CpuCache::new(layout)
    }

    fn write(&self, values: &[f32], out: &mut CpuTensor) -> Result<(), BackendError> {
        let columns = out.columns;
        BackendError::check_shape("write", "values past whole rows", values.len() % columns, 0)?;
        out.set_rows("write", values.len() / columns)?;
        out.values_mut().copy_from_slice(values);
        Ok(())
    }

    fn read(&self, x: &CpuTensor) -> Vec<f32> {
        x.values().to_vec()
    }

    fn read_operand(&self, x: &CpuOperand) -> Vec<f32> {
        x.to_f32()
    }

    fn embed(
        &self,
        table: &CpuWeight,
        tokens: &[u32],
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("embed", "output columns", out.columns, table.k)?;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= table.n) {
            return Err(BackendError::Shape {
                op: "embed",
                what: "token id (below the vocabulary's size)",
                got: id as usize,
                expected: table.n,
            });
        }
        out.set_rows("embed", tokens.len())?;
        let columns = out.columns;
        for (row, &id) in out.values_mut().chunks_exact_mut(columns).zip(tokens) {
            table.decode_row(id as usize, row);
        }
        Ok(())
    }

    fn select_rows(
        &self,
        x: &CpuTensor,
        rows: &[u32],
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("select_rows", "output columns", out.columns, x.columns)?;
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= x.rows) {
            let (got, capacity) = (row as usize + 1, x.rows);
            return Err(BackendError::Capacity {
                op: "select_rows",
                got,
                capacity,
            });
        }
        out.set_rows("select_rows", rows.len())?;
        let columns = x.columns;
        for (to, &row) in out.values_mut().chunks_exact_mut(columns).zip(rows) {
            to.copy_from_slice(&x.values()[row as usize * columns..][..columns]);
        }
        Ok(())
    }

    fn round(&self, x: &CpuTensor, out: &mut CpuOperand) -> Result<(), BackendError> {
        BackendError::check_shape("round", "output columns", out.columns, x.columns)?;
        out.set_rows("round", x.rows)?;
        let row = |r: usize| &x.values()[r * x.columns..][..x.columns];
        self.fill_operand(
            out,
            |r, out| RoundRow { x: row(r), out },
            |r, out| RoundRow { x: row(r), out },
        );
        Ok(())
    }

    fn norm(
        &self,
        x: &CpuTensor,
        norm: &Norm<Vec<f32>>,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("norm", "weight", norm.weight.len(), x.columns)?;
        BackendError::check_shape("norm", "output columns", out.columns, x.columns)?;
        out.set_rows("norm", x.rows)?;
        let row = |r: usize| &x.values()[r * x.columns..][..x.columns];
        let (kind, eps) = (norm.kind, norm.eps);
        let (weight, bias) = (norm.weight.as_slice(), norm.bias.as_deref());
        self.fill_operand(
            out,
            |r, out| NormRow {
                kind,
                x: row(r),
                weight,
                bias,
                eps,
                out,
            },
            |r, out| NormRow {
                kind,
                x: row(r),
                weight,
                bias,
                eps,
                out,
            },
        );
        Ok(())
    }

    fn linear(
        &self,
        x: &CpuOperand,
        weight: &CpuWeight,
        bias: Option<&Vec<f32>>,
        store: Store,
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("linear", "input columns", x.columns, weight.k)?;
        BackendError::check_shape("linear", "output columns", out.columns, weight.n)?;
        BackendError::check_shape("linear", "bias", bias.map_or(weight.n, Vec::len), weight.n)?;
        if x.format() != weight.activation {
            return Err(BackendError::Unsupported {
                op: "linear",
                what: format!(
                    "a {:?} operand for a {:?} weight",
                    x.format(),
                    weight.format
                ),
                backend: "cpu".to_owned(),
                way_out: format!("make the operand as {:?}", weight.activation),
            });
        }
        match store {
            Store::Replace => out.set_rows("linear", x.rows)?,
            Store::Add => BackendError::check_shape("linear", "rows to add to", out.rows, x.rows)?,
        }
        let sums = self.sum_groups(x, weight);
        let columns = out.columns;
        let values = Shared(out.values_mut().as_mut_ptr());
        let panels = weight.panels();
        let per_task = panels
            .div_ceil(4 * self.threads())
            .next_multiple_of(TASK_PANELS.start)
            .clamp(TASK_PANELS.start, TASK_PANELS.end);
        self.pool().run(panels.div_ceil(per_task), |worker, task| {
            let mut worker = lock(&self.shared.scratch[worker]);
            let needed = scratch_len(weight, x.rows);
            if worker.panels.len() < needed {
                worker.panels.resize(needed, 0);
            }
            self.run(Gemm {
                input: x.input(),
                stride: x.stride,
                rows: x.rows,
                weight,
                panels: task * per_task..panels.min((task + 1) * per_task),
                group_sums: &sums,
                bias: bias.map(Vec::as_slice),
                output: Output {
                    values: values.get(),
                    columns,
                    add: store == Store::Add,
                },
                scratch: &mut worker.panels,
            });
        });
        Ok(())
    }

    fn append(
        &self,
        qkv: &mut CpuTensor,
        shape: &AttentionShape,
        head_norm: Option<&HeadNorm<Vec<f32>>>,
        rope: Option<&Rope>,
        batch: &Batch,
        layer: usize,
        cache: &mut CpuCache,
    ) -> Result<(), BackendError> {
        check_attention("append", qkv.columns, qkv.rows, shape, batch, &cache.layout)?;
        if let Some(rope) = rope {
            let reach = batch
                .spans
                .iter()
                .map(bantam_backend::Span::context)
                .max()
                .unwrap_or(0);
            BackendError::check_capacity("append", reach, rope.positions())?;
        }
        let &AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = shape;
        let columns = qkv.columns;
        let layout = cache.layout;
        let bf16 = cache.format == crate::layout::PanelFormat::Bf16;
        let writer = cache.writer();
        let values = Shared(qkv.values_mut().as_mut_ptr());
        // Tasks end where blocks do: a block's first token clears what the last owner left.
        let tokens_per_task = (TASK_ELEMENTS / columns).next_multiple_of(layout.block_tokens);
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
        self.pool().run(tasks.len(), |_, task| {
            let (span, positions) = &tasks[task];
            for position in positions.clone() {
                let row = span.rows.start + position - span.start;
                // SAFETY: this row is this task's alone.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(values.get().add(row * columns), columns)
                };
                let (turned, value_heads) = row.split_at_mut((heads + kv_heads) * head_dim);
                for (index, head) in turned.chunks_exact_mut(head_dim).enumerate() {
                    if let Some(norm) = head_norm {
                        let weight = if index < heads { &norm.q } else { &norm.k };
                        self.run(NormHead {
                            head,
                            weight,
                            eps: norm.eps,
                        });
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
                    // SAFETY: sequences own their blocks, and a block's tokens are one task's.
                    unsafe {
                        if bf16 {
                            writer.put::<u16>(layer, block, place, head, key, value);
                        } else {
                            writer.put::<f32>(layer, block, place, head, key, value);
                        }
                    }
                }
            }
        });
        Ok(())
    }

    fn attention(
        &self,
        qkv: &CpuTensor,
        shape: &AttentionShape,
        batch: &Batch,
        layer: usize,
        cache: &CpuCache,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        check_attention(
            "attention",
            qkv.columns,
            qkv.rows,
            shape,
            batch,
            &cache.layout,
        )?;
        let columns = shape.heads * shape.head_dim;
        BackendError::check_shape("attention", "output columns", out.columns, columns)?;
        out.set_rows("attention", qkv.rows)?;
        let tiles = tiles(batch, shape);
        let (values, columns, stride) = (qkv.values(), qkv.columns, out.stride);
        let job = Attention {
            qkv: values,
            columns,
            shape,
            cache,
            layer,
        };
        let bf16 = cache.format == crate::layout::PanelFormat::Bf16;
        match (&mut out.data, bf16) {
            (OperandData::F32(out), false) => {
                self.attend(
                    &job,
                    &tiles,
                    |s| &mut s.f32,
                    Shared(out.as_mut_ptr()),
                    stride,
                );
            }
            (OperandData::F32(out), true) => {
                self.attend(
                    &job,
                    &tiles,
                    |s| &mut s.bf16,
                    Shared(out.as_mut_ptr()),
                    stride,
                );
            }
            (OperandData::Bf16(out), false) => {
                self.attend(
                    &job,
                    &tiles,
                    |s| &mut s.f32,
                    Shared(out.as_mut_ptr()),
                    stride,
                );
            }
            (OperandData::Bf16(out), true) => {
                self.attend(
                    &job,
                    &tiles,
                    |s| &mut s.bf16,
                    Shared(out.as_mut_ptr()),
                    stride,
                );
            }
        }
        Ok(())
    }

    fn feed_forward(
        &self,
        x: &CpuTensor,
        kind: FeedForward,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        let columns = kind.input_columns(out.columns);
        BackendError::check_shape("feed_forward", "input columns", x.columns, columns)?;
        out.set_rows("feed_forward", x.rows)?;
        let row = |r: usize| &x.values()[r * columns..][..columns];
        self.fill_operand(
            out,
            |r, out| FeedForwardRow {
                kind,
                x: row(r),
                out,
            },
            |r, out| FeedForwardRow {
                kind,
                x: row(r),
                out,
            },
        );
        Ok(())
    }
}
