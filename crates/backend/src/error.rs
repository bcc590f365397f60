//! What can go wrong at the seam.

use bantam_numerics::{ActivationFormat, QuantScheme};

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
    /// The system has no memory for this, or a limit of this process forbids it.
    #[error(
        "{op}: the system gives no {} MiB; ask for less, or raise the memory limits of this process",
        bytes.div_ceil(1 << 20)
    )]
    OutOfMemory {
        /// The operation.
        op: &'static str,
        /// Bytes asked for.
        bytes: usize,
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

    /// Checks that a weight's format and its activations can meet.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] with the activations that can.
    pub fn check_scheme(scheme: QuantScheme, backend: &str) -> Result<(), Self> {
        let fitting = scheme.weight.activations();
        if fitting.contains(&scheme.activation) {
            return Ok(());
        }
        let fitting: Vec<String> = fitting.iter().map(ToString::to_string).collect();
        Err(Self::Unsupported {
            op: "weight",
            what: format!("a {} weight with {} activations", scheme.weight, scheme.activation),
            backend: backend.to_owned(),
            way_out: format!("use {} activations", fitting.join(" or ")),
        })
    }

    /// Checks that an operand holds what a weight was packed for.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if not.
    pub fn check_operand(
        format: ActivationFormat,
        scheme: QuantScheme,
        backend: &str,
    ) -> Result<(), Self> {
        if format == scheme.activation {
            return Ok(());
        }
        Err(Self::Unsupported {
            op: "linear",
            what: format!(
                "a {format} operand for a {} weight with {} activations",
                scheme.weight, scheme.activation
            ),
            backend: backend.to_owned(),
            way_out: format!("make the operand as {}", scheme.activation),
        })
    }

    /// Checks that rows of a format fit into an operand that was made for rows of another.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if they take more bytes.
    pub fn check_room(
        op: &'static str,
        format: ActivationFormat,
        made_for: ActivationFormat,
        backend: &str,
    ) -> Result<(), Self> {
        if format.element_bytes() <= made_for.element_bytes() {
            return Ok(());
        }
        Err(Self::Unsupported {
            op,
            what: format!("{format} rows in an operand that was made for {made_for}"),
            backend: backend.to_owned(),
            way_out: format!("make the operand for {format}"),
        })
    }
}
