//! What a model can do and what making it small has cost: perplexity, divergence and speed.
//!
//! * [`evaluate`] scores a text under several models side by side: [`Perplexity`] of each and
//!   [`Divergence`] from the first;
//! * [`Convention`] says how the text is cut and which tokens count, and is printed with the numbers;
//! * [`choice`] asks multiple-choice questions, MMLU among them, and says how sure the difference of
//!   two models is;
//! * [`bench()`] measures prefill and decode speed; [`Ceilings`] and [`ModelCost`] say how fast they
//!   could be on this machine;
//! * [`load`] measures servers: throughput and latencies under load;
//! * [`Table`] and [`Chart`] show all of it.

mod bench;
mod chart;
pub mod choice;
mod divergence;
mod error;
mod evaluate;
mod fingerprint;
pub mod load;
mod machine;
mod parallel;
mod perplexity;
mod report;
mod windows;

pub use bench::{BenchOptions, Speed, bench};
pub use chart::{Chart, Horizontal, Line};
pub use divergence::Divergence;
pub use error::EvalError;
pub use evaluate::{Baseline, Score, evaluate, tokens_to_run};
pub use fingerprint::Fingerprint;
pub use machine::{Ceilings, ModelCost, Work};
pub use perplexity::Perplexity;
pub use report::{Align, Table};
pub use windows::{Convention, DEFAULT_WINDOW, Window};

/// A text written for measuring: some 5,000 words of prose, dialogue, instructions, science, code
/// and letters, so that no single domain decides the number.
pub const EVAL_TEXT: &str = include_str!("../data/bantam-eval.txt");

/// A few everyday questions with choices (JSON Lines), for a first try. A smoke test and not a
/// benchmark: it is far too small and too easy to rank models.
pub const EVERYDAY_QUESTIONS: &str = include_str!("../data/everyday.jsonl");
