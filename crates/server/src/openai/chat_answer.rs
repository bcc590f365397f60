//! The answers of `/v1/chat/completions`: what a message grows by, and all of it.

use std::sync::Arc;

use bantam_text::{ToolCallParser, ToolDelta};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ServedModel;
use crate::answer::{AnswerToken, Part, StoppedBy};
use crate::openai::logprobs::{ChatLogprobs, PromptLogprobs, TokenNames};
use crate::openai::reply::{Choice, StopReason};
use crate::openai::tools::{self, CallDelta, CallField, FunctionDelta};
use crate::request::asked::Asked;
use crate::request::tools::{ToolUse, call_id};

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    finish_reason: Option<&'static str>,
    /// The stop string, or the id of the stop token, of the request that ended the answer.
    stop_reason: Option<StopReason>,
    /// Its tokens, if asked; one that ended it is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    /// How probable the tokens of the prompt were, if asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// What the model says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    role: &'static str,
    /// None if there are calls only.
    content: Option<String>,
    /// Always none.
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallField>,
}

/// What an answer grows by.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatDelta {
    index: usize,
    delta: MessageDelta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// What a message grows by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct MessageDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

/// An answer on its way.
pub(crate) struct Chatting {
    index: usize,
    names: TokenNames,
    logprobs: bool,
    token_ids: bool,
    /// Stop tokens of the request.
    stop_tokens: Vec<u32>,
    prompt: Vec<u32>,
    /// Tokens of the prompt that have their scores; the first has none.
    scored: usize,
    /// Finds calls, if there may be any; none after the end.
    tools: Option<ToolCallParser>,
    /// Calls after the first are left out.
    only_one: bool,
    /// The answer is nothing but calls.
    must_call: bool,
    /// Calls so far.
    calls: usize,
}

impl Chatting {
    /// Answer number `index` to a prompt.
    pub(crate) fn new(
        index: usize,
        model: &ServedModel,
        asked: &Asked,
        prompt: &[u32],
        tools: &ToolUse,
    ) -> Self {
        let parser = |format| {
            let parser = ToolCallParser::new(format);
            if tools.must_call { parser.calls_only() } else { parser }
        };
        let tokenizer = Arc::clone(model.tokenizer());
        Self {
            index,
            names: TokenNames { tokenizer, as_ids: asked.tokens_as_ids },
            logprobs: asked.request.logprobs.is_some(),
            token_ids: asked.token_ids,
            stop_tokens: asked.request.stop_tokens.clone(),
            prompt: prompt.to_vec(),
            scored: 1,
            tools: tools.format.map(parser),
            only_one: tools.only_one,
            must_call: tools.must_call,
            calls: 0,
        }
    }

    fn delta(&self, delta: MessageDelta, tokens: &[AnswerToken]) -> ChatDelta {
        let some = !tokens.is_empty();
        ChatDelta {
            index: self.index,
            delta,
            logprobs: (self.logprobs && some).then(|| ChatLogprobs::new(&self.names, tokens)),
            finish_reason: None,
            stop_reason: None,
            token_ids: (self.token_ids && some)
                .then(|| tokens.iter().map(|token| token.id).collect()),
            prompt_logprobs: None,
        }
    }

    /// The text and calls among what the parser found.
    fn message(&mut self, found: Vec<ToolDelta>) -> MessageDelta {
        let mut message = MessageDelta::default();
        for delta in found {
            let beyond = |index: usize| self.only_one && index > 0;
            match delta {
                ToolDelta::Text(text) => message.content.get_or_insert_default().push_str(&text),
                ToolDelta::Begin { index, name } if !beyond(index) => {
                    self.calls = index + 1;
                    message.tool_calls.push(CallDelta {
                        index,
                        id: Some(call_id()),
                        r#type: Some(tools::Kind::Function),
                        function: FunctionDelta { name: Some(name), arguments: String::new() },
                    });
                }
                ToolDelta::Arguments { index, fragment } if !beyond(index) => {
                    match message.tool_calls.last_mut().filter(|call| call.index == index) {
                        Some(call) => call.function.arguments.push_str(&fragment),
                        None => message.tool_calls.push(CallDelta {
                            index,
                            function: FunctionDelta { name: None, arguments: fragment },
                            ..CallDelta::default()
                        }),
                    }
                }
                ToolDelta::Begin { .. } | ToolDelta::Arguments { .. } | ToolDelta::End { .. } => {}
            }
        }
        message
    }
}

impl Choice for Chatting {
    type Delta = ChatDelta;
    type Whole = ChatChoice;

    fn begin(&mut self) -> Option<ChatDelta> {
        let role = Some("assistant");
        let content = (!self.must_call).then(String::new);
        Some(self.delta(MessageDelta { role, content, tool_calls: Vec::new() }, &[]))
    }

    fn push(&mut self, part: Part) -> Option<ChatDelta> {
        match part {
            Part::Prompt(scores) => {
                let (first, tokens) = (self.scored == 1, &self.prompt[self.scored..]);
                self.scored += scores.len();
                let scores = PromptLogprobs::new(&self.names.tokenizer, tokens, &scores, first);
                let delta = self.delta(MessageDelta::default(), &[]);
                Some(ChatDelta { prompt_logprobs: Some(scores), ..delta })
            }
            Part::Text(part) => {
                let message = match &mut self.tools {
                    None => MessageDelta { content: Some(part.text), ..MessageDelta::default() },
                    Some(parser) => {
                        let found = parser.push(&part.text);
                        self.message(found)
                    }
                };
                let delta = self.delta(message, &part.tokens);
                let says_nothing = delta.delta == MessageDelta::default();
                let tells_tokens = delta.logprobs.is_some() || delta.token_ids.is_some();
                (!says_nothing || tells_tokens).then_some(delta)
            }
            Part::End(ending) => {
                let stop_reason = StopReason::of(&ending, &self.stop_tokens);
                let finish = match ending.is_cut_off() {
                    true => ToolCallParser::cut_off,
                    false => ToolCallParser::finish,
                };
                let found = self.tools.take().map(finish).unwrap_or_default();
                let message = self.message(found);
                // OpenAI says `stop` where a function was named; clients take `tool_calls` for both.
                let reason = match ending.reason.name() {
                    "stop" if self.calls > 0 => "tool_calls",
                    name => name,
                };
                let mut delta = self.delta(message, &[]);
                if let Some(StoppedBy::Token(last)) = ending.stopped_by {
                    delta.token_ids = self.token_ids.then(|| vec![last.id]);
                }
                Some(ChatDelta { finish_reason: Some(reason), stop_reason, ..delta })
            }
        }
    }

    fn whole(&self) -> ChatChoice {
        ChatChoice {
            index: self.index,
            message: AnswerMessage::default(),
            logprobs: self.logprobs.then(ChatLogprobs::default),
            finish_reason: None,
            stop_reason: None,
            token_ids: self.token_ids.then(Vec::new),
            prompt_logprobs: None,
        }
    }

    fn prompt_logprobs(whole: &ChatChoice) -> Option<PromptLogprobs> {
        whole.prompt_logprobs.clone()
    }

    fn add(whole: &mut ChatChoice, delta: ChatDelta) {
        let ChatDelta {
            delta,
            logprobs,
            finish_reason,
            stop_reason,
            token_ids,
            prompt_logprobs,
            index: _,
        } = delta;
        whole.stop_reason = stop_reason.or(whole.stop_reason.take());
        if let (Some(whole), Some(later)) = (&mut whole.token_ids, token_ids) {
            whole.extend(later);
        }
        let message = &mut whole.message;
        message.role = delta.role.unwrap_or(message.role);
        if let Some(text) = delta.content {
            message.content.get_or_insert_default().push_str(&text);
        }
        for CallDelta { index, id, function, .. } in delta.tool_calls {
            message
                .tool_calls
                .resize_with(message.tool_calls.len().max(index + 1), Default::default);
            let call = &mut message.tool_calls[index];
            call.id.extend(id);
            call.function.name.extend(function.name);
            call.function.arguments.push_str(&function.arguments);
        }
        if let (Some(whole), Some(later)) = (&mut whole.logprobs, logprobs) {
            whole.content.extend(later.content);
        }
        if let Some(later) = prompt_logprobs {
            whole.prompt_logprobs.get_or_insert_default().extend(later);
        }
        whole.finish_reason = finish_reason.or(whole.finish_reason);
        if finish_reason.is_some() && !message.tool_calls.is_empty() {
            message.content = message.content.take().filter(|text| !text.is_empty());
        }
    }
}
