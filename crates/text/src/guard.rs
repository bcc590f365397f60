//! A fence around libraries that read what strangers wrote.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// How many fences the thread is inside.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`; a panic inside it becomes an error with the panic's own words.
///
/// Parsers of files, templates and grammars are other people's code, and some of it panics on input
/// that nobody thought of. Such input must end as one clear message about the file, not as a crash of a
/// server with a hundred other requests. Nothing is printed for a panic inside the fence. What
/// `work` was changing when it panicked must be thrown away by the caller.
///
/// It cannot stop a stack overflow or an endless loop: input that nests is limited before.
///
/// ```
/// let text = bantam_text::guarded(|| "12x".parse::<u8>().expect("a number"));
/// assert!(text.unwrap_err().contains("a number"));
/// assert_eq!(bantam_text::guarded(|| 3), Ok(3));
/// ```
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                print(info);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|panic| words(panic.as_ref()))
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the reader failed: {}", said.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_however_deep() {
        let inner = guarded(|| {
            let inner = guarded(|| -> u8 { panic!("in{}", "ner") });
            assert_eq!(inner, Err("the reader failed: inner".to_owned()));
            7
        });
        assert_eq!(inner, Ok(7));
        assert_eq!(
            guarded(|| -> u8 { panic!("static") }),
            Err("the reader failed: static".to_owned())
        );
        assert_eq!(DEPTH.get(), 0);
    }
}
