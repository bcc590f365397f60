//! A conversation becomes a prompt.

use bantam_text::{Cancel, EncodeOptions, Message, RenderInput, Tool};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::error::{ApiError, ErrorKind};

/// How the prompt is made of messages.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct TemplateFields {
    /// Ends the prompt where the assistant's answer begins; true if not set.
    pub(crate) add_generation_prompt: Option<bool>,
    /// Goes on with the last message, which is the assistant's, instead of a new one.
    pub(crate) continue_final_message: Option<bool>,
    /// More variables for the model's chat template.
    #[schema(value_type = Option<Object>)]
    pub(crate) chat_template_kwargs: Option<Map<String, Value>>,
    /// How long to think: the variable of this name, for templates that have it. `none` also sets
    /// `enable_thinking` to false. Variables in `chat_template_kwargs` go first.
    pub(crate) reasoning_effort: Option<ReasoningEffort>,
}

/// How long a model thinks before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReasoningEffort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

/// Contexts that a conversation may have for its tokens to be counted: clients count before they
/// shorten.
const COUNTED_CONTEXTS: usize = 16;

impl TemplateFields {
    /// How many tokens a conversation has, also one that is longer than the context.
    pub(crate) fn count(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
        cancel: &Cancel,
    ) -> Result<usize, ApiError> {
        let bound = model.context() * COUNTED_CONTEXTS;
        Ok(self.encode_within(model, messages, tools, false, bound, cancel)?.len())
    }

    /// The tokens of a conversation.
    pub(crate) fn encode(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
        add_special: bool,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        let bound = model.context();
        self.encode_within(model, messages, tools, add_special, bound, cancel)
    }

    /// As [`encode`](Self::encode), with another bound than the model's context.
    pub(crate) fn encode_within(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
        add_special: bool,
        max_tokens: usize,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        let prompt = self.render(model, messages, tools)?;
        let options = EncodeOptions { add_special, parse_special: true };
        model.encode_within(&prompt, options, max_tokens, cancel)
    }

    /// More variables of the template.
    fn variables(&self) -> Option<Map<String, Value>> {
        let Some(effort) = self.reasoning_effort else { return self.chat_template_kwargs.clone() };
        let mut variables = self.chat_template_kwargs.clone().unwrap_or_default();
        if effort == ReasoningEffort::None {
            variables.entry("enable_thinking").or_insert(Value::Bool(false));
        }
        variables.entry("reasoning_effort").or_insert_with(|| json!(effort));
        Some(variables)
    }

    fn render(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
    ) -> Result<String, ApiError> {
        let continues = self.continue_final_message.unwrap_or(false);
        let add_generation_prompt = self.add_generation_prompt.unwrap_or(!continues);
        let extra = self.variables();
        let extra = extra.as_ref();
        let input = RenderInput { messages, tools, add_generation_prompt, extra };
        let refuse =
            |message: &str| Err(ApiError::bad_request(message).param("continue_final_message"));
        if !continues {
            return Ok(model.chat_template()?.render(&input)?);
        }
        if add_generation_prompt {
            return refuse(
                "continue_final_message and add_generation_prompt are both true; one goes on with \
                 a message, the other begins a new one",
            );
        }
        let last = messages.last().filter(|message| message.role == "assistant");
        let Some(said) =
            last.and_then(|message| message.content.as_deref()).filter(|said| !said.is_empty())
        else {
            return refuse(
                "continue_final_message is true, but the last message is no text of the assistant",
            );
        };
        let mut prompt = model.chat_template()?.render(&input)?;
        // Templates may take space off the ends of a message, and write its end after it.
        let end = [said, said.trim()]
            .iter()
            .find_map(|said| prompt.rfind(said).map(|start| start + said.len()));
        let Some(end) = end else {
            let message =
                "the chat template changes the last message, which so cannot be continued";
            let error = ApiError::new(ErrorKind::Unprocessable, message);
            return Err(error.param("continue_final_message"));
        };
        prompt.truncate(end);
        Ok(prompt)
    }
}
