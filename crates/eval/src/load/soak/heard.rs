//! What a client hears: an answer, streamed or whole, and what is wrong with it.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::work::Work;
use crate::load::client::error_message;
use crate::load::{Answer, Endpoint, Failure};

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) choices: Vec<Said>,
    pub(super) usage: Option<Counts>,
    /// Arrivals of pieces of text since the request was sent; one for an answer that is whole.
    pub(super) arrivals: Vec<Duration>,
    pub(super) end: Duration,
}

/// One of the answers to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
    /// Tokens listed one by one.
    tokens: usize,
    /// Bytes of the last of them.
    last: usize,
    /// The bytes of the listed tokens, unless some are no text.
    bytes: Option<Vec<u8>>,
    pub(super) finish: Option<String>,
    /// Times that an end was said.
    ends: usize,
}

/// Tokens as the server counts them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    total_tokens: usize,
}

/// A whole answer or a chunk of a stream, of either endpoint.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Counts>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    index: usize,
    text: Option<String>,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    logprobs: Option<Listed>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// The tokens of a piece: `content` in a chat, `tokens` in a completion.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    content: Vec<ChatToken>,
    #[serde(default)]
    tokens: Vec<String>,
}

#[derive(Deserialize)]
struct ChatToken {
    bytes: Vec<u8>,
}

/// What stands before the bytes of a token that is no whole character.
const BYTES: &str = "bytes:";

impl Heard {
    /// Reads an answer with status 200 to its end.
    pub(super) async fn read(work: &Work, answer: Answer, sent: Instant) -> Result<Self, Failure> {
        let first = Said { bytes: Some(Vec::new()), ..Said::default() };
        let mut heard = Self { choices: vec![first; work.n], ..Self::default() };
        if work.stream {
            heard.read_stream(answer, sent).await?;
        } else {
            let body = answer.bytes().await?;
            heard.end = sent.elapsed();
            heard.take(&String::from_utf8_lossy(&body), heard.end)?;
        }
        Ok(heard)
    }

    async fn read_stream(&mut self, answer: Answer, sent: Instant) -> Result<(), Failure> {
        let mut events = answer.into_events();
        let mut done = false;
        while let Some(event) = events.next().await {
            let event = event?;
            let at = event.arrived.saturating_duration_since(sent);
            if done {
                let problem = format!("an event after [DONE]: {}", event.data);
                return Err(Failure::Protocol { problem });
            }
            match event.data.as_str() {
                "[DONE]" => (done, self.end) = (true, at),
                data => self.take(data, at)?,
            }
        }
        if !done {
            return Err(Failure::Broken { problem: "the stream ended without [DONE]".to_owned() });
        }
        Ok(())
    }

    fn take(&mut self, data: &str, at: Duration) -> Result<(), Failure> {
        let protocol = |problem: String| Failure::Protocol { problem };
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|error| protocol(format!("{error}: {data}")))?;
        if chunk.error.is_some() {
            return Err(Failure::Stream { message: error_message(data) });
        }
        if let Some(usage) = chunk.usage
            && self.usage.replace(usage).is_some()
        {
            return Err(protocol("the usage came twice".to_owned()));
        }
        for choice in chunk.choices {
            let asked = self.choices.len();
            let said = self
                .choices
                .get_mut(choice.index)
                .ok_or_else(|| protocol(format!("choice {} of {asked}", choice.index)))?;
            let text = choice.text.or(choice.delta.and_then(|delta| delta.content));
            let text = text.unwrap_or_default();
            if !text.is_empty() {
                self.arrivals.push(at);
                if said.ends > 0 {
                    return Err(protocol("text after its finish_reason".to_owned()));
                }
                said.text.push_str(&text);
            }
            choice.logprobs.iter().for_each(|listed| said.list(listed));
            if let Some(reason) = choice.finish_reason {
                said.finish = Some(reason);
                said.ends += 1;
            }
        }
        Ok(())
    }

    /// Whether tokens were lost or came twice: what is listed, what the text spells and what the
    /// server counts must agree.
    pub(super) fn token_problem(&self, work: &Work) -> Option<String> {
        let Some(usage) = self.usage else { return Some("no usage".to_owned()) };
        if usage.total_tokens != usage.prompt_tokens + usage.completion_tokens {
            return Some(format!("a usage that does not add up: {usage:?}"));
        }
        let mut counted = 0;
        for (index, said) in self.choices.iter().enumerate() {
            // The token that ends an answer is counted; only completions list it.
            let ended = match said.finish.as_deref() {
                Some("stop") => 1,
                Some("length") => 0,
                other => return Some(format!("choice {index} ended with {other:?}")),
            };
            if said.ends != 1 {
                return Some(format!("choice {index} ended {} times", said.ends));
            }
            if work.listed {
                if ended == 0 && said.tokens != work.max_tokens {
                    let (have, want) = (said.tokens, work.max_tokens);
                    return Some(format!("choice {index} has {have} tokens, expected {want}"));
                }
                let lists_end = work.endpoint == Endpoint::Completions && ended == 1;
                if let Some(problem) = said.spelling_problem(lists_end) {
                    return Some(format!("choice {index}: {problem}"));
                }
                counted += said.tokens + if lists_end { 0 } else { ended };
            } else if ended == 0 {
                counted += work.max_tokens;
            } else {
                // Its length is known to the server alone.
                return (usage.completion_tokens > work.max_tokens * work.n)
                    .then(|| format!("{usage:?}, more than {} each", work.max_tokens));
            }
        }
        (counted != usage.completion_tokens)
            .then(|| format!("{counted} tokens came, {} were counted", usage.completion_tokens))
    }
}

impl Said {
    fn list(&mut self, listed: &Listed) {
        self.tokens += listed.content.len() + listed.tokens.len();
        if listed.tokens.iter().any(|token| token.starts_with(BYTES)) {
            self.bytes = None;
        }
        if let Some(bytes) = &mut self.bytes {
            listed.content.iter().for_each(|token| bytes.extend(&token.bytes));
            listed.tokens.iter().for_each(|token| bytes.extend(token.as_bytes()));
        }
        let last_of_chat = listed.content.last().map(|token| token.bytes.len());
        let last = listed.tokens.last().map(String::len).or(last_of_chat);
        self.last = last.unwrap_or(self.last);
    }

    /// Whether the text is not what the listed tokens spell; bytes that are no characters, which the
    /// text cannot show, say nothing. No text shows the token that ended the answer, if it is listed.
    fn spelling_problem(&self, lists_end: bool) -> Option<String> {
        let bytes = self.bytes.as_deref()?;
        let shown = if lists_end { bytes.len().saturating_sub(self.last) } else { bytes.len() };
        let spelt = std::str::from_utf8(&bytes[..shown]).ok()?;
        // Some tokenizers put a space before the first word, which no text shows.
        let same = self.text == spelt || self.text.trim_start() == spelt.trim_start();
        (!same).then(|| format!("the text is {:?}, its tokens spell {spelt:?}", self.text))
    }
}

/// The name of an endpoint and its answer for the checks of repeated requests.
pub(super) fn repeat_problem(work: &Work, heard: &Heard, expected: &Said) -> Option<String> {
    // Only the first of several drawn answers has the seed of the request itself.
    let bound = if work.temperature == 0.0 { work.n } else { 1 };
    let wrong = heard
        .choices
        .iter()
        .take(bound)
        .find(|said| (&said.text, &said.finish) != (&expected.text, &expected.finish))?;
    let path = match work.endpoint {
        Endpoint::Chat => "chat",
        Endpoint::Completions => "completion",
    };
    Some(format!("{path} said {:?}, alone it said {:?}", wrong.text, expected.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::soak::dice::Dice;
    use crate::load::soak::work::Sizes;

    fn work(max_tokens: usize, listed: bool) -> Work {
        let sizes = Sizes { prompt_words: 4, answer_tokens: 4 };
        let random = Work::random(&mut Dice::new(0, 0), sizes);
        Work { endpoint: Endpoint::Chat, max_tokens, listed, n: 1, temperature: 0.0, ..random }
    }

    fn heard(chunks: &[&str]) -> Result<Heard, Failure> {
        let first = Said { bytes: Some(Vec::new()), ..Said::default() };
        let mut heard = Heard { choices: vec![first], ..Heard::default() };
        chunks.iter().try_for_each(|chunk| heard.take(chunk, Duration::ZERO))?;
        Ok(heard)
    }

    const A: &str = r#"{"choices": [{"index": 0, "text": "a", "logprobs": {"tokens": ["a"]}}]}"#;
    const B: &str = r#"{"choices": [{"index": 0, "text": " b", "logprobs": {"tokens": [" b"]}}]}"#;
    const LENGTH: &str = r#"{"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}"#;
    const STOP: &str = r#"{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}"#;

    fn usage(tokens: usize) -> String {
        let total = tokens + 3;
        format!(
            r#"{{"choices": [], "usage": {{"prompt_tokens": 3, "completion_tokens": {tokens},
            "total_tokens": {total}}}}}"#
        )
    }

    #[test]
    fn complete_answers_have_all_their_tokens() {
        let length = heard(&[A, B, LENGTH, &usage(2)]).unwrap();
        assert_eq!(length.token_problem(&work(2, true)), None);
        assert_eq!(length.token_problem(&work(2, false)), None);
        let stop = heard(&[A, B, STOP, &usage(3)]).unwrap();
        assert_eq!(stop.token_problem(&work(9, true)), None);
        // A completion lists the token that ends it as well.
        let end = r#"{"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["<end>"]},
            "finish_reason": "stop"}]}"#;
        let completion = Work { endpoint: Endpoint::Completions, ..work(9, true) };
        let stop = heard(&[A, B, end, &usage(3)]).unwrap();
        assert_eq!(stop.token_problem(&completion), None);
        let lost = heard(&[A, end, &usage(3)]).unwrap();
        assert!(lost.token_problem(&completion).unwrap().contains("2 tokens came"));
    }

    #[test]
    fn lost_and_doubled_tokens_are_found() {
        let problem = |chunks: &[&str], max_tokens| {
            heard(chunks).unwrap().token_problem(&work(max_tokens, true)).unwrap()
        };
        assert!(problem(&[A, LENGTH, &usage(2)], 2).contains("1 tokens, expected 2"));
        assert!(problem(&[A, A, B, STOP, &usage(3)], 9).contains("4 tokens came, 3 were counted"));
        assert!(problem(&[A, B, LENGTH], 2).contains("no usage"));
        assert!(problem(&[A, B, &usage(2)], 2).contains("ended with None"));
        assert!(problem(&[A, B, STOP, STOP, &usage(3)], 2).contains("ended 2 times"));
        let other = r#"{"choices": [{"index": 0, "text": "x", "logprobs": {"tokens": ["y"]}}]}"#;
        assert!(problem(&[other, STOP, &usage(2)], 9).contains("its tokens spell"));
    }

    #[test]
    fn what_no_stream_may_say_is_refused() {
        let refused = |chunks: &[&str]| heard(chunks).unwrap_err().to_string();
        assert!(refused(&[STOP, A]).contains("text after its finish_reason"));
        assert!(refused(&[&usage(1), &usage(1)]).contains("twice"));
        assert!(
            refused(&[r#"{"choices": [{"index": 7, "text": "a"}]}"#]).contains("choice 7 of 1")
        );
        assert!(refused(&[r#"{"error": {"message": "a fault"}}"#]).contains("a fault"));
    }

    #[test]
    fn repeated_answers_are_compared() {
        let expected = heard(&[A, B, STOP]).unwrap().choices[0].clone();
        let problem =
            |chunks: &[&str]| repeat_problem(&work(9, true), &heard(chunks).unwrap(), &expected);
        assert_eq!(problem(&[A, B, STOP]), None);
        assert!(problem(&[A, STOP]).is_some() && problem(&[A, B, LENGTH]).is_some());
    }
}
