//! The fields of a request, in whatever way they came, as one question.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::kserve::fields::{Field, INFERENCE, Kind, Meaning};
use crate::kserve::outputs::Output;
use crate::kserve::tensor::{Tensor, bad};

/// The fields of a request by the names it gives them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Map<String, Value>);

/// What is asked for each prompt, and of the answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) prompts: Vec<String>,
    pub(crate) stream: Option<bool>,
    pub(crate) exclude_input: Option<bool>,
    /// The only token that ends an answer: none for the model's own, -1 for no token at all.
    pub(crate) end_token: Option<i64>,
    /// Outputs that flags ask for.
    pub(crate) outputs: Vec<Output>,
    /// The other fields, as `/v1/completions` reads them.
    pub(crate) completions: Map<String, Value>,
    /// What the request calls them, where that is something else.
    renamed: Vec<(&'static str, &'static str)>,
}

impl Fields {
    /// Adds fields of a JSON object.
    pub(crate) fn add_all(&mut self, object: Map<String, Value>) -> Result<(), ApiError> {
        object.into_iter().try_for_each(|(name, value)| self.add(&name, value))
    }

    /// Adds a field.
    pub(crate) fn add(&mut self, name: &str, value: Value) -> Result<(), ApiError> {
        if value.is_null() {
            return Ok(());
        }
        let Some(field) = Field::of(name) else {
            return INFERENCE.check(&mut Map::from_iter([(name.to_owned(), value)]));
        };
        let value = field.kind.read(name, value)?;
        if self.0.contains_key(name) {
            let message = format!("{name} is set twice; leave out one");
            return Err(ApiError::bad_request(message).param(name));
        }
        self.0.insert(name.to_owned(), value.clone());
        match (field.meaning, value) {
            (Meaning::More, Value::Object(more)) => self.add_all(more),
            _ => Ok(()),
        }
    }

    /// Adds a field that came as a tensor. All prompts of a request have the same fields: a tensor
    /// may have a row for each, but the rows are equal.
    pub(crate) fn add_tensor(&mut self, tensor: Tensor) -> Result<(), ApiError> {
        let Tensor { name, shape, elements } = tensor;
        let Some(field) = Field::of(&name) else {
            return self.add(&name, Value::Array(elements));
        };
        if field.meaning == Meaning::Prompts {
            return self.add(&name, Value::Array(elements));
        }
        let row = match (field.kind.is_list(), &shape[..]) {
            (true, [_, row]) => *row,
            (true, _) => elements.len(),
            (false, _) => 1,
        };
        if row == 0 {
            return self.add(&name, json!([]));
        }
        let mut rows = elements.chunks_exact(row);
        let Some(first) = rows.next() else {
            return Err(bad(&name, "is empty, expected one element"));
        };
        if rows.any(|row| row != first) {
            let problem =
                "differs from prompt to prompt; send the prompts in requests of their own";
            return Err(bad(&name, problem));
        }
        match first {
            [single] if !field.kind.is_list() => self.add(&name, single.clone()),
            row => self.add(&name, row.to_vec().into()),
        }
    }

    /// What all the fields together ask.
    pub(crate) fn into_question(self) -> Result<Question, ApiError> {
        let mut question = Question::default();
        let (mut guide, mut beam_width) = ((None, None), None);
        for (name, value) in self.0 {
            let field = Field::of(&name).expect("only known fields were added");
            match field.meaning {
                Meaning::Prompts => question.prompts = texts(value),
                Meaning::More | Meaning::Nothing => {}
                Meaning::Stream => question.stream = value.as_bool(),
                Meaning::ExcludeInput => question.exclude_input = value.as_bool(),
                Meaning::EndToken => question.end_token = value.as_i64(),
                Meaning::Shows(outputs) if value == true => question.outputs.extend(outputs),
                Meaning::Shows(_) => {}
                Meaning::Timeout if value == 0 => {}
                Meaning::Timeout => {
                    let seconds = value.as_f64().unwrap_or_default() / 1e6;
                    question.set(field, "timeout", seconds.into())?;
                }
                Meaning::BeamWidth if value == 1 => {}
                Meaning::BeamWidth => beam_width = Some((field, value)),
                Meaning::GuideType => guide.0 = Some(value),
                Meaning::Guide => guide.1 = Some(value),
                // Clients of the TensorRT-LLM back end send an empty text for none.
                Meaning::Completions(target) if field.kind == Kind::Texts => {
                    let texts = texts(value).into_iter().filter(|text| !text.is_empty());
                    question.set(field, target, texts.collect())?;
                }
                Meaning::Completions(target) => question.set(field, target, value)?,
            }
        }
        if let Some((field, width)) = beam_width {
            question.completions.entry("n").or_insert_with(|| width.clone());
            question.set(field, "use_beam_search", true.into())?;
            question.set(field, "best_of", width)?;
        }
        if let Some(form) = form(guide)? {
            let field = Field::of("guided_decoding_guide_type").expect("it is a known field");
            question.set(field, "structured_outputs", form)?;
        }
        if question.prompts.is_empty() {
            let message = "text_input is missing or empty; send the text to continue";
            return Err(ApiError::bad_request(message).param("text_input"));
        }
        Ok(question)
    }
}

impl Question {
    fn set(&mut self, field: &Field, target: &'static str, value: Value) -> Result<(), ApiError> {
        let name = field.name;
        if self.completions.insert(target.to_owned(), value).is_some() {
            let message = format!("{name} is set beside another name of {target}; leave out one");
            return Err(ApiError::bad_request(message).param(name));
        }
        if name != target {
            self.renamed.push((target, name));
        }
        Ok(())
    }

    /// An error about a field of `/v1/completions`, by the name that the request gives it.
    pub(crate) fn in_its_words(&self, error: ApiError) -> ApiError {
        let param = error.param.as_deref().unwrap_or_default();
        let (field, within) = match param.find('.') {
            Some(dot) => param.split_at(dot),
            None => (param, ""),
        };
        match self.renamed.iter().find(|(target, _)| *target == field) {
            Some((_, name)) => {
                let message = format!("{name}: {}", error.message);
                let param = format!("{name}{within}");
                ApiError { message, ..error }.param(param)
            }
            None => error,
        }
    }
}

fn texts(value: Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// The form of the answers, from its type and guide.
fn form(guide: (Option<Value>, Option<Value>)) -> Result<Option<Value>, ApiError> {
    let (kind, guide) = guide;
    let kind = kind.as_ref().and_then(Value::as_str);
    Ok(Some(match (kind, guide) {
        (None, None) => return Ok(None),
        (Some("json"), None) => json!({ "json_object": true }),
        (Some("json_schema"), Some(schema)) => json!({ "json": schema }),
        (Some("regex"), Some(regex)) => json!({ "regex": regex }),
        (kind, _) => {
            let got = kind.map_or_else(|| "no type".to_owned(), |kind| format!("{kind:?}"));
            let message = format!(
                "guided_decoding_guide_type has {got}, expected json without guided_decoding_guide, \
                 or json_schema or regex with it"
            );
            return Err(ApiError::bad_request(message).param("guided_decoding_guide_type"));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: Value) -> Result<Question, String> {
        let Value::Object(object) = body else { panic!("not an object") };
        let mut fields = Fields::default();
        let added = fields.add_all(object).and_then(|()| fields.into_question());
        added.map_err(|error| error.message)
    }

    #[test]
    fn names_are_translated() {
        let question = ask(json!({
            "text_input": "a", "stop_words": "", "bad_words": ["x", ""], "random_seed": u64::MAX,
            "runtime_top_k": "3", "timeout": 1_500_000, "end_id": 5, "pad_id": 9, "beam_width": 1,
            "sampling_parameters": "{\"temperature\": \"0.5\", \"min_length\": 2}",
            "return_log_probs": true, "return_logprobs": false, "lora_name": null,
        }));
        let question = question.unwrap();
        assert_eq!(question.prompts, ["a"]);
        assert_eq!(question.end_token, Some(5));
        assert_eq!(question.outputs, [Output::CumLogProbs, Output::TokenLogProbs]);
        let expected = json!({
            "stop": [], "bad_words": ["x"], "seed": -1, "top_k": 3, "timeout": 1.5,
            "temperature": 0.5, "min_tokens": 2,
        });
        assert_eq!(Value::from(question.completions), expected);
    }

    #[test]
    fn beams_and_forms() {
        let beams = |body| Value::from(ask(body).unwrap().completions);
        let expected = json!({ "use_beam_search": true, "best_of": 4, "n": 4 });
        assert_eq!(beams(json!({ "text_input": "a", "beam_width": 4 })), expected);
        let expected = json!({ "use_beam_search": true, "best_of": 4, "n": 2 });
        assert_eq!(beams(json!({ "text_input": "a", "beam_width": 4, "n": 2 })), expected);
        assert_eq!(beams(json!({ "n": 2, "text_input": "a", "beam_width": 4 })), expected);
        let guided = json!({
            "text_input": "a", "guided_decoding_guide_type": "regex", "guided_decoding_guide": "a+"
        });
        assert_eq!(beams(guided), json!({ "structured_outputs": { "regex": "a+" } }));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let cases = [
            (json!({}), "text_input is missing"),
            (json!({ "text_input": [] }), "text_input is missing"),
            (json!({ "text_input": 7 }), "text_input has a value of another kind"),
            (json!({ "text_input": "a", "max_token": 7 }), "nearest known one is max_tokens"),
            (json!({ "text_input": "a", "stop": "x", "stop_words": "y" }), "another name of stop"),
            (json!({ "text_input": "a", "lora_name": "x" }), "lora_name is not supported"),
            (json!({ "text_input": "a", "guided_decoding_guide": "x" }), "has no type"),
            (
                json!({ "text_input": "a", "top_p": 1, "sampling_parameters": { "top_p": 1 } }),
                "top_p is set twice",
            ),
            (
                json!({ "text_input": "a", "sampling_parameters": { "sampling_parameters": {} } }),
                "sampling_parameters is set twice",
            ),
        ];
        for (body, expected) in cases {
            let message = ask(body).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn tensors_may_have_a_row_for_each_prompt() {
        let add = |name: &str, shape: &[i64], elements: Value| {
            let elements = elements.as_array().unwrap().clone();
            let mut fields = Fields::default();
            let added = fields.add_tensor(Tensor::new(name, shape, elements).unwrap());
            added.map(|()| fields.0[name].clone()).map_err(|error| error.message)
        };
        assert_eq!(add("top_k", &[1], json!([3])), Ok(json!(3)));
        assert_eq!(add("top_k", &[2, 1], json!([3, 3])), Ok(json!(3)));
        assert!(add("top_k", &[2, 1], json!([3, 4])).unwrap_err().contains("differs"));
        assert!(add("top_k", &[0], json!([])).unwrap_err().contains("empty"));
        assert_eq!(add("stop_words", &[2, 2], json!(["a", "b", "a", "b"])), Ok(json!(["a", "b"])));
        assert_eq!(add("stop_words", &[2], json!(["a", "b"])), Ok(json!(["a", "b"])));
        assert_eq!(add("stop_words", &[0], json!([])), Ok(json!([])));
        assert!(add("stop_words", &[2, 1], json!(["a", "b"])).unwrap_err().contains("differs"));
        assert_eq!(add("text_input", &[2, 1], json!(["a", "b"])), Ok(json!(["a", "b"])));
    }
}
