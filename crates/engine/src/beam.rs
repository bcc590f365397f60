//! Beam search: the most probable answers, instead of drawn ones.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::{
    AnswerError, EngineError, EngineHandle, FinishReason, Limits, Request, RequestFailure,
    SamplingError, SamplingParams, SubmitError,
};

/// What to search, and how widely.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamRequest {
    /// Tokens to continue.
    pub prompt: Vec<u32>,
    /// Answers followed at once, and returned at most.
    pub width: usize,
    /// Tokens of an answer at most, its end included; none for as many as context and cache hold.
    pub max_tokens: Option<usize>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// An answer's log-probability is divided by its number of tokens to this power, -10 to 10: 0
    /// compares probabilities, 1 their means over the tokens; more favours long answers.
    pub length_penalty: f64,
    /// Requests with a lower number go first.
    pub priority: i32,
    /// Time after which the search fails; none for no limit.
    pub deadline: Option<Duration>,
    /// The cache of equal beginnings is shared with requests that have the same salt.
    pub salt: u64,
}

/// One answer of a beam search.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// Tokens, a stop token included.
    pub tokens: Vec<u32>,
    /// ln p of all tokens together.
    pub logprob: f64,
    /// `logprob` divided by the length to the power of the length penalty: what answers are ordered
    /// by.
    pub score: f64,
    /// Why it ended: a stop token or the length.
    pub finish_reason: FinishReason,
}

impl BeamRequest {
    /// A search of this width with penalty 1 and no limit but the context.
    #[must_use]
    pub fn new(prompt: Vec<u32>, width: usize) -> Self {
        Self {
            prompt,
            width,
            max_tokens: None,
            stop_tokens: Vec::new(),
            length_penalty: 1.0,
            priority: 0,
            deadline: None,
            salt: 0,
        }
    }

    /// Checks everything that can be known before the search.
    ///
    /// # Errors
    /// Names the first field that cannot be honoured, and a value that can.
    pub fn validate(&self, limits: &Limits) -> Result<(), EngineError> {
        let refuse = |name, got, expected| {
            Err(EngineError::Sampling(SamplingError::Parameter { name, got, expected }))
        };
        if self.width == 0 {
            return refuse("width", 0.0, "1 or more; 4 is a common choice");
        }
        if !(-10.0..=10.0).contains(&self.length_penalty) {
            let expected = "-10 to 10; 1 compares means over the tokens";
            return refuse("length_penalty", self.length_penalty as f32, expected);
        }
        let whole = Request {
            max_tokens: self.max_tokens,
            stop_tokens: self.stop_tokens.clone(),
            ..Request::new(self.prompt.clone())
        };
        whole.validate(limits)
    }
}

/// The `width` best answers that a beam search finds, the best first.
///
/// Every step continues each of the `width` most probable unfinished answers by each of its most
/// probable tokens, and keeps the best of all. What ends in a stop token is finished if it is among
/// the `width` best of its step. The search is over at `max_tokens`, or when `width` answers are
/// finished and the score of the best unfinished one, at its present length, is no better than that
/// of the worst finished one. These are the rules of `transformers` with `early_stopping=False`;
/// width 1 is greedy decoding.
///
/// A client of the engine like others: a step is one request of one token for each answer. The
/// prefix cache makes these exact and cheap, since each recomputes less than a block beside its own
/// token; where prefixes are not shared, each recomputes everything. Dropping the future cancels the
/// search.
///
/// ```no_run
/// # async fn example(handle: bantam_engine::EngineHandle) -> Result<(), bantam_engine::AnswerError> {
/// use bantam_engine::{BeamRequest, beam_search};
/// let request = BeamRequest { max_tokens: Some(20), ..BeamRequest::new(vec![504, 3575], 4) };
/// let best = &beam_search(&handle, &request).await?[0];
/// println!("{:?} has ln p {}", best.tokens, best.logprob);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the search is not accepted, or one of its requests fails.
pub async fn beam_search(
    handle: &EngineHandle,
    request: &BeamRequest,
) -> Result<Vec<Beam>, AnswerError> {
    let search = Search::new(handle, request)?;
    let mut running = vec![Hypothesis::default()];
    let mut finished: Vec<Beam> = Vec::new();
    for length in 1..=search.max_tokens {
        let continuations = search.continuations(&running).await?;
        running.clear();
        for (rank, continuation) in continuations.into_iter().enumerate() {
            match search.finish_reason(&continuation) {
                None if running.len() < request.width => running.push(continuation),
                Some(reason) if rank < request.width => {
                    finished.push(continuation.finish(reason, request.length_penalty));
                }
                None | Some(_) => {}
            }
        }
        finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        finished.truncate(request.width);
        let Some(best) = running.first() else { break };
        let score = normalised(best.logprob, length, request.length_penalty);
        if finished.len() == request.width && finished.iter().all(|beam| beam.score >= score) {
            break;
        }
    }
    Ok(finished)
}

fn normalised(logprob: f64, length: usize, length_penalty: f64) -> f64 {
    logprob / (length as f64).powf(length_penalty)
}

/// The beginning of an answer.
#[derive(Clone, Debug, Default)]
struct Hypothesis {
    tokens: Vec<u32>,
    logprob: f64,
}

impl Hypothesis {
    fn finish(self, finish_reason: FinishReason, length_penalty: f64) -> Beam {
        let Self { tokens, logprob } = self;
        let score = normalised(logprob, tokens.len(), length_penalty);
        Beam { tokens, logprob, score, finish_reason }
    }
}

/// A hypothesis and one token more.
struct Continuation<'h> {
    of: &'h Hypothesis,
    token: u32,
    logprob: f64,
}

impl Continuation<'_> {
    fn hypothesis(self) -> Hypothesis {
        let tokens = [&self.of.tokens[..], &[self.token]].concat();
        Hypothesis { tokens, logprob: self.logprob }
    }
}

/// What stays the same during a search.
struct Search<'a> {
    handle: &'a EngineHandle,
    request: &'a BeamRequest,
    begun: Instant,
    max_tokens: usize,
    stop_tokens: BTreeSet<u32>,
    /// Continuations looked at of each hypothesis: so many that `width` of them do not stop, if there
    /// are, and all that stop before them. No more of one hypothesis can be among those kept.
    num_continuations: usize,
}

impl<'a> Search<'a> {
    fn new(handle: &'a EngineHandle, request: &'a BeamRequest) -> Result<Self, SubmitError> {
        request.validate(handle.limits())?;
        let (width, limit) = (request.width, handle.options().max_waiting);
        if width > limit {
            return Err(SubmitError::TooMany { asked: width, limit });
        }
        let limits = handle.limits();
        let max_tokens = request.max_tokens.unwrap_or(limits.room(request.prompt.len()));
        let stop_tokens: BTreeSet<u32> = request.stop_tokens.iter().copied().collect();
        let num_continuations = (width + stop_tokens.len()).min(limits.vocab_size);
        Ok(Self {
            handle,
            request,
            begun: Instant::now(),
            max_tokens,
            stop_tokens,
            num_continuations,
        })
    }

    /// The most probable continuations of all hypotheses by one token, the most probable first.
    async fn continuations(&self, running: &[Hypothesis]) -> Result<Vec<Hypothesis>, AnswerError> {
        let requests = running.iter().map(|hypothesis| self.next_token(hypothesis));
        let receivers = match running {
            // The search takes a place in the queue once; having begun, it is not sent away.
            [start] if start.tokens.is_empty() => self.handle.submit_all(requests)?,
            _ => self.handle.submit_next(requests)?,
        };
        let mut continuations = Vec::new();
        for (hypothesis, receiver) in running.iter().zip(receivers) {
            let answer = receiver.answer().await;
            let answer = answer.map_err(|failure| self.of_the_whole(failure, hypothesis))?;
            let top = answer.logprobs.into_iter().flat_map(|logprobs| logprobs.top);
            continuations.extend(top.map(|(token, logprob)| Continuation {
                of: hypothesis,
                token,
                logprob: hypothesis.logprob + f64::from(logprob),
            }));
        }
        // Equal ones stay in order of hypothesis and token.
        continuations.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
        // Those of the best `width` that stop, and the best `width` that go on: only they are copied.
        let (mut rank, mut going_on) = (0, 0);
        continuations.retain(|continuation| {
            let stops = self.stop_tokens.contains(&continuation.token);
            let kept =
                if stops { rank < self.request.width } else { going_on < self.request.width };
            rank += 1;
            going_on += usize::from(!stops);
            kept
        });
        Ok(continuations.into_iter().map(Continuation::hypothesis).collect())
    }

    /// Asks for the most probable tokens after a hypothesis.
    fn next_token(&self, hypothesis: &Hypothesis) -> Request {
        let BeamRequest { prompt, priority, deadline, salt, .. } = self.request;
        Request {
            sampling: SamplingParams::greedy(),
            max_tokens: Some(1),
            logprobs: Some(self.num_continuations),
            priority: *priority,
            deadline: deadline.map(|limit| limit.saturating_sub(self.begun.elapsed())),
            salt: *salt,
            ..Request::new([&prompt[..], &hypothesis.tokens].concat())
        }
    }

    /// A request for one token knows only what was left of the deadline.
    fn of_the_whole(&self, failure: RequestFailure, hypothesis: &Hypothesis) -> RequestFailure {
        match (failure, self.request.deadline) {
            (RequestFailure::Deadline { .. }, Some(limit)) => {
                RequestFailure::Deadline { limit, generated: hypothesis.tokens.len() }
            }
            (failure, _) => failure,
        }
    }

    fn finish_reason(&self, hypothesis: &Hypothesis) -> Option<FinishReason> {
        let last = hypothesis.tokens.last();
        if last.is_some_and(|token| self.stop_tokens.contains(token)) {
            return Some(FinishReason::Stop);
        }
        (hypothesis.tokens.len() == self.max_tokens).then_some(FinishReason::Length)
    }
}
