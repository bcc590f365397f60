//! From a prompt to an answer: sampling and generation over a paged key/value cache.
//!
//! * [`Executor`] is what runs steps; [`Decoder`](bantam_model::Decoder) is one, whatever its device;
//! * [`SamplingParams`] and [`Sampler`] choose tokens from logits, with randomness that depends on
//!   (seed, position) alone ([`uniform`]);
//! * [`generate`] answers one request.
//!
//! One sequence owns the whole cache so far: its block table is `0, 1, 2, …`. Serving many requests
//! at once comes as a module `scheduler` beside `generate`, on the same rule that the loop of
//! [`generate`] follows already: a request has a number of tokens and a number of computed tokens,
//! and each step lets the second catch up with the first within a token budget. The block pool and
//! the prefix cache will then hand out block tables; the executor, the sampler and the text side
//! stay as they are.

mod error;
mod executor;
mod generate;
mod generator;
mod sampling;

pub use error::EngineError;
pub use executor::{Executor, Limits};
pub use generate::{FinishReason, GenerateRequest, Generation, Timings, generate};
pub use generator::uniform;
pub use sampling::{Sampler, SamplingError, SamplingParams};
