//! [`Cpu`]: its threads, its instruction set and its memory.

use crate::aligned::AlignedBytes;
use crate::attention::{self, Partial};
use crate::element::Element;
use crate::gemm::GroupSums;
use crate::layout::{CpuWeight, QUAD};
use crate::leave::{LeaveRow, OperandRow};
use crate::pool::{self, Pool};
use crate::rowwise::{OneRow, RowKernel};
use crate::simd::{Isa, Kernel};
use crate::tensor::{CpuOperand, Shared};
use bantam_backend::LinearInput;
use bantam_numerics::ActivationFormat;
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
    /// Threads would only wait for each other.
    #[error("{threads} threads on {available} processors would wait for each other; use 1 to {}", MAX_CROWD * available)]
    TooManyThreads {
        /// Threads asked for.
        threads: usize,
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
    isas.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
    /// Attention's rows before they are left for a layer that does not take them as they are.
    attended: Mutex<Vec<f32>>,
}

/// Memory of one worker, grown on first use and kept.
#[derive(Default)]
pub(crate) struct WorkerScratch {
    /// Unpacked panels.
    pub(crate) panels: AlignedBytes,
    /// A computed row, and the same in another order.
    row: [Vec<f32>; 2],
    pub(crate) f32: attention::Scratch<f32>,
    pub(crate) bf16: attention::Scratch<u16>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Scratch holds nothing across operations, so what a panic left behind is harmless.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads a processor at most; beyond one each they only help to test.
const MAX_CROWD: usize = 4;
/// Elements of row-wise work that are worth a task.
pub(crate) const TASK_ELEMENTS: usize = 16 * 1024;
impl Cpu {
    /// Starts the threads and picks the kernels.
    ///
    /// # Errors
    /// If the machine lacks the instructions or threads asked for.
    pub fn new(options: CpuOptions) -> Result<Self, CpuError> {
        let isa = options.isa.unwrap_or_else(Isa::best);
        let available = Isa::available();
        if !available.contains(&isa) {
            return Err(CpuError::Isa { asked: isa, available });
        }
        let threads = options.threads.unwrap_or_else(pool::available_threads);
        let available = pool::available_threads();
        if threads == 0 {
            return Err(CpuError::NoThreads { available });
        }
        if threads > MAX_CROWD * available {
            return Err(CpuError::TooManyThreads { threads, available });
        }
        let pool = Pool::new(threads).map_err(|source| CpuError::Threads { threads, source })?;
        let scratch = (0..threads).map(|_| Mutex::default()).collect();
        let group_sums = Mutex::default();
        let (partials, attended) = (Mutex::default(), Mutex::default());
        let inner = Inner { isa, pool, scratch, group_sums, partials, attended };
        Ok(Self { shared: Arc::new(inner) })
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

    /// The threads.
    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// Runs a kernel with the chosen instructions.
    pub(crate) fn run<K: Kernel>(&self, kernel: K) {
        self.shared.isa.run(kernel);
    }

    /// Calls `body(worker, row)` for every row, several rows a task.
    pub(crate) fn each_row(&self, rows: usize, columns: usize, body: impl Fn(usize, usize) + Sync) {
        let rows_per_task = (TASK_ELEMENTS / columns.max(1)).max(1);
        self.pool().run(rows.div_ceil(rows_per_task), |worker, task| {
            let first = task * rows_per_task;
            (first..rows.min(first + rows_per_task)).for_each(|row| body(worker, row));
        });
    }

    /// Computes every row of an operand, and leaves it as `input` asks.
    pub(crate) fn fill_operand<R: RowKernel>(
        &self,
        kernel: &R,
        input: &LinearInput<Vec<f32>>,
        out: &mut CpuOperand,
    ) {
        let (rows, columns, stride) = (out.rows, out.columns, out.stride);
        let scales_per_row = out.scales_per_row();
        let row_bytes = stride * out.format.element_bytes();
        let (elements, scales) = out.parts();
        self.each_row(rows, columns, |worker, r| {
            // SAFETY: row r, its scales and its padding are this call's alone; the operand holds
            // `rows` rows of `stride` elements, and as many scales a row as its format has.
            let (to, scales) = unsafe {
                let scales = scales.get().add(r * scales_per_row);
                let scales = std::slice::from_raw_parts_mut(scales, scales_per_row);
                (elements.get().add(r * row_bytes), scales)
            };
            match input.format {
                ActivationFormat::F32 if input.keeps_channels() => {
                    // SAFETY: as above.
                    let out = unsafe { padded_row::<f32>(to, columns, stride) };
                    self.run(OneRow { kernel, row: r, out });
                }
                ActivationFormat::BF16 if input.keeps_channels() => {
                    // SAFETY: as above.
                    let out = unsafe { padded_row::<u16>(to, columns, stride) };
                    self.run(OneRow { kernel, row: r, out });
                }
                _ => {
                    let mut worker = self.scratch(worker);
                    let [row, ordered] = &mut worker.row;
                    let enough = columns.max(row.len());
                    row.resize(enough, 0.0);
                    ordered.resize(enough, 0.0);
                    let (row, ordered) = (&mut row[..columns], &mut ordered[..columns]);
                    self.run(OneRow { kernel, row: r, out: &mut *row });
                    let out = OperandRow { elements: to, stride, scales };
                    self.run(LeaveRow { row, ordered, input, out });
                }
            }
        });
    }

    /// Σx of each group, where the weight needs it.
    pub(crate) fn sum_groups(
        &self,
        x: &CpuOperand,
        weight: &CpuWeight,
    ) -> MutexGuard<'_, Vec<f32>> {
        let mut sums = lock(&self.shared.group_sums);
        if !weight.needs_sums() {
            return sums;
        }
        let group = weight.groups.as_ref().map_or(weight.k, |groups| groups.quads * QUAD);
        let num_groups = weight.num_groups();
        sums.resize(x.rows * num_groups, 0.0);
        let all = Shared(sums.as_mut_ptr());
        self.each_row(x.rows, x.columns, |_, row| {
            // SAFETY: row's sums are this call's alone.
            let out = unsafe {
                std::slice::from_raw_parts_mut(all.get().add(row * num_groups), num_groups)
            };
            self.run(GroupSums { x, row, group, out });
        });
        sums
    }

    /// The memory of a worker; only that worker asks for it.
    pub(crate) fn scratch(&self, worker: usize) -> MutexGuard<'_, WorkerScratch> {
        lock(&self.shared.scratch[worker])
    }

    /// Room for the partial results of a split attention.
    pub(crate) fn partials(&self) -> MutexGuard<'_, Vec<Partial>> {
        lock(&self.shared.partials)
    }

    /// Room for attention's rows, at least `len` numbers.
    pub(crate) fn attended(&self, len: usize) -> MutexGuard<'_, Vec<f32>> {
        let mut attended = lock(&self.shared.attended);
        let enough = len.max(attended.len());
        attended.resize(enough, 0.0);
        attended
    }
}

/// The `columns` elements of an operand's row; clears the padding after them.
///
/// # Safety
/// The row holds `stride` elements that nothing else uses.
unsafe fn padded_row<'a, E: Element>(row: *mut u8, columns: usize, stride: usize) -> &'a mut [E] {
    // SAFETY: the caller's.
    let all = unsafe { std::slice::from_raw_parts_mut(row.cast::<E>(), stride) };
    let (row, padding) = all.split_at_mut(columns);
    padding.fill(E::default());
    row
}
