//! Chat templates against the renderings of transformers.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{ChatTemplate, EncodeOptions, Message, TextError};
use fixtures::{built, byte_level_vocabulary, data, json, read};

fn template(name: &str) -> ChatTemplate {
    let path = data("templates").join(name).with_extension("jinja");
    ChatTemplate::new(&std::fs::read_to_string(path).unwrap(), "<s>", "</s>").unwrap()
}

#[test]
fn prompts_are_those_of_transformers() {
    let rows = json("chat_templates.json");
    let (mut rendered, mut refused) = (0, 0);
    for row in rows.as_array().unwrap() {
        let name = row["template"].as_str().unwrap();
        let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let prompt = row["prompt"].as_bool().unwrap();
        match template(name).render_messages(&messages, prompt) {
            Ok(text) => {
                assert_eq!(text, row["text"], "{name} {messages:?}");
                rendered += 1;
            }
            Err(TextError::ChatTemplateRefused { reason }) => {
                assert_eq!(reason, row["refusal"], "{name} {messages:?}");
                refused += 1;
            }
            Err(error) => panic!("{name} {messages:?}: {error}"),
        }
    }
    assert!(rendered > 40 && refused > 8, "{rendered} rendered, {refused} refused");
}

#[test]
fn a_refusal_is_one_clear_line() {
    let messages = ["user", "user"].map(|role| Message::new(role, "x"));
    let error = template("llama2").render_messages(&messages, false).unwrap_err().to_string();
    assert_eq!(
        error,
        "the chat template refuses these messages: \
         Roles must alternate user/assistant/user/assistant/..."
    );
}

#[test]
fn the_template_of_a_tokenizer_makes_prompts_it_can_read() {
    for tokenizer in [read("byte_level"), built(byte_level_vocabulary("smollm"))] {
        let messages = [Message::new("user", "Hi")];
        let prompt = tokenizer.chat_template().unwrap().render_messages(&messages, true).unwrap();
        let options = EncodeOptions { add_special: false, parse_special: true };
        let ids = tokenizer.encode(&prompt, options).unwrap();
        assert_eq!(ids.iter().filter(|&&id| tokenizer.is_special(id)).count(), 5);
        assert_eq!(tokenizer.decode(&ids, false), prompt);
    }
}

#[test]
fn bad_templates_are_named_with_their_line() {
    let error = ChatTemplate::new("fine\n{% for x in %}", "", "").unwrap_err();
    assert!(matches!(error, TextError::ChatTemplateSyntax { .. }));
    assert!(error.to_string().contains(":2"), "{error}");

    let error = ChatTemplate::new("\n{{ messages.nothing.more }}", "", "").unwrap();
    let error = error.render_messages(&[], false).unwrap_err();
    assert!(matches!(error, TextError::ChatTemplateFailed { .. }));
    assert!(error.to_string().contains(":2"), "{error}");
}

#[test]
fn the_date_is_written_in_the_form_asked_for() {
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", "", "").unwrap();
    let date = template.render_messages(&[], false).unwrap();
    let parts: Vec<&str> = date.split(' ').collect();
    assert_eq!(parts.len(), 3, "{date}");
    assert!(parts[2].parse::<u32>().unwrap() >= 2024);
}
