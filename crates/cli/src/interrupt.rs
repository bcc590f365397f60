//! Ctrl-C.
//!
//! While something is under way that can stop cleanly, the first Ctrl-C asks it to; at any other
//! time, and the second time, it ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::INTERRUPTED;

/// Something that looks at [`happened`] is under way.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// Ctrl-C was pressed while watched.
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C; call once.
pub(crate) fn install() -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interrupts = {
        let _entered = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let wait = async move {
        while interrupts.recv().await.is_some() {
            let stops_cleanly = WATCHED.load(Ordering::SeqCst);
            if !stops_cleanly || HAPPENED.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        }
    };
    thread::Builder::new()
        .name("bantam-ctrl-c".to_owned())
        .spawn(move || runtime.block_on(wait))?;
    Ok(())
}

/// Runs `work`, which stops soon after [`happened`] turns true.
pub(crate) fn watched<T>(work: impl FnOnce() -> T) -> T {
    let _watch = watch();
    work()
}

/// While it lives, something looks at [`happened`] soon after it turns true.
pub(crate) fn watch() -> Watch {
    WATCHED.store(true, Ordering::SeqCst);
    Watch
}

/// See [`watch`].
pub(crate) struct Watch;

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(false, Ordering::SeqCst);
    }
}

/// Whether Ctrl-C was pressed while something was watching.
pub(crate) fn happened() -> bool {
    HAPPENED.load(Ordering::SeqCst)
}

/// Goes on after Ctrl-C, as a chat does with its next turn.
pub(crate) fn forget() {
    HAPPENED.store(false, Ordering::SeqCst);
}
