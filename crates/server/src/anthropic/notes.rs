//! Fields that clients send to `/v1/messages` and its types do not have.

use crate::request::fields::{Notes, Refused, Takes, WithoutEffect, refused, without_effect};

/// All there are.
pub(crate) const NOTES: [Notes; 6] = [
    Notes { of: "CreateMessage", without_effect: &LABELS, refused: &REFUSED },
    Notes { of: "CountMessageTokens", without_effect: &LABELS, refused: &REFUSED },
    Notes { of: "MessagesThinking", without_effect: &THINKING, refused: &[] },
    Notes { of: "MessagesBlock", without_effect: &BLOCK, refused: &BLOCK_REFUSED },
    Notes { of: "MessagesTextBlock", without_effect: &BLOCK, refused: &BLOCK_REFUSED },
    Notes { of: "MessagesTool", without_effect: &TOOL, refused: &TOOL_REFUSED },
];

const CACHED: &str = "cached beginnings stay as long as there is room; cache_salt separates them";

const LABELS: [WithoutEffect; 9] = [
    without_effect("cache_control", Takes::Anything, CACHED),
    without_effect("service_tier", Takes::Text, "there is one tier; priority orders requests"),
    without_effect("speed", Takes::Text, "there is one speed"),
    without_effect("inference_geo", Takes::Text, "the answer is made on this machine"),
    without_effect("user_profile_id", Takes::Text, "a label; metadata.user_id is logged"),
    without_effect("workspace_id", Takes::Text, "there is one workspace"),
    without_effect("diagnostics", Takes::Object, "usage says what was in the cache"),
    without_effect("anthropic_version", Takes::Text, "there is one version"),
    without_effect("anthropic_beta", Takes::Anything, "what is there needs no leave"),
];

const REFUSED: [Refused; 4] = [
    refused("container", &[], "code is not run here"),
    refused("mcp_servers", &["[]"], "the server calls no other; offer their tools as functions"),
    refused("context_management", &CONTEXT_EDITS, "send the conversation that the model is to see"),
    refused("output_format", &[], "use output_config.format"),
];

/// Edits that ask for what is so in any case.
const CONTEXT_EDITS: [&str; 3] = [
    r#"{"edits": []}"#,
    r#"{"edits": [{"type": "clear_thinking_20251015"}]}"#,
    r#"{"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}"#,
];

const THINKING: [WithoutEffect; 2] = [
    without_effect(
        "budget_tokens",
        Takes::Anything,
        "thoughts are part of the text, which max_tokens limits",
    ),
    without_effect("display", Takes::Text, "thoughts are part of the text"),
];

const BLOCK: [WithoutEffect; 3] = [
    without_effect("cache_control", Takes::Anything, CACHED),
    without_effect("signature", Takes::Text, "it belongs to the model that made it"),
    without_effect("data", Takes::Text, "it belongs to the model that made it"),
];

const BLOCK_REFUSED: [Refused; 3] = [
    refused("citations", &["[]"], "texts have no sources"),
    refused("caller", &["{\"type\": \"direct\"}"], "the model is the only caller"),
    refused("toolset_name", &[], "tools have plain names"),
];

const TOOL: [WithoutEffect; 3] = [
    without_effect("cache_control", Takes::Anything, CACHED),
    without_effect(
        "input_examples",
        Takes::Anything,
        "the model sees name, description and schema",
    ),
    without_effect("eager_input_streaming", Takes::Flag, "arguments are sent as they are made"),
];

const TOOL_REFUSED: [Refused; 2] = [
    refused("allowed_callers", &["[\"direct\"]"], "the model is the only caller"),
    refused("defer_loading", &["false"], "the model is told about every tool"),
];
