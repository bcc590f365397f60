//! How numbers are stored, and what the arithmetic on them means.
//!
//! This is the bottom of the house: no files, no devices, no threads. It holds
//!
//! * the scalar types ([`DType`]) and the block formats of GGML ([`BlockType`]), joined in
//!   [`Encoding`];
//! * [`QuantScheme`], how a linear layer is stored, and [`PackedWeight`], one that is;
//! * [`ActivationFormat`], how it reads its input, and [`ActivationRow`], a row that it reads;
//! * [`Softmax`], what predictions are scored and compared by;
//! * [`mod@reference`], the slow and obvious arithmetic that every kernel is held against.
//!
//! # Letters
//!
//! Shape comments in the whole workspace use: T tokens of the step, C hidden size, F feed-forward
//! size, V vocabulary, H query heads, G key/value heads, D head dimension, N output and K input
//! features of a linear layer, g quantization group, L layers, B blocks of the cache, S tokens that
//! a block holds.

pub mod activation;
pub mod block;
pub mod dtype;
pub mod encoding;
pub mod float8;
pub mod kv;
pub mod quantize;
pub mod reference;
pub mod scheme;
pub mod softmax;
pub mod weight;

pub use activation::{ActivationFormat, ActivationRow};
pub use block::BlockType;
pub use dtype::DType;
pub use encoding::{DecodeError, Encoding};
pub use kv::{KvFormat, KvRanges, UnknownKvFormat};
pub use quantize::{QuantizeError, quantize};
pub use scheme::{Group, QuantScheme, ScaleBlock, WeightFormat};
pub use softmax::Softmax;
pub use weight::{GroupAffine, PackedWeight, WeightData};
