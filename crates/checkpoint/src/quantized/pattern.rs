//! Which modules a configuration means.

use fancy_regex::Regex;

/// One entry of a list of modules.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// All linear layers.
    Every,
    /// A module by its full name.
    Name(String),
    /// Part of a name between dots, such as `lm_head` or `mlp.gate`.
    Part(String),
    /// `*` for any text, `?` for a character: fnmatch.
    Glob(String),
    /// A regular expression that must match from the beginning of the name, as Python's `re.match`.
    Regex(Regex),
}

impl Pattern {
    /// A regular expression in Python's syntax.
    pub(super) fn regex(expression: &str) -> Result<Self, String> {
        let anchored = format!("^(?:{expression})");
        let regex = Regex::new(&anchored);
        regex
            .map(Self::Regex)
            .map_err(|error| format!("regular expression `{expression}`: {error}"))
    }

    /// Whether a module is meant.
    pub(crate) fn matches(&self, module: &str) -> Result<bool, String> {
        Ok(match self {
            Self::Every => true,
            Self::Name(name) => name == module,
            Self::Part(part) => format!(".{module}.").contains(&format!(".{part}.")),
            Self::Glob(glob) => fits_glob(glob, module),
            Self::Regex(regex) => regex.is_match(module).map_err(|error| error.to_string())?,
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Every, Self::Every) => true,
            (Self::Name(a), Self::Name(b))
            | (Self::Part(a), Self::Part(b))
            | (Self::Glob(a), Self::Glob(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// Whether a text fits a pattern, where `*` stands for any text and `?` for one byte.
///
/// ```
/// use bantam_checkpoint::fits_glob;
/// assert!(fits_glob("*.mlp.*", "model.layers.1.mlp.up_proj"));
/// assert!(!fits_glob("*.mlp", "model.layers.1.mlp.up_proj"));
/// ```
#[must_use]
pub fn fits_glob(pattern: &str, text: &str) -> bool {
    // On a mismatch the last `*` takes one more byte.
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&rest| rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_their_tools_mean() {
        let up = "model.layers.10.mlp.up_proj";
        let regex = |text| Pattern::regex(text).expect("sound");
        let cases = [
            (Pattern::Every, up, true),
            (Pattern::Name("lm_head".to_owned()), "lm_head", true),
            (Pattern::Name("lm_head".to_owned()), "model.lm_head", false),
            (Pattern::Part("mlp.gate".to_owned()), "model.layers.0.mlp.gate", true),
            (Pattern::Part("mlp.gate".to_owned()), "model.layers.0.mlp.gate_proj", false),
            (Pattern::Part("mlp".to_owned()), up, true),
            (Pattern::Glob("model.layers.1*".to_owned()), up, true),
            (Pattern::Glob("*.mlp.*".to_owned()), up, true),
            (Pattern::Glob("*.mlp".to_owned()), up, false),
            (Pattern::Glob("*lay?rs*up_proj*".to_owned()), up, true),
            (Pattern::Glob(String::new()), up, false),
            (regex(".*mlp"), up, true),
            (regex("mlp"), up, false),
            (regex("a|.*up_proj$"), up, true),
            (regex("(?!.*mlp).*"), up, false),
        ];
        for (pattern, module, expected) in cases {
            assert_eq!(pattern.matches(module), Ok(expected), "{pattern:?} {module}");
        }
        assert!(Pattern::regex("(").is_err());
    }
}
