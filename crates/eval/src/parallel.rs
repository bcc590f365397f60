//! Work that is the same for every row.

use std::thread;

/// `[f(0), …, f(n - 1)]`, computed by so many threads, at least one.
pub(crate) fn in_parallel<T: Send>(
    n: usize,
    threads: usize,
    f: &(impl Fn(usize) -> T + Sync),
) -> Vec<T> {
    let share = n.div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = (0..n)
            .step_by(share)
            .map(|start| {
                scope.spawn(move || (start..n.min(start + share)).map(f).collect::<Vec<T>>())
            })
            .collect();
        let joined = parts.into_iter().map(|part| part.join().expect("the work never panics"));
        joined.flatten().collect()
    })
}
