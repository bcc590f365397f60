//! What kinds of objects a request to `/v1/responses` may hold, and why not others.

use crate::request::kinds::Kinds;

const HOSTED: &str = "it runs at the service, and there is none here; offer a function";
const OF_THE_SERVICE: &str = "it belongs to a tool of the service, and there is none here";
const TEXT_ONLY: &str = "this model reads text only";

const TOOLS_REFUSED: &[(&str, &str)] = &[
    ("custom", "calls without a schema are not supported; offer a function of one text"),
    ("namespace", "offer its functions one by one"),
    ("web_search", HOSTED),
    ("file_search", HOSTED),
    ("computer", HOSTED),
    ("code_interpreter", HOSTED),
    ("image_generation", HOSTED),
    ("local_shell", HOSTED),
    ("shell", HOSTED),
    ("apply_patch", HOSTED),
    ("mcp", HOSTED),
    ("tool_search", HOSTED),
    ("programmatic_tool_calling", HOSTED),
];

const PARTS: Kinds = Kinds {
    place: "input[].content[]",
    known: &["input_text", "output_text", "text", "refusal"],
    default: None,
    refused: &[
        ("input_image", TEXT_ONLY),
        ("input_file", TEXT_ONLY),
        ("input_audio", TEXT_ONLY),
        ("computer_screenshot", TEXT_ONLY),
    ],
};

/// All places that have kinds.
pub(crate) const KINDS: [Kinds; 7] = [
    Kinds {
        place: "input[]",
        known: &["message", "function_call", "function_call_output", "reasoning", "item_reference"],
        default: Some("message"),
        refused: &[
            ("custom_tool_call", "calls without a schema are not supported; use functions"),
            ("compaction", "the conversation is not compacted; send it whole, or use truncation"),
            ("file_search_call", OF_THE_SERVICE),
            ("web_search_call", OF_THE_SERVICE),
            ("computer_call", OF_THE_SERVICE),
            ("code_interpreter_call", OF_THE_SERVICE),
            ("image_generation_call", OF_THE_SERVICE),
            ("local_shell_call", OF_THE_SERVICE),
            ("shell_call", OF_THE_SERVICE),
            ("apply_patch_call", OF_THE_SERVICE),
            ("tool_search", OF_THE_SERVICE),
            ("mcp_", OF_THE_SERVICE),
            ("program", OF_THE_SERVICE),
        ],
    },
    Kinds { known: &["input_text", "output_text", "text", "refusal", "reasoning_text"], ..PARTS },
    Kinds { place: "input[].output[]", ..PARTS },
    Kinds { place: "tools[]", known: &["function"], default: None, refused: TOOLS_REFUSED },
    Kinds {
        place: "tool_choice",
        known: &["function", "allowed_tools"],
        default: None,
        refused: TOOLS_REFUSED,
    },
    Kinds {
        place: "tool_choice.tools[]",
        known: &["function"],
        default: None,
        refused: TOOLS_REFUSED,
    },
    Kinds {
        place: "text.format",
        known: &["text", "json_object", "json_schema"],
        default: None,
        refused: &[],
    },
];
