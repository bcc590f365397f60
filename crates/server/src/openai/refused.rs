//! Fields that OpenAI's or vLLM's API has and this server does not.

use crate::request::fields::{Refused, refused};

/// Of chat and completions.
pub(crate) const SHARED: [Refused; 17] = [
    refused("service_tier", &["\"auto\"", "\"default\""], "there is one tier; use priority"),
    refused("truncate_prompt_tokens", &[], "prompts are never shortened; send a shorter one"),
    refused(
        "allowed_token_ids",
        &[],
        "use structured_outputs.choice, or logit_bias with -100 for the others",
    ),
    refused("include_stop_str_in_output", &["false"], "an answer ends before its stop string"),
    refused("spaces_between_special_tokens", &["true"], "text is shown as the tokens spell it"),
    refused("return_tokens_as_token_ids", &["false"], "use /tokenize for ids"),
    refused("return_token_ids", &["false"], "use /tokenize for ids"),
    refused("early_stopping", &["false"], "a beam search ends when no beam can become better"),
    refused("guided_json", &[], "use structured_outputs.json or response_format"),
    refused("guided_regex", &[], "use structured_outputs.regex"),
    refused("guided_choice", &[], "use structured_outputs.choice"),
    refused("guided_grammar", &[], "use structured_outputs.grammar"),
    refused("guided_decoding_backend", &[], "there is one; leave it out"),
    refused("logits_processors", &["[]"], "requests carry no code; use logit_bias"),
    refused("request_id", &[], "send the header x-request-id"),
    refused("lora_request", &[], "adapters are not supported; serve the merged model"),
    refused("stream_interval", &["1"], "every token is sent when it is chosen"),
];

/// Of chat.
pub(crate) const CHAT: [Refused; 22] = [
    refused("store", &["false"], "nothing is stored"),
    refused("metadata", &["{}"], "it belongs to stored completions, and nothing is stored"),
    refused("modalities", &["[\"text\"]"], "answers are text"),
    refused("audio", &[], "answers are text"),
    refused("prediction", &[], "there is no speculation on a given answer"),
    refused("web_search_options", &[], "the server does not search the web"),
    refused("functions", &["[]"], "use tools"),
    refused("function_call", &["\"none\"", "\"auto\""], "use tool_choice"),
    refused("reasoning_effort", &[], "use chat_template_kwargs if the model's template has such"),
    refused("verbosity", &["\"medium\""], "say it in the prompt"),
    refused("moderation", &[], "answers are not moderated"),
    refused("safety_identifier", &[], "use user"),
    refused(
        "prompt_cache_key",
        &[],
        "beginnings are shared without it; use cache_salt to separate",
    ),
    refused("prompt_cache_retention", &[], "cached beginnings stay as long as there is room"),
    refused("prompt_cache_options", &[], "cached beginnings stay as long as there is room"),
    refused("echo", &["false"], "use /v1/completions"),
    refused("add_special_tokens", &["false"], "the chat template writes special tokens itself"),
    refused("documents", &["[]"], "put them into the messages"),
    refused("chat_template", &[], "templates are code: the model is served with its own"),
    refused("include_reasoning", &["true"], "answers are shown whole"),
    refused("mm_processor_kwargs", &[], "messages are text"),
    refused("suffix", &["\"\""], "models here continue text and do not fill gaps"),
];

/// Of completions.
pub(crate) const COMPLETIONS: [Refused; 3] = [
    refused("suffix", &["\"\""], "models here continue text and do not fill gaps"),
    refused("prompt_embeds", &[], "send text or token ids"),
    refused("messages", &[], "use /v1/chat/completions"),
];

/// Of messages.
pub(crate) const MESSAGE: [Refused; 8] = [
    refused("refusal", &["\"\""], "put it into content"),
    refused("audio", &[], "messages are text"),
    refused("annotations", &["[]"], "messages are text"),
    refused("function_call", &[], "use tool_calls"),
    refused("reasoning", &["\"\""], "put it into content if the model is to see it"),
    refused("reasoning_content", &["\"\""], "put it into content if the model is to see it"),
    refused("prefix", &["false"], "use continue_final_message"),
    refused("parsed", &[], "it is made by the client library; leave it out"),
];

/// Of `/tokenize`.
pub(crate) const TOKENIZE: [Refused; 2] = [
    refused("chat_template", &[], "templates are code: the model is served with its own"),
    refused("mm_processor_kwargs", &[], "messages are text"),
];
