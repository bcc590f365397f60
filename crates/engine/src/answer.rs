//! A whole answer, for readers who do not stream.

use crate::{
    Event, EventReceiver, FinishReason, RequestFailure, SubmitError, TokenLogprobs, Usage,
};

/// All that was told about a request that finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Tokens chosen, a stop token included.
    pub tokens: Vec<u32>,
    /// How probable each was, if the request asked.
    pub logprobs: Vec<TokenLogprobs>,
    /// How probable each token of the prompt from the second on was, if the request asked.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

impl Answer {
    /// Mean ln p of the tokens; negative infinity if there is none, or if the request did not ask
    /// for `logprobs`.
    #[must_use]
    pub fn mean_logprob(&self) -> f64 {
        let sum: f64 = self.logprobs.iter().map(|logprobs| f64::from(logprobs.chosen)).sum();
        if self.logprobs.is_empty() { f64::NEG_INFINITY } else { sum / self.logprobs.len() as f64 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The request was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] RequestFailure),
}

impl EventReceiver {
    /// Awaits the whole answer. Dropping the future cancels the request.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn answer(mut self) -> Result<Answer, RequestFailure> {
        let (mut tokens, mut chosen, mut prompt_logprobs) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(event) = self.next_event().await {
            match event {
                Event::Started { .. } => {}
                Event::PromptLogprobs(scores) => prompt_logprobs.extend(scores),
                Event::Token { token, logprobs } => {
                    tokens.push(token);
                    chosen.extend(logprobs);
                }
                Event::Finished { reason: finish_reason, usage } => {
                    let logprobs = chosen;
                    return Ok(Answer { tokens, logprobs, prompt_logprobs, finish_reason, usage });
                }
                Event::Failed(failure) => return Err(failure),
            }
        }
        // The sender is gone without a last event: so is the engine.
        Err(RequestFailure::Stopped)
    }
}
