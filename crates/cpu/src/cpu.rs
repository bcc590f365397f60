//! [`Cpu`]: its threads, its instruction set and its memory.

use crate::attention::{self, Partial};
use crate::gemm::{Input, group_sums};
use crate::layout::{CpuWeight, QUAD};
use crate::pool::{self, Pool};
use crate::simd::{Isa, Kernel};
use crate::tensor::{CpuOperand, OperandData, Shared};
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
}

/// Memory of one worker, grown on first use and kept.
#[derive(Default)]
pub(crate) struct WorkerScratch {
    pub(crate) panels: Vec<u16>,
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
        let partials = Mutex::default();
        Ok(Self { shared: Arc::new(Inner { isa, pool, scratch, group_sums, partials }) })
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

    /// Calls `body` for every row, several rows a task.
    pub(crate) fn each_row(&self, rows: usize, columns: usize, body: impl Fn(usize) + Sync) {
        let rows_per_task = (TASK_ELEMENTS / columns.max(1)).max(1);
        self.pool().run(rows.div_ceil(rows_per_task), |_, task| {
            let first = task * rows_per_task;
            (first..rows.min(first + rows_per_task)).for_each(&body);
        });
    }

    /// Fills an operand row by row with the kernel that `make(row index, row of out)` returns.
    pub(crate) fn fill_operand<'a, A, B>(
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
    pub(crate) fn sum_groups(
        &self,
        x: &CpuOperand,
        weight: &CpuWeight,
    ) -> MutexGuard<'_, Vec<f32>> {
        let mut sums = lock(&self.shared.group_sums);
        let Some(groups) = weight.groups.as_ref().filter(|groups| groups.offsets.is_some()) else {
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

    /// The memory of a worker; only that worker asks for it.
    pub(crate) fn scratch(&self, worker: usize) -> MutexGuard<'_, WorkerScratch> {
        lock(&self.shared.scratch[worker])
    }

    /// Room for the partial results of a split attention.
    pub(crate) fn partials(&self) -> MutexGuard<'_, Vec<Partial>> {
        lock(&self.shared.partials)
    }
}
