//! From a checked request to its answers: drawn, the best of several, or searched.

use std::sync::Arc;

use bantam_engine::{AnswerError, Beam, BeamRequest, Request, Usage as EngineUsage, beam_search};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt};

use crate::ServedModel;
use crate::answer::{Answer, Answers, CompleteAnswer, Ending, answers};
use crate::error::ApiError;
use crate::request::asked::Asked;
use crate::request::usage::Usage;

use crate::record::Record;
use crate::served_model::stop_tokens;

/// The answers to prompts, `n` to each in a row, and what is known of the usage so far.
pub(crate) async fn ask(
    model: &ServedModel,
    asked: &Asked,
    prompts: Vec<Vec<u32>>,
    record: &Arc<Record>,
) -> Result<(Answers, Usage), ApiError> {
    let limits = model.engine().limits();
    let mut usage = Usage::of_prompts(prompts.iter().map(Vec::len).sum());
    usage.shortened =
        prompts.iter().filter_map(|prompt| asked.shortened(prompt.len(), limits)).min();
    record.asked(model.name(), usage.prompt_tokens);
    model.note_asked();
    asked.user.iter().for_each(|user| record.user(user));
    if let Some(length_penalty) = asked.beam_search {
        let searches = prompts.into_iter().map(|prompt| {
            let request = beam_request(asked, asked.request_of(prompt, limits), length_penalty);
            search(model, asked, request, record)
        });
        return Ok((replay(try_join_all(searches).await?.concat()), usage));
    }
    let ranked = asked.best_of > asked.n;
    let submissions = prompts.into_iter().flat_map(|prompt| asked.submissions(prompt, limits));
    let submissions = submissions.map(|mut submission| {
        if ranked {
            submission.request.logprobs.get_or_insert(0);
        }
        submission
    });
    let all = model.ask(submissions.collect(), &asked.options, record)?;
    if !ranked {
        return Ok((answers(all), usage));
    }
    let all = try_join_all(all.into_iter().map(Answer::complete)).await?;
    let mut best = Vec::new();
    for made in all.chunks(asked.best_of) {
        let mut made = made.to_vec();
        made.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
        let discarded = made.split_off(asked.n);
        discarded.iter().for_each(|answer| usage.discard(answer));
        best.extend(made);
    }
    Ok((replay(best), usage))
}

/// Answers that are complete already.
fn replay(all: Vec<CompleteAnswer>) -> Answers {
    let parts = all
        .into_iter()
        .enumerate()
        .flat_map(|(index, answer)| answer.into_parts().map(move |part| (index, Ok(part))));
    stream::iter(parts.collect::<Vec<_>>()).boxed()
}

fn beam_request(asked: &Asked, request: Request, length_penalty: f64) -> BeamRequest {
    let stop_tokens = stop_tokens(&request);
    let Request { prompt, max_tokens, priority, deadline, salt, .. } = request;
    BeamRequest {
        max_tokens,
        stop_tokens,
        length_penalty,
        priority,
        deadline,
        salt,
        ..BeamRequest::new(prompt, asked.best_of)
    }
}

/// The best answers of a beam search.
async fn search(
    model: &ServedModel,
    asked: &Asked,
    request: BeamRequest,
    record: &Arc<Record>,
) -> Result<Vec<CompleteAnswer>, ApiError> {
    let beams = beam_search(model.engine(), &request).await.map_err(|error| match error {
        AnswerError::Submit(error) => ApiError::from(error),
        AnswerError::Failed(failure) => failure.into(),
    })?;
    let complete = beams.into_iter().take(asked.n).map(|beam| {
        let Beam { tokens, logprob, finish_reason: reason, .. } = beam;
        record.generated(tokens.len());
        record.finished(reason);
        let usage = EngineUsage {
            prompt_tokens: request.prompt.len(),
            cached_tokens: 0,
            generated_tokens: tokens.len(),
        };
        let ending = Ending { reason, stopped_by: None, usage, logprob };
        let tokenizer = Arc::clone(model.tokenizer());
        let options = asked.options.clone();
        CompleteAnswer::of_tokens(&tokens, tokenizer, &request.stop_tokens, options, ending)
    });
    Ok(complete.collect())
}
