//! Jinja against jinja2 as `transformers` sets it up: a thousand expressions and templates.
//!
//! Each renders to the same text, ends in an error where it does there, or is refused when the template
//! is loaded, by a message that names what is not here.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{ChatTemplate, RenderInput, TextError};
use fixtures::json;
use serde_json::{Map, Value};

/// What a message about a template that is refused when it is loaded must name, and nothing else may
/// be refused.
const REFUSED_AT_LOAD: &[&str] = &[
    "filter pprint",
    "filter urlize",
    "filter xmlattr",
    "method bit_length",
    "method encode",
    "method fromkeys",
    "method is_integer",
    "method maketrans",
    "method translate",
    "!r in a format",
    "%} in a format",
    "with reads a, which it sets",
    "varargs of the macro m",
    "default of the macro m reads its argument a",
    "name of the macro m",
    "true and false as keys",
    "self is not known",
    "self.b is not known",
    "unexpected `+`",
    "unexpected end of comment",
];

fn render(source: &str, context: &Map<String, Value>) -> Result<String, TextError> {
    let input = RenderInput { extra: Some(context), ..RenderInput::default() };
    ChatTemplate::new(source, "", "")?.render(&input)
}

#[test]
fn every_source_renders_as_in_transformers() {
    let golden = json("jinja.json");
    let context = golden["context"].as_object().unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let source = case["source"].as_str().unwrap();
        let found = render(source, context);
        let right = match (&found, case["text"].as_str()) {
            (Ok(text), Some(expected)) => text == expected,
            (Ok(_), None) => false,
            (Err(_), None) => true,
            (Err(error @ TextError::ChatTemplateSyntax { .. }), Some(_)) => {
                let message = error.to_string();
                REFUSED_AT_LOAD.iter().any(|name| message.contains(name))
            }
            (Err(_), Some(_)) => false,
        };
        if !right {
            wrong.push(format!("{source:?}\n   found {found:?}\nexpected {case}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
