//! Tells an answer as a message.

use bantam_engine::FinishReason;
use serde_json::{Value, json};

use crate::answer::{Ending, StoppedBy};
use crate::anthropic::error;
use crate::anthropic::events::{BlockDelta, ErrorDetails, Event, MessageDelta};
use crate::anthropic::message::{ContentBlock, Message};
use crate::error::ApiError;
use crate::request::narration::Narrator;
use crate::request::speech::Said;
use crate::request::tools::call_id;
use crate::request::usage::Usage;
use crate::request_id::hexadecimal;

/// The message while it grows.
pub(crate) struct MessageNarrator {
    message: Message,
    /// Tokens that the request allows.
    max_tokens: Option<usize>,
    /// The arguments of the call that is being made.
    arguments: String,
}

impl MessageNarrator {
    /// A message of which nothing has been said, to a prompt of this many tokens.
    pub(crate) fn new(model: &str, prompt_tokens: usize, max_tokens: Option<usize>) -> Self {
        let message = Message {
            id: format!("msg_{}", hexadecimal()),
            r#type: "message",
            role: "assistant",
            model: model.to_owned(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Usage::of_prompts(prompt_tokens).into(),
        };
        Self { message, max_tokens, arguments: String::new() }
    }

    fn begin_block(&mut self, content_block: ContentBlock) -> Event {
        let index = self.message.content.len();
        self.message.content.push(content_block.clone());
        Event::ContentBlockStart { index, content_block }
    }

    /// The number of the last block.
    fn last(&self) -> usize {
        self.message.content.len().saturating_sub(1)
    }
}

impl Narrator for MessageNarrator {
    type Event = Event;
    type Whole = Message;

    fn begin(&mut self) -> Vec<Event> {
        vec![Event::MessageStart { message: self.message.clone() }, Event::Ping {}]
    }

    fn say(&mut self, said: Said) -> Vec<Event> {
        let index = self.last();
        let event = match said {
            Said::TextBegins => self.begin_block(ContentBlock::Text { text: String::new() }),
            Said::CallBegins(name) => {
                self.arguments.clear();
                self.begin_block(ContentBlock::ToolUse { id: call_id(), name, input: json!({}) })
            }
            Said::Text(part) if part.text.is_empty() => return Vec::new(),
            Said::Text(part) => {
                if let Some(ContentBlock::Text { text }) = self.message.content.last_mut() {
                    text.push_str(&part.text);
                }
                let delta = BlockDelta::TextDelta { text: part.text };
                Event::ContentBlockDelta { index, delta }
            }
            Said::Arguments(partial_json) => {
                self.arguments.push_str(&partial_json);
                let delta = BlockDelta::InputJsonDelta { partial_json };
                Event::ContentBlockDelta { index, delta }
            }
            Said::CallEnds => {
                if let Some(ContentBlock::ToolUse { input, .. }) = self.message.content.last_mut()
                    && let Ok(arguments @ Value::Object(_)) = serde_json::from_str(&self.arguments)
                {
                    *input = arguments;
                }
                Event::ContentBlockStop { index }
            }
            Said::TextEnds => Event::ContentBlockStop { index },
        };
        vec![event]
    }

    fn closing(&mut self, _: &Ending) {}

    fn end(&mut self, ending: &Ending, calls: usize, usage: Usage) -> Vec<Event> {
        let stopped_by = match &ending.stopped_by {
            Some(StoppedBy::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let reason = match ending.reason {
            FinishReason::Length if self.max_tokens != Some(ending.usage.generated_tokens) => {
                "model_context_window_exceeded"
            }
            FinishReason::Length => "max_tokens",
            _ if stopped_by.is_some() => "stop_sequence",
            _ if calls > 0 => "tool_use",
            _ => "end_turn",
        };
        self.message.stop_reason = Some(reason);
        self.message.stop_sequence = stopped_by;
        self.message.usage = usage.into();
        let Message { stop_reason, stop_sequence, usage, .. } = self.message.clone();
        let delta = MessageDelta { stop_reason, stop_sequence };
        vec![Event::MessageDelta { delta, usage }, Event::MessageStop {}]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        let (r#type, message) = (error::kind(error.kind), error.message.clone());
        vec![Event::Error { error: ErrorDetails { r#type, message } }]
    }

    fn whole(self) -> Message {
        self.message
    }
}
