//! The best of several answers to one prompt.

use crate::{Answer, AnswerError, EngineHandle, Submission};

/// The `keep` answers of the highest mean token log-probability, the best first; equal ones in the
/// order of submission.
///
/// The mean, not the sum, so that an answer is not better for being short: the rule of OpenAI's
/// `best_of`. Every answer carries its `logprobs`, whether its request asked for them or not; the
/// [`usage`](Answer::usage) of those that are not kept is not reported. Dropping the future cancels
/// all.
///
/// ```no_run
/// # async fn example(handle: bantam_engine::EngineHandle) -> Result<(), bantam_engine::AnswerError> {
/// use bantam_engine::{Request, best_of};
/// let request = Request { max_tokens: Some(20), ..Request::new(vec![504, 3575, 282]) };
/// let best_two = best_of(&handle, request.samples(5), 2).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the requests are not accepted, or one of them fails.
pub async fn best_of(
    handle: &EngineHandle,
    submissions: impl IntoIterator<Item = impl Into<Submission>>,
    keep: usize,
) -> Result<Vec<Answer>, AnswerError> {
    let with_logprobs = submissions.into_iter().map(|submission| {
        let mut submission = submission.into();
        submission.request.logprobs.get_or_insert(0);
        submission
    });
    let receivers = handle.submit_all(with_logprobs)?;
    let mut answers = Vec::with_capacity(receivers.len());
    // They all run at once; only reading takes turns.
    for receiver in receivers {
        answers.push(receiver.answer().await?);
    }
    answers.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
    answers.truncate(keep);
    Ok(answers)
}
