//! How a server behaves under load, seen from a client.
//!
//! [`run()`] sends requests to a [`Target`], a model of any OpenAI-compatible server, as
//! [`Arrivals`] says: with fixed concurrency, in static batches or at a rate. [`Point`] sums its
//! [`Record`]s up, [`Comparison`] sets in-flight against static batching, and [`Report`] writes
//! tables and plots. [`soak()`] does not measure but proves: what must hold under clients of every
//! kind, well-behaved or not. [`hostile()`] attacks: what those who behave notice of it.
//!
//! What is measured, and how:
//!
//! * The clock is the client's. A request's time begins right before it is sent, opening a
//!   connection included if none is free, and ends with the stream's `[DONE]`.
//! * *Time to first token* ends with the first piece of text; the role that begins a chat's stream
//!   is none.
//! * *Inter-token latency* is the gap between two pieces of text of one answer: what a reader sees.
//!   A server may send several tokens in one piece, or hold a token back until its character is
//!   whole; [`Point::tokens_per_chunk`] tells. *Time per output token* is free of that: the time
//!   from the first piece to the last, over the tokens but one.
//! * Tokens are counted by the server (`usage`), and only those of complete answers.
//! * Static batching is the client's doing: it sends a batch and waits for all answers. The server
//!   sees no padding, so real static batching is slower still, and the ratio is a lower bound.

mod arrivals;
mod client;
mod error;
mod plots;
mod record;
mod report;
mod requests;
mod run;
mod soak;
mod sse;
mod summary;
mod target;

pub use arrivals::{Arrivals, Rate};
pub use client::{Answer, Client, Event, EventStream};
pub use error::{Failure, LoadError};
pub use plots::plots;
pub use record::{Answered, Record};
pub use report::Report;
pub use requests::{
    AnswerLength, LoadRequest, Message, Prompt, first_requests, parse_requests, synthetic_requests,
};
pub use run::{Run, RunOptions, run, warm_up};
pub use soak::{
    AttackReport, AttackVerdict, Check, HostileCheck, HostileOptions, HostileProgress,
    HostileReport, HostileVerdict, MemoryUse, Phase, PhaseReport, Resident, SoakOptions,
    SoakProgress, SoakReport, Verdict, Waits, hostile, soak,
};
pub use summary::{Comparison, Distribution, Latencies, Point, tokens_per_second_and_slot};
pub use target::{Endpoint, Target};
