//! What one request brings may panic; the others must not notice.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{ConstraintError, RequestFailure};

/// Something that belongs to one request panicked.
#[derive(Debug)]
pub(crate) struct Panicked {
    /// The text of the panic.
    pub(crate) message: String,
}

/// Does work for one request; a panic in it is an error like others.
///
/// The caller ends the request then, and looks at nothing that the work may have left half done.
pub(crate) fn isolated<T, E: From<Panicked>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|panic| Err(Panicked { message: panic_message(&*panic) }.into()))
}

/// Drops what a request brought, whatever its `Drop` does.
pub(crate) fn discard<T>(value: T) {
    let _: Result<(), Panicked> = isolated(|| {
        drop(value);
        Ok(())
    });
}

impl From<Panicked> for ConstraintError {
    fn from(Panicked { message }: Panicked) -> Self {
        Self { reason: format!("it panicked: {message}") }
    }
}

impl From<Panicked> for RequestFailure {
    fn from(Panicked { message: reason }: Panicked) -> Self {
        Self::Panicked { reason }
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
