//! Fields that clients send to `/v1/responses` and its types do not have.

use crate::request::fields::{Notes, Refused, Takes, WithoutEffect, refused, without_effect};

/// All there are.
pub(crate) const NOTES: [Notes; 8] = [
    Notes { of: "CreateResponse", without_effect: &LABELS, refused: &ANSWER },
    Notes { of: "CreateResponse", without_effect: &[], refused: &PROMPT },
    Notes { of: "ResponsePromptFields", without_effect: &[], refused: &PROMPT },
    Notes { of: "ResponseReasoning", without_effect: &REASONING, refused: &[] },
    Notes { of: "ResponseText", without_effect: &TEXT, refused: &[] },
    Notes { of: "ResponseTool", without_effect: &TOOL, refused: &TOOL_REFUSED },
    Notes { of: "ResponseItem", without_effect: &ITEM, refused: &ITEM_REFUSED },
    Notes { of: "ResponsePart", without_effect: &PART, refused: &[] },
];

const CACHED: &str = "cached beginnings stay as long as there is room; cache_salt separates them";
const LABEL: &str = "a label";
const LIBRARY: &str = "client libraries make it";
const THOUGHTS: &str = "thoughts are part of the text";

const LABELS: [WithoutEffect; 7] = [
    without_effect("max_tool_calls", Takes::Anything, "for tools of the service; there are none"),
    without_effect("prompt_cache_key", Takes::Text, CACHED),
    without_effect("prompt_cache_retention", Takes::Text, CACHED),
    without_effect("prompt_cache_options", Takes::Object, CACHED),
    without_effect("safety_identifier", Takes::Text, "a label; user is logged"),
    without_effect("service_tier", Takes::Text, "there is one tier; priority orders requests"),
    without_effect("stream_options", Takes::Object, "events are never padded"),
];

const PROMPT: [Refused; 2] = [
    refused("conversation", &[], "conversations are not kept; use previous_response_id"),
    refused("personality", &[], "say it in instructions"),
];

const ANSWER: [Refused; 8] = [
    refused("background", &["false"], "answers are made while the client waits; use stream"),
    refused("prompt", &[], "prompt templates are not kept; send instructions and input"),
    refused("context_management", &["[]"], "use truncation"),
    refused("moderation", &[], "answers are not moderated"),
    refused("access_programs", &[], "there are none"),
    refused("image", &[], "answers are text"),
    refused("n", &["1"], "a response is one answer; use /v1/chat/completions"),
    refused("messages", &[], "it is input here; or use /v1/chat/completions"),
];

const REASONING: [WithoutEffect; 4] = [
    without_effect("summary", Takes::Text, THOUGHTS),
    without_effect("generate_summary", Takes::Text, THOUGHTS),
    without_effect("context", Takes::Text, "the model sees what input holds"),
    without_effect("mode", Takes::Text, "there is one mode"),
];

const TEXT: [WithoutEffect; 1] = [without_effect(
    "verbosity",
    Takes::Text,
    "models here are not trained on it; say it in words",
)];

const TOOL: [WithoutEffect; 1] = [without_effect(
    "output_schema",
    Takes::Object,
    "what a function gives back is its own affair",
)];

const TOOL_REFUSED: [Refused; 3] = [
    refused("allowed_callers", &["[\"direct\"]"], "the model is the only caller"),
    refused("defer_loading", &["false"], "the model is told about every tool"),
    refused("async", &["false"], "a call is answered before the model goes on"),
];

const ITEM: [WithoutEffect; 6] = [
    without_effect("status", Takes::Text, LABEL),
    without_effect("phase", Takes::Text, LABEL),
    without_effect("summary", Takes::Anything, "the model does not see its thoughts again"),
    without_effect("encrypted_content", Takes::Text, "the model does not see its thoughts again"),
    without_effect("parsed_arguments", Takes::Anything, LIBRARY),
    without_effect("provider_data", Takes::Anything, LIBRARY),
];

const ITEM_REFUSED: [Refused; 3] = [
    refused("caller", &["{\"type\": \"direct\"}"], "the model is the only caller"),
    refused("namespace", &[], "functions have plain names"),
    refused("async", &["false"], "a call is answered before the model goes on"),
];

const PART: [WithoutEffect; 4] = [
    without_effect("annotations", Takes::Anything, "the text has what they refer to"),
    without_effect("logprobs", Takes::Anything, "they belong to the answer it was"),
    without_effect("prompt_cache_breakpoint", Takes::Object, CACHED),
    without_effect("parsed", Takes::Anything, LIBRARY),
];
