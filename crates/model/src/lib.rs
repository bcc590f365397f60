//! Networks as data, and the one decoder that runs them all.
//!
//! [`ArchSpec`] describes a decoder-only transformer; a file in `families/` makes one from the
//! `config.json` of a model type. [`MemoryPlan`] says what it will take in bytes. [`Decoder`] loads a
//! checkpoint onto any [`Backend`](bantam_backend::Backend) and runs ragged batches; [`BlockRunner`]
//! runs one layer of it at a time.
//!
//! Where to change what: a new model type is a file in `families/` (see
//! `docs/adding-a-model-family.md`); a new part of a network is a field of [`ArchSpec`], its loading
//! in `stored` and `load`, and its line in `decoder`.

mod arch;
mod batch;
mod block;
mod decoder;
mod describe;
mod error;
mod families;
mod head;
mod kv_scales;
mod load;
mod names;
mod options;
mod plan;
mod precision;
mod quantized;
mod rope;
mod stored;
mod unread;

pub use arch::{
    ArchSpec, AttentionSpec, FeedForwardSpec, HeadSpec, NormSpec, Positions, Residual, Rotary,
    Sizes,
};
pub use block::{Block, BlockLinear, BlockRunner, BlockWeights, NormWeights, Tap};
pub use decoder::Decoder;
pub use error::ModelError;
pub use families::supported_model_types;
pub use head::Head;
pub use load::LoadProgress;
pub use names::{ConfigKeys, QkvNames, TensorNames};
pub use options::{CacheSize, LoadOptions, OptionNames};
pub use plan::{MemoryPlan, SchemeShare};
pub use precision::{LinearRole, Precision, UnknownPrecision, stored_bytes};
pub use rope::{LongRope, RopeScaling, Yarn};
pub use stored::{NeededTensor, StoredLinear, StoredPart};
pub use unread::IgnoredTensors;
