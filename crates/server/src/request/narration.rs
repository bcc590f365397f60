//! One answer told to one client: all at once, or event by event.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bantam_engine::RequestFailure;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use crate::answer::{Answers, Ending, Part};
use crate::error::ApiError;
use crate::record::Record;
use crate::request::speech::{Said, Speech};
use crate::request::sse::{self, NamedEvent};
use crate::request::usage::Usage;

/// How a protocol tells an answer. The events of a stream and the whole response come from the same
/// calls, so both say the same.
pub(crate) trait Narrator: Send + 'static {
    /// What a stream says.
    type Event: NamedEvent + Send + 'static;
    /// What a response that is not a stream says.
    type Whole: Serialize;

    /// What stands before the first token.
    fn begin(&mut self) -> Vec<Self::Event>;

    /// The answer says something.
    fn say(&mut self, said: Said) -> Vec<Self::Event>;

    /// The answer is over: how, and whether it ended with a call of a tool. What was open has been
    /// closed by [`say`](Self::say), after [`closing`](Self::closing).
    fn end(&mut self, ending: &Ending, calls: usize, usage: Usage) -> Vec<Self::Event>;

    /// The answer will say no more than what closes it.
    fn closing(&mut self, ending: &Ending);

    /// The answer failed while it was sent.
    fn fail(&mut self, error: &ApiError) -> Vec<Self::Event>;

    /// All of it.
    fn whole(self) -> Self::Whole;
}

/// An answer on its way to its client.
pub(crate) struct Narration<N> {
    narrator: N,
    speech: Speech,
    answers: Answers,
    usage: Usage,
    record: Arc<Record>,
}

impl<N: Narrator> Narration<N> {
    /// Tells the one answer among `answers`.
    pub(crate) const fn new(
        narrator: N,
        speech: Speech,
        answers: Answers,
        usage: Usage,
        record: Arc<Record>,
    ) -> Self {
        Self { narrator, speech, answers, usage, record }
    }

    /// Answers, in the way that was asked for.
    pub(crate) async fn send(self, stream: bool) -> Result<Response, ApiError> {
        if stream { Ok(self.stream()) } else { self.whole().await }
    }

    /// What the next part of the answer says; none after its end.
    async fn next(&mut self) -> Option<Result<Vec<N::Event>, RequestFailure>> {
        let (_, part) = self.answers.next().await?;
        Some(part.map(|part| self.take(part)))
    }

    fn take(&mut self, part: Part) -> Vec<N::Event> {
        match part {
            Part::Prompt(_) => Vec::new(),
            Part::Text(text) => {
                let said = self.speech.push(text);
                self.say(said)
            }
            Part::End(ending) => {
                self.usage.add(&ending.usage, true);
                self.narrator.closing(&ending);
                let said = self.speech.finish(ending.is_cut_off());
                let mut events = self.say(said);
                events.extend(self.narrator.end(&ending, self.speech.calls(), self.usage));
                events
            }
        }
    }

    fn say(&mut self, said: Vec<Said>) -> Vec<N::Event> {
        said.into_iter().flat_map(|said| self.narrator.say(said)).collect()
    }

    async fn whole(mut self) -> Result<Response, ApiError> {
        self.narrator.begin();
        while let Some(next) = self.next().await {
            next?;
        }
        Ok(Json(self.narrator.whole()).into_response())
    }

    fn stream(mut self) -> Response {
        let record = Arc::clone(&self.record);
        let first = self.narrator.begin();
        let rest = stream::unfold(Some(self), |narration| async move {
            let mut narration = narration?;
            match narration.next().await? {
                Ok(events) => Some((events, Some(narration))),
                Err(failure) => {
                    let error = ApiError::from(failure);
                    narration.record.failed(&error.message);
                    Some((narration.narrator.fail(&error), None))
                }
            }
        });
        let events = stream::iter([first]).chain(rest);
        sse::named(events.flat_map(stream::iter).boxed(), record)
    }
}
