//! What kinds of objects a request to `/v1/messages` may hold, and why not others.

use crate::request::kinds::Kinds;

const HOSTED: &str = "its schema is known to the service only; offer a tool with an input_schema";
const OF_THE_SERVICE: &str = "it belongs to a tool of the service, and there is none here";
const TEXT_ONLY: &str = "this model reads text only";

const BLOCKS: Kinds = Kinds {
    place: "messages[].content[]",
    known: &["text", "tool_use", "tool_result", "thinking", "redacted_thinking"],
    default: None,
    refused: &[
        ("image", TEXT_ONLY),
        ("document", "this model reads text only; send the document's text"),
        ("search_result", "send its text"),
        ("tool_reference", "the model is told about every tool"),
        ("browser_state", OF_THE_SERVICE),
        ("server_tool_use", OF_THE_SERVICE),
        ("container_upload", OF_THE_SERVICE),
        ("mcp_tool_", OF_THE_SERVICE),
        ("web_", OF_THE_SERVICE),
        ("code_execution", OF_THE_SERVICE),
        ("bash_code_execution", OF_THE_SERVICE),
        ("text_editor_code_execution", OF_THE_SERVICE),
        ("tool_search", OF_THE_SERVICE),
    ],
};

/// All places that have kinds.
pub(crate) const KINDS: [Kinds; 7] = [
    BLOCKS,
    Kinds { place: "messages[].content[].content[]", known: &["text"], ..BLOCKS },
    Kinds { place: "system[]", known: &["text"], ..BLOCKS },
    Kinds {
        place: "tools[]",
        known: &["custom"],
        default: Some("custom"),
        refused: &[
            ("bash", HOSTED),
            ("text_editor", HOSTED),
            ("computer", HOSTED),
            ("browser", HOSTED),
            ("memory", HOSTED),
            ("web_search", HOSTED),
            ("web_fetch", HOSTED),
            ("code_execution", HOSTED),
            ("tool_search", HOSTED),
            ("mcp_toolset", HOSTED),
        ],
    },
    Kinds {
        place: "tool_choice",
        known: &["auto", "any", "tool", "none"],
        default: None,
        refused: &[],
    },
    Kinds {
        place: "thinking",
        known: &["enabled", "adaptive", "between_tools", "disabled"],
        default: None,
        refused: &[],
    },
    Kinds { place: "output_config.format", known: &["json_schema"], default: None, refused: &[] },
];
