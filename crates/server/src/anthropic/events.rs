//! The events of a message that is streamed.

use serde::Serialize;
use utoipa::ToSchema;

use crate::anthropic::message::{ContentBlock, Message, MessageUsage};
use crate::request::sse::NamedEvent;

/// An event. `index` is the block's number in the message.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MessagesEvent)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The message begins; its usage says how long the prompt is.
    MessageStart {
        message: Message,
    },
    /// The connection is alive.
    Ping {},
    ContentBlockStart {
        index: usize,
        content_block: ContentBlock,
    },
    ContentBlockDelta {
        index: usize,
        delta: BlockDelta,
    },
    ContentBlockStop {
        index: usize,
    },
    /// How the message ended, and what all of it took.
    MessageDelta {
        delta: MessageDelta,
        usage: MessageUsage,
    },
    MessageStop {},
    /// The answer failed.
    Error {
        error: ErrorDetails,
    },
}

/// What a block grows by.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum BlockDelta {
    TextDelta { text: String },
    InputJsonDelta { partial_json: String },
}

/// How a message ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MessagesMessageDelta)]
pub(crate) struct MessageDelta {
    pub(crate) stop_reason: Option<&'static str>,
    pub(crate) stop_sequence: Option<String>,
}

/// Why an answer failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetails {
    pub(crate) r#type: &'static str,
    pub(crate) message: String,
}

impl NamedEvent for Event {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::Ping {} => "ping",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop {} => "message_stop",
            Self::Error { .. } => "error",
        }
    }
}
