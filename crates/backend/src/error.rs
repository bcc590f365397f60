//! What can go wrong at the seam.

/// Why a back end refused an operation.
///
/// These are faults of the caller's shapes or of the device, never of a user's prompt: requests are
/// validated before they reach a back end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Two shapes that must agree do not.
    #[error("{op}: {what} is {got}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The quantity that disagrees.
        what: &'static str,
        /// What was given.
        got: usize,
        /// What was needed.
        expected: usize,
    },
    /// More rows than the tensor was made for.
    #[error("{op}: {got} rows, but the tensor holds {capacity}; plan for larger steps")]
    Capacity {
        /// The operation.
        op: &'static str,
        /// Rows needed.
        got: usize,
        /// Rows there are.
        capacity: usize,
    },
    /// Two sequences write into one block of the cache.
    #[error("{op}: two spans write block {block}; give each sequence blocks of its own")]
    SharedBlock {
        /// The operation.
        op: &'static str,
        /// The block.
        block: u32,
    },
    /// The device cannot do this.
    #[error("{op}: {what} is not supported by {backend}; {way_out}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What was asked for.
        what: String,
        /// The back end's name.
        backend: String,
        /// What would work.
        way_out: String,
    },
}

impl BackendError {
    /// Checks that `got` is `expected`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] if it is not.
    pub fn check_shape(
        op: &'static str,
        what: &'static str,
        got: usize,
        expected: usize,
    ) -> Result<(), Self> {
        if got == expected { Ok(()) } else { Err(Self::Shape { op, what, got, expected }) }
    }

    /// Checks that `got` rows fit into `capacity`.
    ///
    /// # Errors
    /// [`BackendError::Capacity`] if they do not.
    pub fn check_capacity(op: &'static str, got: usize, capacity: usize) -> Result<(), Self> {
        if got <= capacity { Ok(()) } else { Err(Self::Capacity { op, got, capacity }) }
    }
}
