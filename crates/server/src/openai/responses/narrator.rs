//! Tells an answer as a response.

use std::time::{SystemTime, UNIX_EPOCH};

use bantam_engine::FinishReason;

use crate::answer::{Ending, TextPart};
use crate::error::ApiError;
use crate::openai::logprobs::{ChatLogprob, ChatLogprobs, TokenNames};
use crate::openai::responses::events::{Event, ResponseEvent};
use crate::openai::responses::object::{
    Failure, IncompleteDetails, OutputItem, OutputText, ResponseObject, Status,
};
use crate::openai::responses::store::Keeping;
use crate::request::narration::Narrator;
use crate::request::speech::Said;
use crate::request::tools::call_id;
use crate::request::usage::Usage;
use crate::request_id::hexadecimal;

/// The response while it grows.
pub(crate) struct ResponseNarrator {
    response: ResponseObject,
    names: TokenNames,
    /// Log-probabilities are shown.
    logprobs: bool,
    /// Where the response is kept at its end.
    keeping: Option<Keeping>,
    /// What becomes of an item that ends now.
    item_status: Status,
    /// The number of the next event.
    sequence_number: usize,
}

/// The first and only part of a message.
const PART: usize = 0;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl ResponseNarrator {
    /// A response of which nothing has been said.
    pub(crate) const fn new(
        response: ResponseObject,
        names: TokenNames,
        logprobs: bool,
        keeping: Option<Keeping>,
    ) -> Self {
        let item_status = Status::Completed;
        Self { response, names, logprobs, keeping, item_status, sequence_number: 0 }
    }

    fn event(&mut self, event: Event) -> ResponseEvent {
        let sequence_number = self.sequence_number;
        self.sequence_number += 1;
        ResponseEvent { sequence_number, event }
    }

    fn events(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<ResponseEvent> {
        events.into_iter().map(|event| self.event(event)).collect()
    }

    /// The response as it is now.
    fn snapshot(&self) -> Box<ResponseObject> {
        Box::new(self.response.clone())
    }

    /// Adds an item and says so.
    fn add(&mut self, item: OutputItem) -> Event {
        let event =
            Event::ItemAdded { output_index: self.response.output.len(), item: item.clone() };
        self.response.output.push(item);
        event
    }

    fn begin_text(&mut self) -> Vec<Event> {
        let id = format!("msg_{}", hexadecimal());
        let (status, role, content) = (Status::InProgress, "assistant", Vec::new());
        let added = self.add(OutputItem::Message { id: id.clone(), status, role, content });
        let part = OutputText::new();
        let output_index = self.response.output.len() - 1;
        if let Some(OutputItem::Message { content, .. }) = self.response.output.last_mut() {
            content.push(part.clone());
        }
        vec![added, Event::PartAdded { item_id: id, output_index, content_index: PART, part }]
    }

    fn begin_call(&mut self, name: String) -> Vec<Event> {
        let (id, call_id) = (format!("fc_{}", hexadecimal()), call_id());
        let (status, arguments) = (Status::InProgress, String::new());
        vec![self.add(OutputItem::FunctionCall { id, status, call_id, name, arguments })]
    }

    fn logprobs(&self, part: &TextPart) -> Vec<ChatLogprob> {
        let shown = self.logprobs.then(|| ChatLogprobs::new(&self.names, &part.tokens));
        shown.map(|shown| shown.content).unwrap_or_default()
    }

    /// The number of the last item.
    fn last(&self) -> usize {
        self.response.output.len().saturating_sub(1)
    }

    fn text(&mut self, part: TextPart) -> Vec<Event> {
        let (output_index, logprobs) = (self.last(), self.logprobs(&part));
        let Some(OutputItem::Message { id, content, .. }) = self.response.output.last_mut() else {
            return Vec::new();
        };
        if let Some(whole) = content.last_mut() {
            whole.text.push_str(&part.text);
            whole.logprobs.extend(logprobs.iter().cloned());
        }
        let (item_id, content_index, delta) = (id.clone(), PART, part.text);
        vec![Event::TextDelta { item_id, output_index, content_index, delta, logprobs }]
    }

    fn arguments(&mut self, delta: String) -> Vec<Event> {
        let output_index = self.last();
        let Some(OutputItem::FunctionCall { id, arguments, .. }) = self.response.output.last_mut()
        else {
            return Vec::new();
        };
        arguments.push_str(&delta);
        vec![Event::ArgumentsDelta { item_id: id.clone(), output_index, delta }]
    }

    /// The last item ends.
    fn end_item(&mut self) -> Vec<Event> {
        let (output_index, ended) = (self.last(), self.item_status);
        let Some(item) = self.response.output.last_mut() else { return Vec::new() };
        let mut events = match item {
            OutputItem::Message { id, status, content, .. } => {
                *status = ended;
                let part = content.last().cloned().unwrap_or_else(OutputText::new);
                let OutputText { text, logprobs, .. } = part.clone();
                let (item_id, content_index) = (id.clone(), PART);
                let done = Event::TextDone {
                    item_id: item_id.clone(),
                    output_index,
                    content_index,
                    text,
                    logprobs,
                };
                vec![done, Event::PartDone { item_id, output_index, content_index, part }]
            }
            OutputItem::FunctionCall { id, status, name, arguments, .. } => {
                *status = ended;
                let (item_id, name, arguments) = (id.clone(), name.clone(), arguments.clone());
                vec![Event::ArgumentsDone { item_id, output_index, name, arguments }]
            }
        };
        events.push(Event::ItemDone { output_index, item: item.clone() });
        events
    }
}

impl Narrator for ResponseNarrator {
    type Event = ResponseEvent;
    type Whole = ResponseObject;

    fn begin(&mut self) -> Vec<ResponseEvent> {
        let (created, in_progress) = (self.snapshot(), self.snapshot());
        self.events([
            Event::Created { response: created },
            Event::InProgress { response: in_progress },
        ])
    }

    fn say(&mut self, said: Said) -> Vec<ResponseEvent> {
        let events = match said {
            Said::TextBegins => self.begin_text(),
            Said::CallBegins(name) => self.begin_call(name),
            Said::Text(part) => self.text(part),
            Said::Arguments(delta) => self.arguments(delta),
            Said::TextEnds | Said::CallEnds => self.end_item(),
        };
        self.events(events)
    }

    fn closing(&mut self, ending: &Ending) {
        if ending.reason != FinishReason::Stop {
            self.item_status = Status::Incomplete;
        }
    }

    fn end(&mut self, _: &Ending, _: usize, usage: Usage) -> Vec<ResponseEvent> {
        let mut events = Vec::new();
        if self.response.output.is_empty() {
            // Clients look for a message, even one that says nothing.
            events.extend(self.begin_text());
            events.extend(self.end_item());
        }
        self.response.usage = Some(usage.into());
        self.response.status = self.item_status;
        if self.item_status == Status::Completed {
            self.response.completed_at = Some(now());
        } else {
            let reason = "max_output_tokens";
            self.response.incomplete_details = Some(IncompleteDetails { reason });
        }
        if let Some(keeping) = self.keeping.take() {
            keeping.keep(&self.response);
        }
        let response = self.snapshot();
        events.push(match self.item_status {
            Status::Completed => Event::Completed { response },
            _ => Event::Incomplete { response },
        });
        self.events(events)
    }

    fn fail(&mut self, error: &ApiError) -> Vec<ResponseEvent> {
        self.response.status = Status::Failed;
        self.response.error = Some(Failure::from(error));
        let response = self.snapshot();
        self.events([Event::Failed { response }])
    }

    fn whole(self) -> ResponseObject {
        self.response
    }
}
