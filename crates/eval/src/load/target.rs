//! A model of an OpenAI-compatible server.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::error_message;
use super::record::{Answered, Timeline, Usage};
use super::{AnswerLength, Client, Failure, LoadError, LoadRequest, Message, Prompt};

/// Which part of the API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// `/v1/chat/completions`: the server applies the model's chat template.
    Chat,
    /// `/v1/completions`: prompts go to the model as they are.
    Completions,
}

/// A model of an OpenAI-compatible server.
#[derive(Clone, Debug)]
pub struct Target {
    client: Client,
    endpoint: Endpoint,
    model: String,
    temperature: f64,
}

impl Target {
    /// Finds the model: `model`, or the only one there is.
    ///
    /// # Errors
    /// If there is no server, it does not list its models, or has not this one.
    pub async fn find(
        client: Client,
        endpoint: Endpoint,
        model: Option<&str>,
        temperature: f64,
    ) -> Result<Self, LoadError> {
        let mut have = models(&client).await?;
        let model = match (model, have.as_slice()) {
            (Some(asked), have) if have.iter().any(|name| name == asked) => asked.to_owned(),
            (Some(asked), _) => {
                return Err(LoadError::UnknownModel { asked: asked.to_owned(), have });
            }
            (None, [_]) => have.remove(0),
            (None, []) => {
                let problem = "the list is empty".to_owned();
                return Err(LoadError::Models { problem });
            }
            (None, _) => return Err(LoadError::WhichModel { have }),
        };
        Ok(Self { client, endpoint, model, temperature })
    }

    /// The client of its server.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The model's name on the server.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the endpoint can express these requests.
    ///
    /// # Errors
    /// Names the first that is a conversation where a text is needed.
    pub fn check(&self, requests: &[LoadRequest]) -> Result<(), LoadError> {
        let conversation = |request: &LoadRequest| matches!(request.prompt, Prompt::Messages(_));
        match requests.iter().position(conversation) {
            Some(index) if self.endpoint == Endpoint::Completions => {
                Err(LoadError::NeedsChat { number: index + 1 })
            }
            _ => Ok(()),
        }
    }

    /// Makes every answer exactly as long as its reference, in the model's tokens.
    ///
    /// # Errors
    /// If a request has no reference, or the server cannot count tokens.
    pub async fn use_reference_lengths(
        &self,
        requests: &mut [LoadRequest],
        progress: &mut dyn FnMut(),
    ) -> Result<(), LoadError> {
        for (index, request) in requests.iter_mut().enumerate() {
            let Some(reference) = &request.reference else {
                return Err(LoadError::NoReference { number: index + 1 });
            };
            let tokens = self.count_tokens(reference).await;
            let tokens = tokens.map_err(|failure| LoadError::Tokenize { failure })?;
            request.length = AnswerLength::Exactly(tokens.max(1));
            progress();
        }
        Ok(())
    }

    async fn count_tokens(&self, text: &str) -> Result<usize, Failure> {
        #[derive(Deserialize)]
        struct Tokens {
            count: usize,
        }
        let body =
            json!({ "model": self.model, "prompt": text, "add_special_tokens": false }).to_string();
        let answer = self.client.post("/tokenize", body).await?.success().await?;
        Ok(answer.json::<Tokens>().await?.count)
    }

    /// Sends a request and reads its answer to the end. `tag` goes before the prompt.
    ///
    /// # Errors
    /// If the answer is not complete.
    pub(super) async fn answer(
        &self,
        request: &LoadRequest,
        tag: &str,
        sent: Instant,
    ) -> Result<Answered, Failure> {
        let path = match self.endpoint {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
        };
        let mut events = self.client.post_stream(path, self.body(request, tag)).await?;
        let mut timeline = Timeline::default();
        let mut done = false;
        while let Some(event) = events.next().await {
            let event = event?;
            let at = event.arrived.saturating_duration_since(sent);
            match event.data.as_str() {
                "[DONE]" => (timeline.end, done) = (at, true),
                data => read_chunk(data, at, &mut timeline)?,
            }
        }
        if !done {
            let problem = "the stream ended without [DONE]".to_owned();
            return Err(Failure::Broken { problem });
        }
        timeline.answered()
    }

    /// The body of a streaming request.
    fn body(&self, request: &LoadRequest, tag: &str) -> String {
        let mut body = json!({
            "model": self.model,
            "max_tokens": request.length.tokens(),
            "temperature": self.temperature,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let AnswerLength::Exactly(_) = request.length {
            body["ignore_eos"] = Value::Bool(true);
        }
        match (self.endpoint, &request.prompt) {
            (Endpoint::Chat, Prompt::Text(text)) => {
                body["messages"] = json!([{ "role": "user", "content": format!("{tag}{text}") }]);
            }
            (Endpoint::Chat, Prompt::Messages(messages)) => {
                let mut messages: Vec<Message> = messages.clone();
                if let Some(first) = messages.first_mut() {
                    first.content.insert_str(0, tag);
                }
                body["messages"] = json!(messages);
            }
            (Endpoint::Completions, Prompt::Text(text)) => {
                body["prompt"] = json!(format!("{tag}{text}"));
            }
            // Refused by `check`.
            (Endpoint::Completions, Prompt::Messages(_)) => {}
        }
        body.to_string()
    }
}

/// The names of a server's models.
async fn models(client: &Client) -> Result<Vec<String>, LoadError> {
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    #[derive(Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    let unreachable = |failure: Failure| match failure {
        failure @ Failure::Connect { .. } => LoadError::Unreachable { failure },
        failure => LoadError::Models { problem: failure.to_string() },
    };
    let answer = client.get("/v1/models").await.map_err(unreachable)?;
    let answer = answer.success().await.map_err(unreachable)?;
    let models: Models = answer.json().await.map_err(unreachable)?;
    Ok(models.data.into_iter().map(|model| model.id).collect())
}

/// Enters one chunk of a stream into the timeline.
fn read_chunk(data: &str, at: Duration, timeline: &mut Timeline) -> Result<(), Failure> {
    /// The part of a chunk, of either endpoint, that counts here.
    #[derive(Deserialize)]
    struct Chunk {
        #[serde(default)]
        choices: Vec<Choice>,
        usage: Option<Counts>,
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Choice {
        text: Option<String>,
        delta: Option<Delta>,
        finish_reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct Delta {
        content: Option<String>,
        /// Where servers of reasoning models put what the model thinks.
        reasoning_content: Option<String>,
    }
    #[derive(Deserialize)]
    struct Counts {
        prompt_tokens: usize,
        completion_tokens: usize,
        prompt_tokens_details: Option<PromptDetails>,
    }
    #[derive(Deserialize)]
    struct PromptDetails {
        cached_tokens: Option<usize>,
    }
    let chunk: Chunk = serde_json::from_str(data)
        .map_err(|error| Failure::Protocol { problem: format!("a chunk: {error}") })?;
    if chunk.error.is_some() {
        return Err(Failure::Stream { message: error_message(data) });
    }
    if let Some(usage) = chunk.usage {
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        timeline.usage = Some(Usage {
            input_tokens: usage.prompt_tokens,
            cached_tokens: cached.unwrap_or(0),
            output_tokens: usage.completion_tokens,
        });
    }
    for choice in chunk.choices {
        let delta = choice.delta.map(|delta| [delta.content, delta.reasoning_content]);
        let texts = delta.into_iter().flatten().chain([choice.text]).flatten();
        if texts.map(|text| text.len()).sum::<usize>() > 0 {
            timeline.chunks.push(at);
        }
        if let Some(reason) = choice.finish_reason {
            timeline.finish = Some((at, reason));
        }
    }
    Ok(())
}
