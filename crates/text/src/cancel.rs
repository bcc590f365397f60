//! Ends work whose result nobody waits for any more.

use std::fmt;
use std::sync::Arc;

use crate::TextError;

/// Says whether long work is still wanted. Work that may take more than a few milliseconds
/// (tokenizing a long text, compiling a grammar) asks [`check`](Self::check) again and again, after
/// every few thousand steps: asking costs about as much as an atomic load.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use bantam_text::Cancel;
///
/// let gone = Arc::new(AtomicBool::new(false));
/// let asked = Arc::clone(&gone);
/// let cancel = Cancel::when(move || asked.load(Ordering::Relaxed));
/// assert!(cancel.check().is_ok());
/// gone.store(true, Ordering::Relaxed);
/// assert!(cancel.check().is_err());
/// ```
#[derive(Clone)]
pub struct Cancel(Arc<dyn Fn() -> bool + Send + Sync>);

impl Cancel {
    /// Ends work once `unwanted` says so. It is called on the thread that works, and may hold it up
    /// for a while to let other work go first.
    #[must_use]
    pub fn when(unwanted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(unwanted))
    }

    /// Lets all work complete.
    #[must_use]
    pub fn never() -> Self {
        Self::when(|| false)
    }

    /// Whether the work is to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        (self.0)()
    }

    /// Goes on, or ends the work.
    ///
    /// # Errors
    /// [`TextError::Cancelled`] if nobody waits for the result.
    pub fn check(&self) -> Result<(), TextError> {
        if self.is_cancelled() { Err(TextError::Cancelled) } else { Ok(()) }
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::never()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Asking could hold up whoever prints.
        f.write_str("Cancel")
    }
}
