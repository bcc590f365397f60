//! A conversation becomes a prompt.

use bantam_text::{Cancel, EncodeOptions, Message, RenderInput, Tool};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::error::{ApiError, ErrorKind};

/// How the prompt is made of messages.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct TemplateFields {
    /// Ends the prompt where the assistant's answer begins; true if not set.
    add_generation_prompt: Option<bool>,
    /// Goes on with the last message, which is the assistant's, instead of a new one.
    continue_final_message: Option<bool>,
    /// More variables for the model's chat template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

impl TemplateFields {
    /// The tokens of a conversation.
    pub(crate) fn encode(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
        add_special: bool,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        let prompt = self.render(model, messages, tools)?;
        model.encode(&prompt, EncodeOptions { add_special, parse_special: true }, cancel)
    }

    fn render(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
    ) -> Result<String, ApiError> {
        let continues = self.continue_final_message.unwrap_or(false);
        let add_generation_prompt = self.add_generation_prompt.unwrap_or(!continues);
        let extra = self.chat_template_kwargs.as_ref();
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
        let Some(said) = last.and_then(|message| message.content.as_deref()) else {
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
