//! What can be told about answers, as output tensors.

use bantam_engine::Usage;
use bantam_text::Tokenizer;
use serde_json::json;

use crate::answer::{AnswerToken, Part};
use crate::kserve::tensor::{Datatype, Elements};
use crate::openai::logprobs::{RankedLogprobs, finite, ranked};

/// An output tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    FinishReason,
    CumulativeLogprob,
    Logprobs,
    CumLogProbs,
    TokenLogProbs,
    NumInputTokens,
    NumOutputTokens,
}

/// What an output is called and holds.
pub(crate) struct OutputRow {
    pub(crate) output: Output,
    pub(crate) name: &'static str,
    pub(crate) datatype: Datatype,
    /// One dimension for the answers; the log probabilities of tokens have one more.
    pub(crate) shape: &'static [i64],
    /// What it tells, for the reference page.
    #[cfg_attr(not(test), expect(dead_code, reason = "the reference page is made by a test"))]
    pub(crate) description: &'static str,
}

const fn row(
    output: Output,
    name: &'static str,
    datatype: Datatype,
    shape: &'static [i64],
    description: &'static str,
) -> OutputRow {
    OutputRow { output, name, datatype, shape, description }
}

/// The outputs of Triton's vLLM back end, then those that only its TensorRT-LLM back end has.
pub(crate) const OUTPUTS: [OutputRow; 8] = [
    row(Output::Text, "text_output", Datatype::Bytes, &[-1], "The answers."),
    row(
        Output::FinishReason,
        "finish_reason",
        Datatype::Bytes,
        &[-1],
        "Why each answer ended: `stop` or `length`; empty in all chunks of a stream but the last.",
    ),
    row(
        Output::CumulativeLogprob,
        "cumulative_logprob",
        Datatype::Fp32,
        &[-1],
        "The natural logarithm of each answer's probability; of what came so far in a stream.",
    ),
    row(
        Output::Logprobs,
        "logprobs",
        Datatype::Bytes,
        &[-1],
        "For each answer a JSON list with an object for each token: token ids with `logprob`, `rank` \
         (null for a chosen token that is none of the most probable) and `decoded_token`.",
    ),
    row(
        Output::NumInputTokens,
        "num_input_tokens",
        Datatype::Uint32,
        &[-1],
        "Tokens of each answer's prompt.",
    ),
    row(
        Output::NumOutputTokens,
        "num_output_tokens",
        Datatype::Uint32,
        &[-1],
        "Tokens of each answer, one that ended it included; of each chunk in a stream.",
    ),
    row(Output::CumLogProbs, "cum_log_probs", Datatype::Fp32, &[-1], "As `cumulative_logprob`."),
    row(
        Output::TokenLogProbs,
        "output_log_probs",
        Datatype::Fp32,
        &[-1, -1],
        "The natural logarithm of each token's probability; shorter answers end in zeros.",
    ),
];

impl Output {
    /// Whether it tells how probable tokens were.
    pub(crate) fn needs_logprobs(self) -> bool {
        matches!(
            self,
            Self::CumulativeLogprob | Self::Logprobs | Self::CumLogProbs | Self::TokenLogProbs
        )
    }
}

/// A tensor to send.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutputTensor {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Elements,
}

/// What is known of an answer: all of it, or of a chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    text: String,
    tokens: Vec<AnswerToken>,
    finish_reason: &'static str,
    num_output_tokens: usize,
}

/// Adds up an answer while it is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    cumulative_logprob: f64,
    num_tokens: usize,
}

impl Told {
    /// An answer that begins with this text.
    pub(crate) fn beginning(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    /// Adds what a part tells.
    pub(crate) fn add(&mut self, part: Part, tally: &mut Tally) {
        match part {
            Part::Prompt(_) => {}
            Part::Text(part) => {
                self.text.push_str(&part.text);
                self.num_output_tokens += part.tokens.len();
                tally.num_tokens += part.tokens.len();
                tally.cumulative_logprob +=
                    part.tokens.iter().map(|token| f64::from(logprob(token))).sum::<f64>();
                self.tokens.extend(part.tokens);
            }
            Part::End(ending) => {
                self.finish_reason = ending.reason.name();
                tally.cumulative_logprob = ending.logprob;
                let Usage { generated_tokens, .. } = ending.usage;
                // A token that ends the answer has no text, and is counted here.
                self.num_output_tokens += generated_tokens.saturating_sub(tally.num_tokens);
            }
        }
    }

    fn logprobs(&self, tokenizer: &Tokenizer) -> String {
        let ranked =
            |token: &AnswerToken| Some(ranked(tokenizer, token.id, token.logprobs.as_ref()?));
        let tokens: Vec<RankedLogprobs> = self.tokens.iter().filter_map(ranked).collect();
        json!(tokens).to_string()
    }
}

fn logprob(token: &AnswerToken) -> f32 {
    token.logprobs.as_ref().map_or(0.0, |logprobs| finite(logprobs.chosen))
}

/// The answers of a request, or the next chunks of them.
pub(crate) struct Telling<'a> {
    pub(crate) told: &'a [Told],
    pub(crate) tallies: &'a [Tally],
    /// Tokens of each answer's prompt.
    pub(crate) num_input_tokens: &'a [usize],
    pub(crate) tokenizer: &'a Tokenizer,
}

impl Telling<'_> {
    /// An output; `shape` is how the answers lie.
    pub(crate) fn tensor(&self, row: &OutputRow, shape: &[usize]) -> OutputTensor {
        let mut shape = shape.to_vec();
        let told = self.told.iter();
        let counts = |counts: Vec<usize>| {
            // Bounded by the context.
            Elements::Counts(counts.into_iter().map(|count| count as u32).collect())
        };
        let elements = match row.output {
            Output::Text => Elements::Texts(told.map(|told| told.text.clone()).collect()),
            Output::FinishReason => {
                Elements::Texts(told.map(|told| told.finish_reason.to_owned()).collect())
            }
            Output::CumulativeLogprob | Output::CumLogProbs => {
                let sums = self.tallies.iter().map(|tally| tally.cumulative_logprob as f32);
                Elements::Floats(sums.collect())
            }
            Output::Logprobs => {
                Elements::Texts(told.map(|told| told.logprobs(self.tokenizer)).collect())
            }
            Output::TokenLogProbs => {
                let longest = told.clone().map(|told| told.tokens.len()).max().unwrap_or(0);
                shape.push(longest);
                let padded = told.flat_map(|told| {
                    let zeros = std::iter::repeat(0.0);
                    told.tokens.iter().map(logprob).chain(zeros).take(longest)
                });
                Elements::Floats(padded.collect())
            }
            Output::NumInputTokens => counts(self.num_input_tokens.to_vec()),
            Output::NumOutputTokens => counts(told.map(|told| told.num_output_tokens).collect()),
        };
        OutputTensor { name: row.name, shape, elements }
    }
}
