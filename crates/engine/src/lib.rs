//! From prompts to answers: many requests at once over a paged key/value cache.
//!
//! * [`Executor`] is what runs steps; [`Decoder`](bantam_model::Decoder) is one, whatever its device;
//! * [`SamplingParams`] and [`Sampler`] choose tokens from logits, with randomness that depends on
//!   (seed, position) alone ([`uniform`]);
//! * [`generate()`] answers one request that has the executor for itself, as text;
//! * [`Engine`] serves many requests, as tokens: it owns all state and moves it by
//!   [`step`](Engine::step);
//! * [`EngineHandle`] puts an engine on a thread of its own and is how servers reach it: a
//!   [`Request`] in, [`Event`]s out.
//!
//! # The rule
//! A request has a number of tokens and a number of computed tokens. Each step lets the second catch
//! up with the first, within the executor's token budget; a request that has caught up chooses its
//! next token. Prefill, chunks of it, decode, prefix hits and recomputation after a preemption are
//! the same, and so are several answers to one prompt: those that begin alike wait until one has
//! computed the blocks they share. Since an executor gives a row the same bits whatever else is in the batch, and a
//! sampler's randomness depends on seed and position alone, the tokens of a request do not depend on
//! any of this.
//!
//! # Where to look
//! | file | what it decides |
//! |---|---|
//! | `request` | what can be asked, and what is refused before it costs anything |
//! | `submission`, `constraint` | what goes with a request: limits on the form of its answer |
//! | `sequence` | one accepted request and its events |
//! | `blocks`, `prefix`, `cache` | who holds which block, and which blocks hold a known beginning |
//! | `scheduler`, `prefill_limit` | who computes how many tokens in the next step |
//! | `step` | schedule, run, commit; what happens when a step fails |
//! | `sampling`, `sampler`, `logprobs` | the next token |
//! | `events`, `handle` | how other threads talk to the engine |
//! | `answer`, `best_of`, `beam` | what is built on the handle: whole answers, the best of several, the most probable |
//! | `turns` | how engines share a device |
//! | `metrics`, `histogram` | what is counted and measured |

mod answer;
mod beam;
mod best_of;
mod blocks;
mod cache;
mod constraint;
mod error;
mod events;
mod executor;
mod generate;
mod generator;
mod handle;
mod histogram;
mod isolation;
mod logprobs;
mod metrics;
mod prefill_limit;
mod prefix;
mod request;
mod sampler;
mod sampling;
mod scheduler;
mod sequence;
mod step;
mod submission;
mod turns;

pub use answer::{Answer, AnswerError};
pub use beam::{Beam, BeamRequest, beam_search};
pub use best_of::best_of;
pub use blocks::BlockUsage;
pub use constraint::{ConstraintError, TokenConstraint, TokenMask};
pub use error::EngineError;
pub use events::{
    Closed, Event, EventReceiver, EventSender, EventSink, RequestFailure, Usage, event_channel,
};
pub use executor::{Executor, Limits};
pub use generate::{FinishReason, GenerateRequest, Generation, Timings, generate};
pub use generator::{sample_seed, uniform};
pub use handle::{EngineHandle, HandleOptions, Health, SpawnError, SubmitError};
pub use histogram::Histogram;
pub use logprobs::TokenLogprobs;
pub use metrics::{Metrics, StepSeconds};
pub use prefill_limit::PrefillLimit;
pub use request::Request;
pub use sampler::{Sampler, SamplingContext};
pub use sampling::{SamplingError, SamplingParams};
pub use step::{Engine, EngineDead, EngineOptions, StepReport};
pub use submission::Submission;
pub use turns::{Turn, Turns};
