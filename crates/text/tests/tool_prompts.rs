//! Tools in prompts: by templates that know them, and by those that do not.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{ChatTemplate, Message, RenderInput, TextError, Tool, ToolCall};
use fixtures::{data, json, smollm2};
use serde_json::{Map, Value, json};

fn template(name: &str) -> ChatTemplate {
    let path = data("templates").join(name).with_extension("jinja");
    ChatTemplate::new(&std::fs::read_to_string(path).unwrap(), "<s>", "</s>").unwrap()
}

#[test]
fn templates_that_know_tools_render_as_in_transformers() {
    let rows = json("tool_templates.json");
    for row in rows.as_array().unwrap() {
        let name = row["template"].as_str().unwrap();
        let template = template(name);
        assert!(template.knows_tools(), "{name}");
        let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let tools: Vec<Tool> = serde_json::from_value(row["tools"].clone()).unwrap();
        let extra: Map<String, Value> = serde_json::from_value(row["extra"].clone()).unwrap();
        let rendered = template.render(&RenderInput {
            messages: &messages,
            tools: &tools,
            add_generation_prompt: true,
            extra: Some(&extra),
        });
        match rendered {
            Ok(text) => assert_eq!(text, row["text"], "{name} {messages:?}"),
            Err(TextError::ChatTemplateRefused { reason }) => assert_eq!(reason, row["refusal"]),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// A conversation about the weather, up to the result of a call.
fn conversation() -> Vec<Message> {
    let call = ToolCall::new("call_1", "weather", json!({"city": "Köln"}));
    let result = Message { tool_call_id: Some("call_1".into()), ..Message::new("tool", "sunny") };
    vec![
        Message::new("user", "Is it raining in Köln?"),
        Message { tool_calls: vec![call], content: None, ..Message::new("assistant", "") },
        result.clone(),
        Message { content: Some("21 °C".into()), ..result },
    ]
}

fn tools() -> [Tool; 1] {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    [Tool::new("weather", "The weather of a city", city)]
}

#[test]
fn a_template_that_ignores_tools_gets_them_as_text() {
    let tokenizer = smollm2();
    let template = tokenizer.chat_template().unwrap();
    assert!(!template.knows_tools());
    let (messages, tools) = (conversation(), tools());
    let input = RenderInput {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        extra: None,
    };
    let prompt = template.render(&input).unwrap();
    let (system, turns) = prompt.split_once("<|im_end|>\n").unwrap();
    assert!(system.starts_with("<|im_start|>system\nYou can call functions."), "{system}");
    assert!(system.contains(
        "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \
         \"The weather of a city\", "
    ));
    assert_eq!(
        turns,
        "<|im_start|>user\nIs it raining in Köln?<|im_end|>\n\
         <|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \
         \"Köln\"}}\n</tool_call><|im_end|>\n\
         <|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n\
         <tool_response>\n21 °C\n</tool_response><|im_end|>\n\
         <|im_start|>assistant\n"
    );

    // A system message of the request comes first.
    let mut with_system = vec![Message::new("system", "Be brief.")];
    with_system.extend(messages.clone());
    let prompt = template.render(&RenderInput { messages: &with_system, ..input }).unwrap();
    assert!(prompt.starts_with("<|im_start|>system\nBe brief.\n\nYou can call functions."));
    assert_eq!(prompt.matches("<|im_start|>system").count(), 1);

    // Without tools nothing is said about them.
    let plain = [Message::new("user", "Hi")];
    let prompt = template.render_messages(&plain, true).unwrap();
    assert!(!prompt.contains("tool"), "{prompt}");
}

#[test]
fn a_template_without_system_messages_gets_them_in_the_question() {
    let source = "{% for m in messages %}{% if m.role == 'system' %}\
                  {{ raise_exception('System role not supported') }}{% endif %}\
                  [{{ m.role }}] {{ m.content }}\n{% endfor %}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    let (messages, tools) = (conversation(), tools());
    let input = RenderInput { messages: &messages[..1], tools: &tools, ..RenderInput::default() };
    let prompt = template.render(&input).unwrap();
    assert!(prompt.starts_with("[user] You can call functions."), "{prompt}");
    assert!(prompt.ends_with("\n\nIs it raining in Köln?\n"), "{prompt}");

    // What the template refuses for another reason stays refused.
    let system = [Message::new("system", "Be brief.")];
    let error = template.render(&RenderInput { messages: &system, ..input }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template refuses these messages: System role not supported"
    );
}

#[test]
fn only_a_variable_of_that_name_counts_as_knowing_tools() {
    let knows = |source: &str| ChatTemplate::new(source, "", "").unwrap().knows_tools();
    assert!(knows("{% if tools %}{{ tools | tojson }}{% endif %}"));
    assert!(knows("{%- if not tools is defined %}{%- set tools = none %}{%- endif %}{{ tools }}"));
    assert!(!knows("Here are no tools. {{ 'tools' }} {{ messages[0].tools }}"));
}

#[test]
fn more_variables_reach_the_template_but_replace_none() {
    let template = ChatTemplate::new("{{ mood }}{{ messages | length }}", "", "").unwrap();
    let render = |extra: Value| {
        let extra = extra.as_object().cloned();
        template.render(&RenderInput { extra: extra.as_ref(), ..RenderInput::default() })
    };
    assert_eq!(render(json!({"mood": "good"})).unwrap(), "good0");
    let error = render(json!({"messages": []})).unwrap_err().to_string();
    assert!(error.contains("\"messages\"") && !error.contains('\n'), "{error}");
}
