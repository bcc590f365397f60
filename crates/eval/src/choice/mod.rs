//! Multiple-choice tasks: MMLU and any set of questions with choices.
//!
//! From a file to a number, one file a stage:
//!
//! | file | what it does |
//! |---|---|
//! | `item`, `jsonl`, `mmlu` | reads questions, and the examples that are shown before them |
//! | `form` | writes the prompt, as lm-eval or NVIDIA's script would |
//! | `encode` | turns it into token sequences with rows to score, cut to the context |
//! | `steps` | packs sequences into steps; what they share is computed once |
//! | `run`, `pass` | runs models over the steps, side by side |
//! | `outcome`, `results` | what came out for an item, and the file that keeps it |
//! | `tally`, `paired` | accuracy with its error, and what changed from a baseline |

mod encode;
mod form;
mod item;
mod jsonl;
mod mmlu;
mod outcome;
mod paired;
mod pass;
mod results;
mod run;
mod steps;
mod tally;

pub use encode::{Encoder, Question};
pub use form::{Form, Prompt};
pub use item::{Item, ItemSet, MAX_CHOICES, MAX_SHOTS, Stem};
pub use outcome::{Answer, Outcome};
pub use paired::{Paired, loss_percent};
pub use results::{ResultsFile, ResultsHeader};
pub use run::{Answered, ChoiceRun, RunStep};
pub use tally::{Accuracy, Tally};
