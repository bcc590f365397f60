//! Every field of a request: what Triton's vLLM and TensorRT-LLM back ends call it, and what it
//! means here.
//!
//! A field may come as an input tensor, as a parameter, at the top of a `/generate` body, or inside
//! `sampling_parameters`. Most are fields of `/v1/completions`, some under another name, and are
//! read by the same code.

use std::sync::LazyLock;

use serde_json::Value;

use crate::error::ApiError;
use crate::kserve::outputs::Output;
use crate::kserve::tensor::Datatype;
#[cfg(test)]
use crate::openai::field_sets::COMPLETIONS;
use crate::request::fields::{FieldSet, Honoured, Refused, refused};
use crate::request::shape::Shape;

/// A field that is honoured.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) meaning: Meaning,
    /// Empty if `/v1/completions` describes it.
    #[cfg_attr(not(test), expect(dead_code, reason = "the reference page is made by a test"))]
    description: &'static str,
}

/// What values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Texts,
    Integer,
    /// An integer of any 64 bits.
    Bits,
    Integers,
    Number,
    Flag,
    /// A JSON object, or one in a text.
    Object,
}

/// What a field is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The texts to continue.
    Prompts,
    /// More fields.
    More,
    Stream,
    /// Answers do not begin with their prompts.
    ExcludeInput,
    /// The only token that ends an answer.
    EndToken,
    /// Nothing, whatever the value.
    Nothing,
    /// A time in microseconds.
    Timeout,
    BeamWidth,
    GuideType,
    Guide,
    /// Asks for outputs.
    Shows(&'static [Output]),
    /// The field of this name of `/v1/completions`.
    Completions(&'static str),
}

const fn own(name: &'static str, kind: Kind, meaning: Meaning, description: &'static str) -> Field {
    Field { name, kind, meaning, description }
}

/// A field of `/v1/completions`.
const fn same(name: &'static str, kind: Kind) -> Field {
    renamed(name, kind, name)
}

/// A field that `/v1/completions` calls by another name.
const fn renamed(name: &'static str, kind: Kind, completions: &'static str) -> Field {
    own(name, kind, Meaning::Completions(completions), "")
}

/// All fields.
pub(crate) const FIELDS: [Field; 51] = [
    own("text_input", Kind::Texts, Meaning::Prompts, "The texts to continue."),
    own(
        "stream",
        Kind::Flag,
        Meaning::Stream,
        "Sends the answer as it is made; only where an answer can be several responses. If not set, \
         true for `/generate_stream` and false for ModelStreamInfer.",
    ),
    own(
        "sampling_parameters",
        Kind::Object,
        Meaning::More,
        "More of these fields, as a JSON object in a text.",
    ),
    own(
        "exclude_input_in_output",
        Kind::Flag,
        Meaning::ExcludeInput,
        "Leaves the prompt out of `text_output`. If not set, true for streams and false otherwise.",
    ),
    same("max_tokens", Kind::Integer),
    same("min_tokens", Kind::Integer),
    renamed("min_length", Kind::Integer, "min_tokens"),
    same("temperature", Kind::Number),
    same("top_k", Kind::Integer),
    renamed("runtime_top_k", Kind::Integer, "top_k"),
    same("top_p", Kind::Number),
    renamed("runtime_top_p", Kind::Number, "top_p"),
    same("min_p", Kind::Number),
    same("typical_p", Kind::Number),
    same("repetition_penalty", Kind::Number),
    same("presence_penalty", Kind::Number),
    same("frequency_penalty", Kind::Number),
    same("logit_bias", Kind::Object),
    same("seed", Kind::Bits),
    renamed("random_seed", Kind::Bits, "seed"),
    same("n", Kind::Integer),
    renamed("num_return_sequences", Kind::Integer, "n"),
    same("best_of", Kind::Integer),
    same("use_beam_search", Kind::Flag),
    own(
        "beam_width",
        Kind::Integer,
        Meaning::BeamWidth,
        "More than 1 searches for the most probable answers, with this many beams; all of them are \
         returned if `n` is not set.",
    ),
    same("length_penalty", Kind::Number),
    renamed("len_penalty", Kind::Number, "length_penalty"),
    same("stop", Kind::Texts),
    renamed("stop_words", Kind::Texts, "stop"),
    same("bad_words", Kind::Texts),
    same("stop_token_ids", Kind::Integers),
    own(
        "end_id",
        Kind::Integer,
        Meaning::EndToken,
        "The only token that ends an answer, instead of the model's own; -1 for none.",
    ),
    own("pad_id", Kind::Integer, Meaning::Nothing, "No effect: nothing is padded."),
    same("ignore_eos", Kind::Flag),
    same("skip_special_tokens", Kind::Flag),
    same("logprobs", Kind::Integer),
    same("structured_outputs", Kind::Object),
    renamed("guided_decoding", Kind::Object, "structured_outputs"),
    own(
        "guided_decoding_guide_type",
        Kind::Text,
        Meaning::GuideType,
        "The form of the answer: `json`, or `json_schema` or `regex` with `guided_decoding_guide`.",
    ),
    own("guided_decoding_guide", Kind::Text, Meaning::Guide, "The schema or regular expression."),
    same("priority", Kind::Integer),
    own("timeout", Kind::Integer, Meaning::Timeout, "Microseconds after which the request fails."),
    same("cache_salt", Kind::Text),
    same("user", Kind::Text),
    shows("return_finish_reason", &[Output::FinishReason], "Asks for `finish_reason`."),
    shows(
        "return_cumulative_logprob",
        &[Output::CumulativeLogprob],
        "Asks for `cumulative_logprob`.",
    ),
    shows("return_logprobs", &[Output::Logprobs], "Asks for `logprobs`."),
    shows(
        "return_log_probs",
        &[Output::CumLogProbs, Output::TokenLogProbs],
        "Asks for `cum_log_probs` and `output_log_probs`.",
    ),
    shows("return_num_input_tokens", &[Output::NumInputTokens], "Asks for `num_input_tokens`."),
    shows("return_num_output_tokens", &[Output::NumOutputTokens], "Asks for `num_output_tokens`."),
    own(
        "triton_enable_empty_final_response",
        Kind::Flag,
        Meaning::Nothing,
        "No effect: the last response of a stream is marked, and its text empty, in any case.",
    ),
];

const fn shows(name: &'static str, outputs: &'static [Output], description: &'static str) -> Field {
    own(name, Kind::Flag, Meaning::Shows(outputs), description)
}

/// Fields that the back ends have and this server does not.
pub(crate) const REFUSED: [Refused; 22] = [
    refused("streaming", &["false"], "use stream"),
    refused("echo", &[], "use exclude_input_in_output"),
    refused("prompt", &[], "use text_input"),
    refused("early_stopping", &["1"], "a beam search ends when no beam can become better"),
    refused("beam_search_diversity_rate", &["0", "0.0"], "beams are chosen by probability alone"),
    refused("prompt_logprobs", &[], "use /v1/completions"),
    refused("response_format", &[], "use structured_outputs"),
    refused("embedding_bias_words", &["[]"], "use logit_bias"),
    refused("embedding_bias_weights", &["[]"], "use logit_bias"),
    refused("return_context_logits", &["false"], "logits are not sent; use logprobs"),
    refused("return_generation_logits", &["false"], "logits are not sent; use logprobs"),
    refused("return_perf_metrics", &["false"], "see /metrics and the model's /stats"),
    refused("decoder_text_input", &["\"\""], "models here have no encoder"),
    refused("image", &["[]"], "models here read text"),
    refused("prompt_embedding_table", &[], "send text"),
    refused("prompt_vocab_size", &[], "send text"),
    refused("lora_name", &[], "adapters are not supported; serve the merged model"),
    refused("lora_task_id", &[], "adapters are not supported; serve the merged model"),
    refused("lora_weights", &[], "adapters are not supported; serve the merged model"),
    refused("lora_config", &[], "adapters are not supported; serve the merged model"),
    refused("sequence_id", &["0", "\"\""], "models here keep no state between requests"),
    refused("embedding_request", &[], "a decoder has no embeddings; ask an encoder model"),
];

/// The fields for the reference page, and for messages about unknown ones.
pub(crate) static INFERENCE: LazyLock<FieldSet> = LazyLock::new(|| FieldSet {
    honoured: FIELDS.iter().map(Field::honoured).collect(),
    without_effect: Vec::new(),
    refused: REFUSED.iter().collect(),
});

impl Field {
    /// The field of this name.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    fn honoured(&self) -> Honoured {
        Honoured {
            name: self.name.to_owned(),
            // What is within is checked as a field of completions.
            shape: Shape::Free,
            constant: None,
            #[cfg(test)]
            description: self.description(),
            #[cfg(test)]
            required: self.meaning == Meaning::Prompts,
        }
    }

    /// What it does, for the reference page.
    #[cfg(test)]
    fn description(&self) -> String {
        let known = |name: &str| COMPLETIONS.honoured.iter().find(|field| field.name == name);
        match self.meaning {
            Meaning::Completions(name) if name != self.name => format!("Another name of `{name}`."),
            Meaning::Completions(name) => {
                known(name).map(|field| field.description.clone()).unwrap_or_default()
            }
            _ => self.description.to_owned(),
        }
    }
}

impl Kind {
    /// The type of a tensor with such values, and how many there are: -1 for any number.
    pub(crate) const fn tensor(self) -> (Datatype, i64) {
        match self {
            Self::Text | Self::Object => (Datatype::Bytes, 1),
            Self::Texts => (Datatype::Bytes, -1),
            Self::Integer => (Datatype::Int32, 1),
            Self::Bits => (Datatype::Uint64, 1),
            Self::Integers => (Datatype::Int32, -1),
            Self::Number => (Datatype::Fp32, 1),
            Self::Flag => (Datatype::Bool, 1),
        }
    }

    /// Whether a value is a list.
    pub(crate) const fn is_list(self) -> bool {
        matches!(self, Self::Texts | Self::Integers)
    }

    /// A value of this kind. Numbers and flags may be written as text, as clients of the vLLM back
    /// end do.
    pub(crate) fn read(self, name: &str, value: Value) -> Result<Value, ApiError> {
        let read = match (self, value) {
            (Self::Texts | Self::Text, value @ Value::String(_)) => Some(value),
            (Self::Texts, Value::Array(texts)) => {
                texts.iter().all(Value::is_string).then_some(Value::Array(texts))
            }
            (Self::Integers, Value::Array(ids)) => {
                ids.iter().all(Value::is_i64).then_some(Value::Array(ids))
            }
            (Self::Integers, Value::Number(id)) => Some(vec![Value::Number(id)].into()),
            (Self::Object, Value::String(text)) => {
                serde_json::from_str(&text).ok().filter(Value::is_object)
            }
            (Self::Object, value @ Value::Object(_)) => Some(value),
            (Self::Number, Value::String(text)) => {
                text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
            }
            (Self::Number, value @ Value::Number(_)) => Some(value),
            (Self::Integer, Value::String(text)) => {
                text.trim().parse::<i64>().ok().map(Value::from)
            }
            (Self::Integer, Value::Number(number)) => number.as_i64().map(Value::from),
            (Self::Bits, Value::String(text)) => {
                bits(text.trim().parse().ok(), text.trim().parse().ok())
            }
            (Self::Bits, Value::Number(number)) => bits(number.as_i64(), number.as_u64()),
            (Self::Flag, Value::String(text)) => {
                text.trim().to_ascii_lowercase().parse::<bool>().ok().map(Value::from)
            }
            (Self::Flag, value @ Value::Bool(_)) => Some(value),
            _ => None,
        };
        read.ok_or_else(|| {
            let expected = match self {
                Self::Text => "a text",
                Self::Texts => "a text or a list of texts",
                Self::Integer | Self::Bits => "an integer",
                Self::Integers => "a list of integers",
                Self::Number => "a number",
                Self::Flag => "true or false",
                Self::Object => "a JSON object",
            };
            ApiError::bad_request(format!(
                "{name} has a value of another kind, expected {expected}"
            ))
            .param(name)
        })
    }
}

/// 64 bits, as a number with a sign.
fn bits(signed: Option<i64>, unsigned: Option<u64>) -> Option<Value> {
    signed.or(unsigned.map(|bits| bits as i64)).map(Value::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_has_a_description_and_one_row() {
        for field in &INFERENCE.honoured {
            assert!(!field.description.is_empty(), "{}", field.name);
            assert_eq!(FIELDS.iter().filter(|other| other.name == field.name).count(), 1);
            assert!(REFUSED.iter().all(|other| other.name != field.name), "{}", field.name);
        }
        for Field { name, meaning, .. } in &FIELDS {
            if let Meaning::Completions(target) = meaning {
                let known = COMPLETIONS.honoured.iter().any(|field| field.name == *target);
                assert!(known, "{name} is {target}, which /v1/completions has not");
            }
        }
    }

    #[test]
    fn values_may_be_written_as_text() {
        let read = |kind: Kind, value| kind.read("x", value).ok();
        assert_eq!(read(Kind::Number, json!("0.25")), Some(json!(0.25)));
        assert_eq!(read(Kind::Number, json!("inf")), None);
        assert_eq!(read(Kind::Integer, json!(" 7")), Some(json!(7)));
        assert_eq!(read(Kind::Integer, json!(7.5)), None);
        assert_eq!(read(Kind::Flag, json!("True")), Some(json!(true)));
        assert_eq!(read(Kind::Flag, json!(1)), None);
        assert_eq!(read(Kind::Bits, json!(u64::MAX)), Some(json!(-1)));
        assert_eq!(read(Kind::Object, json!("{\"a\": 1}")), Some(json!({"a": 1})));
        assert_eq!(read(Kind::Object, json!("[1]")), None);
        assert_eq!(read(Kind::Texts, json!("a")), Some(json!("a")));
        assert_eq!(read(Kind::Texts, json!(["a", 1])), None);
    }
}
