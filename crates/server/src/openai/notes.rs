//! Fields that clients send and the request types do not have: without effect, or refused.
//!
//! A field is without effect if it changes nothing about the answer, here or at OpenAI: labels,
//! hints for caches and tiers, and what client libraries leave in the messages that they send back.
//! A field that would change the answer and cannot is refused.

use crate::request::fields::{Notes, Refused, Takes, WithoutEffect, refused, without_effect};

/// All there are.
pub(crate) const NOTES: [Notes; 17] = [
    Notes { of: "ChatRequest", without_effect: &LABELS, refused: &SHARED },
    Notes { of: "ChatRequest", without_effect: &CHAT_LABELS, refused: &CHAT },
    Notes { of: "CompletionRequest", without_effect: &LABELS, refused: &SHARED },
    Notes { of: "CompletionRequest", without_effect: &[], refused: &COMPLETIONS },
    Notes { of: "TokenizeRequest", without_effect: &[], refused: &TOKENIZE },
    Notes { of: "StreamOptions", without_effect: &STREAM_OPTIONS, refused: &[] },
    Notes { of: "StructuredOutputs", without_effect: &[], refused: &STRUCTURED_OUTPUTS },
    Notes { of: "JsonSchemaFormat", without_effect: &JSON_SCHEMA, refused: &[] },
    Notes { of: "ChatMessage", without_effect: &ECHOED, refused: &MESSAGE },
    Notes { of: "ChatMessage", without_effect: &MESSAGE_ECHOED, refused: &[] },
    Notes { of: "ContentPart", without_effect: &ECHOED, refused: &[] },
    Notes { of: "ContentPart", without_effect: &PART_ECHOED, refused: &[] },
    Notes { of: "PastCall", without_effect: &ECHOED, refused: &[] },
    Notes { of: "PastCall", without_effect: &CALL_ECHOED, refused: &[] },
    Notes { of: "PastFunction", without_effect: &FUNCTION_ECHOED, refused: &[] },
    Notes { of: "ToolField", without_effect: &ECHOED, refused: &[] },
    Notes { of: "FunctionField", without_effect: &ECHOED, refused: &[] },
];

const BEGINNINGS: &str = "beginnings are shared without it; use cache_salt to separate";
const LIBRARY: &str = "client libraries add it to answers";
const CACHED: &str = "beginnings are cached in any case";

/// Of chat and completions.
const LABELS: [WithoutEffect; 9] = [
    without_effect("metadata", Takes::Object, "a label of stored answers; nothing is stored"),
    without_effect("store", Takes::Flag, "nothing is stored"),
    without_effect("service_tier", Takes::Text, "there is one tier; priority orders requests"),
    without_effect("safety_identifier", Takes::Text, "a label; user is logged"),
    without_effect("prompt_cache_key", Takes::Text, BEGINNINGS),
    without_effect("prompt_cache_retention", Takes::Text, CACHED),
    without_effect("prompt_cache_options", Takes::Object, CACHED),
    without_effect("cache_prompt", Takes::Flag, CACHED),
    without_effect("guided_decoding_backend", Takes::Text, "there is one"),
];

/// Of chat.
const CHAT_LABELS: [WithoutEffect; 3] = [
    without_effect("verbosity", Takes::Text, "models here are not trained on it; say it in words"),
    without_effect("moderation", Takes::Anything, "answers are not moderated"),
    without_effect(
        "prediction",
        Takes::Object,
        "it makes some servers faster, not the answer other",
    ),
];

const STREAM_OPTIONS: [WithoutEffect; 1] =
    [without_effect("include_obfuscation", Takes::Flag, "events are never padded")];

const JSON_SCHEMA: [WithoutEffect; 3] = [
    without_effect("name", Takes::Text, "a label"),
    without_effect("description", Takes::Text, "the model sees what the messages say"),
    without_effect("strict", Takes::Flag, "the answer satisfies the schema in any case"),
];

/// Of everything in a conversation that comes back.
const ECHOED: [WithoutEffect; 8] = [
    without_effect("cache_control", Takes::Anything, CACHED),
    without_effect("provider_specific_fields", Takes::Anything, LIBRARY),
    without_effect("provider_metadata", Takes::Anything, LIBRARY),
    without_effect("providerMetadata", Takes::Anything, LIBRARY),
    without_effect("providerOptions", Takes::Anything, LIBRARY),
    without_effect("experimental_providerMetadata", Takes::Anything, LIBRARY),
    without_effect("extra_content", Takes::Anything, LIBRARY),
    without_effect("thought_signature", Takes::Anything, "it belongs to the model that made it"),
];

/// Of messages.
const MESSAGE_ECHOED: [WithoutEffect; 17] = [
    without_effect("id", Takes::Text, "a label"),
    without_effect("status", Takes::Text, "a label"),
    without_effect("created_at", Takes::Anything, "a label"),
    without_effect("createdAt", Takes::Anything, "a label"),
    without_effect("timestamp", Takes::Anything, "a label"),
    without_effect("metadata", Takes::Object, "a label"),
    without_effect("annotations", Takes::Anything, "the content has what they refer to"),
    without_effect("citations", Takes::Anything, "the content has what they refer to"),
    without_effect("parsed", Takes::Anything, "client libraries make it of the content"),
    without_effect("additional_kwargs", Takes::Object, LIBRARY),
    without_effect("response_metadata", Takes::Object, LIBRARY),
    without_effect("usage_metadata", Takes::Object, LIBRARY),
    without_effect("model_extra", Takes::Object, LIBRARY),
    without_effect("thinking_blocks", Takes::Anything, "reasoning_content says the same"),
    without_effect("reasoning_details", Takes::Anything, "reasoning says the same"),
    without_effect("reasoning_signature", Takes::Anything, "it belongs to the model that made it"),
    without_effect("is_error", Takes::Flag, "the content says so"),
];

/// Of parts of messages.
const PART_ECHOED: [WithoutEffect; 7] = [
    without_effect("id", Takes::Text, "a label"),
    without_effect("status", Takes::Text, "a label"),
    without_effect("index", Takes::Anything, "the place in the list says the same"),
    without_effect("annotations", Takes::Anything, "the text has what they refer to"),
    without_effect("citations", Takes::Anything, "the text has what they refer to"),
    without_effect("logprobs", Takes::Anything, "they belong to the answer it was"),
    without_effect("signature", Takes::Text, "it belongs to the model that made it"),
];

/// Of calls in messages.
const CALL_ECHOED: [WithoutEffect; 4] = [
    without_effect("index", Takes::Anything, "the place in the list says the same"),
    without_effect("status", Takes::Text, "a label"),
    without_effect("call_id", Takes::Text, "id says the same"),
    without_effect("caller", Takes::Anything, "a label"),
];

/// Of functions in such calls.
const FUNCTION_ECHOED: [WithoutEffect; 5] = [
    without_effect("parsed_arguments", Takes::Anything, "arguments say the same"),
    without_effect("output", Takes::Anything, "the message of the role tool says it"),
    without_effect("description", Takes::Text, "tools say it"),
    without_effect("provider_specific_fields", Takes::Anything, LIBRARY),
    without_effect("thought_signature", Takes::Anything, "it belongs to the model that made it"),
];

/// Of chat and completions.
const SHARED: [Refused; 17] = [
    refused("spaces_between_special_tokens", &["true"], "text is shown as the tokens spell it"),
    refused("early_stopping", &["false"], "a beam search ends when no beam can become better"),
    refused("guided_whitespace_pattern", &[], "JSON has at most one space after a separator"),
    refused("logits_processors", &["[]"], "requests carry no code; use logit_bias"),
    refused("request_id", &[], "send the header x-request-id"),
    refused("lora_request", &[], "adapters are not supported; serve the merged model"),
    refused("stream_interval", &["1"], "every token is sent when it is chosen"),
    refused(
        "extra_body",
        &["{}"],
        "an option of client libraries; set its fields beside the others",
    ),
    refused("mirostat", &["0"], "use temperature, top_p, min_p or typical_p"),
    refused("samplers", &[], "the order of the filters is fixed"),
    refused("dry_multiplier", &["0", "0.0"], "use repetition_penalty"),
    refused("xtc_probability", &["0", "0.0"], "use min_p or temperature"),
    refused("dynatemp_range", &["0", "0.0"], "use temperature"),
    refused("repeat_last_n", &["-1"], "the penalties see the whole text"),
    refused("n_keep", &["0", "-1"], "prompts are shortened by truncate_prompt_tokens only"),
    refused("ignore_stop_token", &["false"], "use ignore_eos"),
    refused("kv_transfer_params", &[], "caches are not sent to other servers"),
];

/// Of chat.
const CHAT: [Refused; 17] = [
    refused("modalities", &["[\"text\"]"], "answers are text"),
    refused("audio", &[], "answers are text"),
    refused("web_search_options", &[], "the server does not search the web"),
    refused("functions", &["[]"], "use tools"),
    refused("function_call", &["\"none\"", "\"auto\""], "use tool_choice"),
    refused("echo", &["false"], "use /v1/completions"),
    refused("add_special_tokens", &["false"], "the chat template writes special tokens itself"),
    refused("documents", &["[]"], "put them into the messages"),
    refused("chat_template", &[], "templates are code: the model is served with its own"),
    refused("include_reasoning", &["true"], "answers are shown whole"),
    refused("reasoning_format", &["\"none\"", "\"auto\""], "answers are shown whole"),
    refused("mm_processor_kwargs", &["{}"], "messages are text"),
    refused("suffix", &["\"\""], "models here continue text and do not fill gaps"),
    refused("enable_thinking", &[], "set it in chat_template_kwargs"),
    refused("thinking", &[], "use reasoning_effort, or chat_template_kwargs"),
    refused("reasoning", &["{}"], "use reasoning_effort"),
    refused("prompt", &[], "use messages, or /v1/completions"),
];

/// Of completions.
const COMPLETIONS: [Refused; 3] = [
    refused("suffix", &["\"\""], "models here continue text and do not fill gaps"),
    refused("prompt_embeds", &[], "send text or token ids"),
    refused("messages", &[], "use /v1/chat/completions"),
];

const STRUCTURED_OUTPUTS: [Refused; 5] = [
    refused("structural_tag", &[], "use tools with strict, or grammar"),
    refused("whitespace_pattern", &[], "JSON has at most one space after a separator"),
    refused("disable_any_whitespace", &["false"], "JSON has at most one space after a separator"),
    refused("disable_fallback", &["true"], "there is one way and no other to fall back to"),
    refused(
        "disable_additional_properties",
        &["true"],
        "objects are closed unless their schema opens them",
    ),
];

/// Of messages.
const MESSAGE: [Refused; 3] = [
    refused("audio", &[], "messages are text"),
    refused("images", &["[]"], "messages are text"),
    refused("prefix", &["false"], "use continue_final_message"),
];

/// Of `/tokenize`.
const TOKENIZE: [Refused; 2] = [
    refused("chat_template", &[], "templates are code: the model is served with its own"),
    refused("mm_processor_kwargs", &["{}"], "messages are text"),
];
