//! What is asked: requests of a file, or made-up ones.

use bantam_engine::uniform;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::LoadError;

/// One request, before it is put into the words of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// What the model continues or answers.
    pub prompt: Prompt,
    /// An answer that someone else gave; only its length is of use here.
    pub reference: Option<String>,
    /// How long the answer gets.
    pub length: AnswerLength,
}

/// What the model continues or answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text: the prompt of a completion, or what the user of a chat says.
    Text(String),
    /// A conversation.
    Messages(Vec<Message>),
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// How long an answer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLength {
    /// Until the model ends it, or so many tokens.
    AtMost(usize),
    /// So many tokens: the model's end is ignored.
    Exactly(usize),
}

impl AnswerLength {
    /// The number of tokens.
    #[must_use]
    pub fn tokens(self) -> usize {
        match self {
            Self::AtMost(tokens) | Self::Exactly(tokens) => tokens,
        }
    }
}

/// Reads requests, one JSON object a line: `prompt`, `messages`, or `instruction` with an optional
/// `input` (Alpaca's form). `output` is a reference answer; `max_tokens` limits that one answer and
/// stands in for the argument, which limits all others. Other fields, such as the ids of a data
/// set, are skipped, and so are empty lines. `file` names the text in errors.
///
/// ```
/// use bantam_eval::load::{Prompt, parse_requests};
/// let text = r#"{"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}
///               {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}"#;
/// let requests = parse_requests(text, "two.jsonl", 128)?;
/// assert_eq!(requests[0].prompt, Prompt::Text("Translate.\nGuten Tag".into()));
/// assert_eq!(requests[1].length.tokens(), 8);
/// # Ok::<(), bantam_eval::load::LoadError>(())
/// ```
///
/// # Errors
/// If a line is no request, or there is none.
pub fn parse_requests(
    text: &str,
    file: &str,
    max_tokens: usize,
) -> Result<Vec<LoadRequest>, LoadError> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let requests: Vec<LoadRequest> = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            parse_line(line, max_tokens).map_err(|problem| {
                let file = file.to_owned();
                LoadError::RequestFile { file, line: index + 1, problem }
            })
        })
        .collect::<Result<_, _>>()?;
    if requests.is_empty() {
        return Err(LoadError::NoRequests { file: file.to_owned() });
    }
    Ok(requests)
}

/// One line, or what is wrong with it.
fn parse_line(line: &str, max_tokens: usize) -> Result<LoadRequest, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("not a JSON object; expected {\"prompt\": …} or another known form".to_owned());
    };
    let prompt = match (fields.get("messages"), text(&fields, "prompt")?) {
        (Some(messages), None) => Prompt::Messages(conversation(messages)?),
        (None, Some(prompt)) => Prompt::Text(prompt),
        (None, None) => Prompt::Text(instruction(&fields)?),
        (Some(_), Some(_)) => return Err("both messages and prompt; leave one out".to_owned()),
    };
    let max_tokens = match fields.get("max_tokens") {
        None | Some(Value::Null) => max_tokens,
        Some(value) => {
            let tokens = value.as_u64().filter(|&tokens| tokens > 0);
            let tokens = tokens.and_then(|tokens| usize::try_from(tokens).ok());
            tokens.ok_or_else(|| format!("max_tokens is {value}, expected 1 or more"))?
        }
    };
    let reference = text(&fields, "output")?;
    Ok(LoadRequest { prompt, reference, length: AnswerLength::AtMost(max_tokens) })
}

/// A field that holds a text, if it is there.
fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} is not a text")),
    }
}

fn conversation(messages: &Value) -> Result<Vec<Message>, String> {
    let messages = Vec::<Message>::deserialize(messages)
        .map_err(|error| format!("messages: {error}; expected texts as role and content"))?;
    if messages.is_empty() {
        return Err("messages is empty; expected at least one".to_owned());
    }
    Ok(messages)
}

/// Alpaca's form: an instruction, and what it is about.
fn instruction(fields: &Map<String, Value>) -> Result<String, String> {
    let Some(instruction) = text(fields, "instruction")? else {
        return Err(
            "no prompt; expected one of the fields prompt, messages, instruction".to_owned()
        );
    };
    Ok(match text(fields, "input")? {
        Some(input) if !input.is_empty() => format!("{instruction}\n{input}"),
        _ => instruction,
    })
}

/// The first `wanted` of the requests; none for all.
///
/// # Errors
/// If there are fewer.
pub fn first_requests(
    mut requests: Vec<LoadRequest>,
    wanted: Option<usize>,
) -> Result<Vec<LoadRequest>, LoadError> {
    let have = requests.len();
    match wanted {
        Some(asked) if asked > have => Err(LoadError::TooFewRequests { asked, have }),
        Some(asked) => {
            requests.truncate(asked);
            Ok(requests)
        }
        None => Ok(requests),
    }
}

/// Common words, one token each in most vocabularies.
const WORDS: [&str; 64] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
];

/// Made-up prompts of `words` random words, about as many tokens; each differs from its first word
/// on, as far as chance allows.
///
/// ```
/// use bantam_eval::load::{AnswerLength, synthetic_requests};
/// let requests = synthetic_requests(2, 100, AnswerLength::Exactly(32), 0);
/// assert_eq!(requests, synthetic_requests(2, 100, AnswerLength::Exactly(32), 0));
/// assert_ne!(requests[0], requests[1]);
/// ```
#[must_use]
pub fn synthetic_requests(
    count: usize,
    words: usize,
    length: AnswerLength,
    seed: u64,
) -> Vec<LoadRequest> {
    let word = |index: usize| WORDS[(uniform(seed, index) * WORDS.len() as f64) as usize];
    let prompt = |request: usize| {
        let words: Vec<&str> = (0..words).map(|at| word(request * words + at)).collect();
        Prompt::Text(words.join(" "))
    };
    (0..count)
        .map(|request| LoadRequest { prompt: prompt(request), reference: None, length })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_named_with_what_is_expected() {
        let cases = [
            ("nonsense", "not JSON"),
            ("[1]", "not a JSON object"),
            ("{\"question\": \"x\"}", "expected one of the fields prompt, messages, instruction"),
            ("{\"prompt\": 3}", "prompt is not a text"),
            ("{\"prompt\": \"a\", \"messages\": []}", "leave one out"),
            ("{\"messages\": []}", "messages is empty"),
            ("{\"messages\": [{\"role\": \"user\"}]}", "missing field `content`"),
            ("{\"prompt\": \"a\", \"max_tokens\": 0}", "max_tokens is 0, expected 1 or more"),
            ("{\"prompt\": \"a\", \"max_tokens\": 1.5}", "max_tokens is 1.5"),
        ];
        for (line, expected) in cases {
            let text = format!("{{\"prompt\": \"fine\"}}\n\n{line}\n");
            let error = parse_requests(&text, "r.jsonl", 16).unwrap_err().to_string();
            assert!(error.starts_with("r.jsonl, line 3: "), "{error}");
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = parse_requests("\n\n", "r.jsonl", 16).unwrap_err().to_string();
        assert_eq!(error, "r.jsonl: no requests; expected one JSON object a line");
    }

    #[test]
    fn more_than_there_are_is_refused() {
        let requests = synthetic_requests(3, 4, AnswerLength::AtMost(1), 0);
        let error = first_requests(requests.clone(), Some(4)).unwrap_err().to_string();
        assert!(error.ends_with("use --num-requests 3 or fewer"), "{error}");
        assert_eq!(first_requests(requests.clone(), Some(2)).unwrap(), requests[..2]);
        assert_eq!(first_requests(requests.clone(), None).unwrap(), requests);
    }

    #[test]
    fn made_up_prompts_have_their_length() {
        for request in synthetic_requests(5, 33, AnswerLength::AtMost(1), 9) {
            let Prompt::Text(text) = request.prompt else { panic!("not a text") };
            assert_eq!(text.split(' ').count(), 33);
        }
    }
}
