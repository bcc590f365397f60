//! The seam between models and devices.
//!
//! A model speaks to hardware through [`Backend`]: a dozen coarse operations on tensors that the
//! device owns, over a ragged [`Batch`] and a paged key/value cache. [`mod@reference`] implements it
//! with the obvious arithmetic of `bantam-numerics`; `conformance` (a feature) is the property test
//! that holds every other back end against it.

mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod input;
mod ops;
pub mod reference;

pub use bantam_numerics::{KvFormat, KvRanges};
pub use batch::{Batch, BatchError, Span};
pub use error::BackendError;
pub use input::{LinearInput, QuantizedLinear};
pub use ops::{
    AttentionPrecision, AttentionShape, Backend, FeedForward, HeadNorm, KvLayout, Norm, NormKind,
    Rope, Store,
};
