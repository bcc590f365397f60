//! Keeps `docs/reference/api.md` equal to what the server does.

use std::fmt::Write;
use std::path::PathBuf;

use crate::ErrorKind;
use crate::kserve::fields as kserve_fields;
use crate::kserve::outputs::OUTPUTS;
use crate::openai::field_sets;
use crate::openapi;
use crate::request::fields::FieldSet;

const HEAD: &str = "\
# The HTTP API

Made from the server's own types by `UPDATE_DOCS=1 cargo test -p bantam-server --lib`. The same as
OpenAPI is at `/openapi.json`.

Every field of a request is honoured or refused. An unknown field is an error that names it and the
nearest known one; a known one that is not supported is an error that says what to use instead, unless
its value asks for nothing. `null` is the same as leaving a field out.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    paths(&mut page);
    errors(&mut page);
    let sets: [(&str, &FieldSet); 5] = [
        ("/v1/chat/completions", &field_sets::CHAT),
        ("A message of /v1/chat/completions", &field_sets::MESSAGE),
        ("/v1/completions", &field_sets::COMPLETIONS),
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
        for (method, operation) in [("GET", &item.get), ("POST", &item.post)] {
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
    line(page, format_args!("\n## {name}\n\n| field | |\n|---|---|"));
    for field in &set.honoured {
        let required = if field.required { " (required)" } else { "" };
        let description = field.description.replace('\n', " ").replace('|', "\\|");
        line(page, format_args!("| `{}`{required} | {description} |", field.name));
    }
    if set.refused.is_empty() {
        return;
    }
    line(page, format_args!("\n| refused | unless it is | why |\n|---|---|---|"));
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
fn every_honoured_field_says_what_it_does() {
    for set in [
        &field_sets::CHAT,
        &field_sets::COMPLETIONS,
        &field_sets::TOKENIZE,
        &field_sets::DETOKENIZE,
    ] {
        for field in &set.honoured {
            assert!(!field.description.is_empty(), "{}", field.name);
            let refused = set.refused.iter().any(|refused| refused.name == field.name);
            assert!(!refused, "{} is honoured and refused", field.name);
        }
    }
}
