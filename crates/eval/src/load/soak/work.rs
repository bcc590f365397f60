//! What clients ask: well-formed requests of every kind.

use serde_json::{Value, json};

use super::dice::Dice;
use crate::load::{AnswerLength, Endpoint, Prompt, synthetic_requests};

/// Colours among which a constrained answer chooses.
const COLOURS: [&str; 4] = ["red", "green", "blue", "grey"];
/// The largest count of a constrained answer.
const MAX_COUNT: u64 = 99;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) endpoint: Endpoint,
    pub(super) prompt: String,
    pub(super) max_tokens: usize,
    pub(super) temperature: f64,
    pub(super) seed: Option<u64>,
    /// The answer is JSON of one schema.
    pub(super) constrained: bool,
    pub(super) n: usize,
    pub(super) stream: bool,
    /// Every token is listed, so that it can be counted.
    pub(super) listed: bool,
    /// The model's end is ignored.
    pub(super) full_length: bool,
    /// Its number in the fixed set, if it is of that.
    pub(super) repeats: Option<usize>,
}

/// Longest prompt in words, and longest answer in tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) prompt_words: usize,
    pub(super) answer_tokens: usize,
}

/// Requests whose answers must be the same every time: likeliest tokens, drawn tokens with a seed, and
/// answers in a form.
pub(super) fn fixed_set(sizes: Sizes, seed: u64) -> Vec<Work> {
    let mut dice = Dice::new(seed, usize::MAX >> 32);
    let mut set = Vec::new();
    for (temperature, constrained) in [(0.0, false), (1.0, false), (0.0, false), (0.7, true)] {
        for endpoint in [Endpoint::Chat, Endpoint::Completions] {
            let work = Work {
                temperature,
                constrained,
                seed: (temperature > 0.0).then_some(17),
                n: 1,
                repeats: Some(set.len()),
                ..Work::random(&mut dice, sizes)
            };
            set.push(Work { endpoint, ..work });
        }
    }
    set
}

impl Work {
    /// Some request that is new.
    pub(super) fn random(dice: &mut Dice, sizes: Sizes) -> Self {
        let words = dice.length(1..=sizes.prompt_words);
        let seed = (dice.share() * 2f64.powi(53)) as u64;
        let mut prompts = synthetic_requests(1, words, AnswerLength::AtMost(1), seed);
        let prompt = match prompts.pop().map(|request| request.prompt) {
            Some(Prompt::Text(text)) => text,
            Some(Prompt::Messages(_)) | None => String::new(),
        };
        Self {
            endpoint: *dice.pick(&[Endpoint::Chat, Endpoint::Completions]),
            prompt,
            max_tokens: dice.length(1..=sizes.answer_tokens),
            temperature: *dice.pick(&[0.0, 0.7, 1.0]),
            seed: None,
            constrained: dice.chance(0.1),
            n: if dice.chance(0.1) { 2 } else { 1 },
            stream: dice.chance(0.6),
            listed: dice.chance(0.75),
            full_length: dice.chance(0.2),
            repeats: None,
        }
    }

    /// One of the fixed set, asked in some way that does not change its answer.
    pub(super) fn again(dice: &mut Dice, fixed: &[Self]) -> Self {
        Self {
            n: if dice.chance(0.2) { 2 } else { 1 },
            stream: dice.chance(0.5),
            listed: dice.chance(0.5),
            ..dice.pick(fixed).clone()
        }
    }

    /// Where it goes.
    pub(super) fn path(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
        }
    }

    /// Its name in a report.
    pub(super) fn kind(&self) -> String {
        let endpoint = match self.endpoint {
            Endpoint::Chat => "chat",
            Endpoint::Completions => "completion",
        };
        let form = if self.constrained { ", json_schema" } else { "" };
        let stream = if self.stream { ", stream" } else { "" };
        format!("{endpoint}{form}{stream}")
    }

    /// The body that says it.
    pub(super) fn body(&self, model: &str) -> String {
        let mut body = json!({
            "model": model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "n": self.n,
            // So that the text is that of the listed tokens, whatever the model draws.
            "skip_special_tokens": false,
        });
        let listed = match self.endpoint {
            Endpoint::Chat => {
                body["messages"] = json!([{ "role": "user", "content": self.prompt }]);
                json!(true)
            }
            Endpoint::Completions => {
                body["prompt"] = json!(self.prompt);
                json!(0)
            }
        };
        if self.listed {
            body["logprobs"] = listed;
        }
        if let Some(seed) = self.seed {
            body["seed"] = json!(seed);
        }
        if self.stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({ "include_usage": true });
        }
        if self.constrained {
            body["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "ball", "schema": schema() } });
        } else if self.full_length {
            body["ignore_eos"] = json!(true);
        }
        body.to_string()
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "colour": { "enum": COLOURS },
            "count": { "type": "integer", "minimum": 0, "maximum": MAX_COUNT },
        },
        "required": ["colour", "count"],
        "additionalProperties": false,
    })
}

/// What is wrong with a complete constrained answer.
pub(super) fn form_problem(text: &str) -> Option<String> {
    let found: Value = match serde_json::from_str(text) {
        Ok(found) => found,
        Err(error) => return Some(format!("not JSON: {error}: {text:?}")),
    };
    let fields = found.as_object().map_or(0, serde_json::Map::len);
    let colour = found["colour"].as_str().is_some_and(|colour| COLOURS.contains(&colour));
    let count = found["count"].as_u64().is_some_and(|count| count <= MAX_COUNT);
    (fields != 2 || !colour || !count).then(|| format!("not of the schema: {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { prompt_words: 50, answer_tokens: 40 };

    #[test]
    fn work_covers_every_kind() {
        let mut dice = Dice::new(1, 1);
        let all: Vec<Work> = (0..500).map(|_| Work::random(&mut dice, SIZES)).collect();
        let kinds: std::collections::BTreeSet<String> = all.iter().map(Work::kind).collect();
        assert_eq!(kinds.len(), 8, "{kinds:?}");
        assert!(all.iter().any(|work| work.n == 2) && all.iter().any(|work| work.full_length));
        let fixed = fixed_set(SIZES, 1);
        assert_eq!(fixed, fixed_set(SIZES, 1));
        let again = Work::again(&mut dice, &fixed);
        let original = &fixed[again.repeats.unwrap()];
        assert_eq!((&again.prompt, again.max_tokens), (&original.prompt, original.max_tokens));
        assert_eq!((again.temperature, again.seed), (original.temperature, original.seed));
    }

    #[test]
    fn the_schema_is_checked() {
        assert_eq!(form_problem(r#"{"colour": "red", "count": 7}"#), None);
        for wrong in [
            "{",
            "[]",
            r#"{"colour": "pink", "count": 7}"#,
            r#"{"colour": "red", "count": 100}"#,
            r#"{"colour": "red", "count": -1}"#,
            r#"{"colour": "red"}"#,
            r#"{"colour": "red", "count": 7, "x": 1}"#,
        ] {
            assert!(form_problem(wrong).is_some(), "{wrong}");
        }
    }
}
