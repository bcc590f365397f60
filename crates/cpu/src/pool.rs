//! A pool of pinned threads that runs one short parallel loop after another.
//!
//! A decode step of a small model is some two hundred loops of ten to a hundred microseconds each.
//! So idle workers spin for a while before they sleep, and a loop hands out its tasks from one
//! atomic counter: a worker that the operating system delays costs one task, not its share.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// The body of a loop: called with the worker's index and the task's.
type Body = dyn Fn(usize, usize) + Sync;

/// One parallel loop.
#[derive(Clone, Copy)]
struct Job {
    /// Valid until every worker has left the loop, which `run` waits for.
    body: *const Body,
    tasks: usize,
}

struct Shared {
    job: UnsafeCell<Option<Job>>,
    /// Counts the loops; a change tells the workers that there is a new one.
    epoch: AtomicUsize,
    next_task: AtomicUsize,
    /// Workers that have not left the current loop.
    working: AtomicUsize,
    asleep: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// More threads than processors: who spins takes the time of who works.
    crowded: bool,
}

// SAFETY: `job` is written only by `run`, while no worker works, and published by `epoch`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer inside `job` leads to a `Sync` closure.
unsafe impl Send for Shared {}

/// The pool. The calling thread works too, as worker 0.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
    /// One loop at a time.
    turn: Mutex<()>,
}

impl Pool {
    /// Starts `threads − 1` workers, each pinned to a processor of its own where there are enough.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            epoch: AtomicUsize::new(0),
            next_task: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            asleep: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            crowded: threads > available_threads(),
        });
        let processors = affinity::allowed();
        // Made first, so that a thread that cannot be started stops the ones before it.
        let mut pool =
            Self { shared, workers: Vec::new(), handles: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let processor = processors.get(index).copied().filter(|_| threads <= processors.len());
            let shared = Arc::clone(&pool.shared);
            let work = move || {
                if let Some(processor) = processor {
                    affinity::pin(processor);
                }
                worker(&shared, index);
            };
            let builder = std::thread::Builder::new().name(format!("bantam-{index}"));
            let worker = builder.spawn(work)?;
            pool.handles.push(worker.thread().clone());
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that work, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(worker, task)` for every task below `tasks`, on all threads, and waits.
    ///
    /// # Panics
    /// If a task panicked.
    pub(crate) fn run(&self, tasks: usize, body: impl Fn(usize, usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() {
            for task in 0..tasks {
                body(0, task);
            }
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let body: &(dyn Fn(usize, usize) + Sync) = &body;
        // SAFETY: only the lifetime is erased; this function returns after the last use.
        let body = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync), *const Body>(body)
        };
        shared.next_task.store(0, Ordering::Relaxed);
        shared.working.store(self.workers.len(), Ordering::Relaxed);
        // SAFETY: no worker reads the job before the epoch changes below.
        unsafe { *shared.job.get() = Some(Job { body, tasks }) };
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, handle) in self.handles.iter().enumerate() {
            if shared.asleep[worker + 1].load(Ordering::SeqCst) {
                handle.unpark();
            }
        }
        work(shared, 0, Job { body, tasks });
        let mut spins = 0u32;
        while shared.working.load(Ordering::Acquire) > 0 {
            spins += 1;
            if shared.crowded || spins.is_multiple_of(4096) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a task of a parallel loop panicked; its message is above"
        );
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panic was reported by the loop it happened in.
            let _ = worker.join();
        }
    }
}

/// Takes tasks until there are none left.
fn work(shared: &Shared, index: usize, job: Job) {
    let tasks = std::panic::AssertUnwindSafe(|| {
        loop {
            let task = shared.next_task.fetch_add(1, Ordering::Relaxed);
            if task >= job.tasks {
                break;
            }
            // SAFETY: `run` keeps the closure alive until this worker has left the loop.
            unsafe { (*job.body)(index, task) };
        }
    });
    if std::panic::catch_unwind(tasks).is_err() {
        shared.panicked.store(true, Ordering::Relaxed);
        shared.next_task.store(job.tasks, Ordering::Relaxed);
    }
}

fn worker(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        wait_for_change(shared, index, seen);
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the epoch changed, so the job is written; it stays until `working` is zero.
        if let Some(job) = unsafe { *shared.job.get() } {
            work(shared, index, job);
        }
        shared.working.fetch_sub(1, Ordering::Release);
    }
}

fn wait_for_change(shared: &Shared, index: usize, seen: usize) {
    let changed = || shared.epoch.load(Ordering::SeqCst) != seen;
    let start = Instant::now();
    loop {
        for _ in 0..256 {
            if changed() {
                return;
            }
            std::hint::spin_loop();
        }
        if shared.crowded || start.elapsed() > SPIN {
            break;
        }
    }
    shared.asleep[index].store(true, Ordering::SeqCst);
    while !changed() {
        std::thread::park();
    }
    shared.asleep[index].store(false, Ordering::SeqCst);
}

/// Which processors this process may use, and binding threads to them.
mod affinity {
    /// Processors of the calling thread's affinity mask, ascending.
    #[cfg(target_os = "linux")]
    pub(super) fn allowed() -> Vec<usize> {
        // SAFETY: a zeroed cpu_set_t is a valid empty set of the size that is passed.
        let (set, status) = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let status = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
            (set, status)
        };
        if status != 0 {
            return Vec::new();
        }
        // SAFETY: the index stays below the set's size.
        (0..libc::CPU_SETSIZE as usize).filter(|&p| unsafe { libc::CPU_ISSET(p, &set) }).collect()
    }

    /// Binds the calling thread to a processor; where that fails, it floats.
    #[cfg(target_os = "linux")]
    pub(super) fn pin(processor: usize) {
        // SAFETY: the set is valid and the processor came from `allowed`.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(processor, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn pin(_processor: usize) {}
}

/// Processors' worth of time that this process may use: its affinity mask, and a container's quota
/// if that is less.
pub(crate) fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for tasks in [0, 1, 2, 3, 100] {
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, |worker, task| {
                    assert!(worker < threads);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn workers_wake_from_sleep() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            let sum = AtomicUsize::new(0);
            pool.run(50, |_, task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 1225);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(8, |_, task| assert!(task != 5, "task five"));
        }));
        assert!(result.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(8, |_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 8);
    }

    #[test]
    fn loops_from_many_threads_take_turns() {
        let pool = Pool::new(2).unwrap();
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(10, |_, _| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4000);
    }
}
