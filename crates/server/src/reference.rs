//! Keeps `docs/reference/api.md` equal to what the server does.

use std::fmt::Write;
use std::path::PathBuf;

use crate::ErrorKind;
use crate::anthropic::{fields as messages, notes as messages_notes};
use crate::kserve::fields as kserve_fields;
use crate::kserve::outputs::OUTPUTS;
use crate::openai::field_sets;
use crate::openai::notes::NOTES;
use crate::openai::responses::{fields as responses, notes as responses_notes};
use crate::openapi;
use crate::request::fields::{FieldSet, WithoutEffect};
use crate::request::shape::Shape;

const HEAD: &str = "\
# The HTTP API

Made from the server's own types by `UPDATE_DOCS=1 cargo test -p bantam-server --lib`. The same as
OpenAPI is at `/openapi.json`.

Every field of a request, and of the objects in it, is honoured, without effect, or refused. A field
without effect changes nothing about the answer: labels, and what client libraries leave in the messages
they send back. An unknown field is an error that names it and a near known one; a known one that is not
supported is an error that says what to use instead, unless its value asks for nothing. `null` is the
same as leaving a field out.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    paths(&mut page);
    errors(&mut page);
    let sets: [(&str, &FieldSet); 8] = [
        ("/v1/chat/completions", &field_sets::CHAT),
        ("/v1/completions", &field_sets::COMPLETIONS),
        ("/v1/responses", &responses::CREATE),
        ("/v1/responses/input_tokens", &responses::COUNT),
        ("/v1/messages", &messages::CREATE),
        ("/v1/messages/count_tokens", &messages::COUNT),
        ("/tokenize", &field_sets::TOKENIZE),
        ("/detokenize", &field_sets::DETOKENIZE),
    ];
    for (name, set) in sets {
        field_set(&mut page, name, set);
    }
    kserve(&mut page);
    page
}

fn line(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a string takes any text");
}

fn paths(page: &mut String) {
    line(page, format_args!("\n## Paths\n\n| method | path | |\n|---|---|---|"));
    for (path, item) in &openapi::description().paths.paths {
        for (method, operation) in
            [("GET", &item.get), ("POST", &item.post), ("DELETE", &item.delete)]
        {
            let Some(operation) = operation else { continue };
            let summary = operation.summary.as_deref().unwrap_or_default();
            line(page, format_args!("| {method} | `{path}` | {summary} |"));
        }
    }
}

fn errors(page: &mut String) {
    line(page, format_args!("\n## Errors\n\n| status | `error.type` | when |\n|---|---|---|"));
    for kind in ErrorKind::ALL {
        let (status, name, when) = (kind.status().as_u16(), kind.openai_type(), kind.meaning());
        line(page, format_args!("| {status} | `{name}` | {when} |"));
    }
    line(
        page,
        format_args!(
            "\nA failure after a stream has begun is sent as an event with the same JSON; the stream \
             then ends\nwithout `[DONE]`."
        ),
    );
}

fn field_set(page: &mut String, name: &str, set: &FieldSet) {
    line(page, format_args!("\n## {name}"));
    fields_of(page, set);
    for field in &set.honoured {
        within(page, &field.name, &field.shape);
    }
}

/// The objects within a field.
fn within(page: &mut String, place: &str, shape: &Shape) {
    match shape {
        Shape::Free => {}
        Shape::List(item) => within(page, &format!("{place}[]"), item),
        Shape::Map(of) => within(page, &format!("{place}.*"), of),
        Shape::Variants(variants) => {
            variants.iter().for_each(|variant| within(page, place, variant));
        }
        Shape::Object(set) => {
            let tag = set.honoured.iter().find_map(|field| field.constant.as_deref());
            let tag = tag.map(|tag| format!(" of type `{tag}`")).unwrap_or_default();
            line(page, format_args!("\n### `{place}`{tag}"));
            fields_of(page, set);
            for field in &set.honoured {
                within(page, &format!("{place}.{}", field.name), &field.shape);
            }
        }
    }
}

fn fields_of(page: &mut String, set: &FieldSet) {
    line(page, format_args!("\n| field | |\n|---|---|"));
    for field in &set.honoured {
        let required = if field.required { " (required)" } else { "" };
        let description = field.description.replace('\n', " ").replace('|', "\\|");
        line(page, format_args!("| `{}`{required} | {description} |", field.name));
    }
    if !set.without_effect.is_empty() {
        line(page, format_args!("\n| without effect | takes | why |\n|---|---|---|"));
    }
    for WithoutEffect { name, takes, reason } in &set.without_effect {
        line(page, format_args!("| `{name}` | {} | {reason} |", takes.name()));
    }
    if !set.refused.is_empty() {
        line(page, format_args!("\n| refused | unless it is | why |\n|---|---|---|"));
    }
    for field in &set.refused {
        let no_effect = field.no_effect.iter().map(|value| format!("`{value}`"));
        let no_effect = no_effect.collect::<Vec<_>>().join(", ");
        line(page, format_args!("| `{}` | {no_effect} | {} |", field.name, field.reason));
    }
}

const KSERVE: &str = "
## KServe v2

The paths under `/v2` speak the KServe v2 protocol with Triton's extensions. A model takes and gives \
the
tensors of Triton's vLLM and TensorRT-LLM back ends. Each field below may come as an input tensor, as
a parameter, at the top of a `/generate` body, or inside `sampling_parameters`. Every path under
`/v2/models/{model}` is also under `/v2/models/{model}/versions/1`. Errors are `{\"error\": …}`.
";

fn kserve(page: &mut String) {
    let name = "/v2/models/{model}/infer, /generate and /generate_stream";
    page.push_str(KSERVE);
    field_set(page, name, &kserve_fields::INFERENCE);
    line(page, format_args!("\n| output | type | |\n|---|---|---|"));
    for row in &OUTPUTS {
        let (name, datatype) = (row.name, row.datatype.name());
        line(page, format_args!("| `{name}` | {datatype} | {} |", row.description));
    }
}

#[test]
fn the_reference_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/api.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/reference/api.md is out of date; UPDATE_DOCS=1 cargo test -p bantam-server --lib"
    );
}

#[test]
fn every_field_is_of_one_kind_and_says_what_it_does() {
    fn check(set: &FieldSet, place: &str) {
        let names = set.honoured.iter().map(|field| field.name.as_str());
        let names = names.chain(set.without_effect.iter().map(|field| field.name));
        let mut names: Vec<&str> =
            names.chain(set.refused.iter().map(|field| field.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{place} has a field of two kinds");
        for field in &set.honoured {
            let place = format!("{place}.{}", field.name);
            check_shape(&field.shape, &place);
        }
    }
    fn check_shape(shape: &Shape, place: &str) {
        match shape {
            Shape::Free => {}
            Shape::List(of) | Shape::Map(of) => check_shape(of, place),
            Shape::Variants(variants) => variants.iter().for_each(|of| check_shape(of, place)),
            Shape::Object(set) => check(set, place),
        }
    }
    let sets = [
        ("chat", &*field_sets::CHAT),
        ("completions", &field_sets::COMPLETIONS),
        ("responses", &responses::CREATE),
        ("messages", &messages::CREATE),
        ("tokenize", &field_sets::TOKENIZE),
        ("detokenize", &field_sets::DETOKENIZE),
    ];
    for (name, set) in sets {
        check(set, name);
        for field in &set.honoured {
            assert!(!field.description.is_empty(), "{name}.{}", field.name);
        }
    }
}

/// A note about a type that no request has would be read by nobody.
#[test]
fn every_note_is_about_an_object_of_the_api() {
    let components = openapi::description().components.unwrap();
    let all = NOTES.iter().chain(&responses_notes::NOTES).chain(&messages_notes::NOTES);
    for notes in all {
        assert!(components.schemas.contains_key(notes.of), "{}", notes.of);
    }
}
