//! Reads a JSON object one character at a time and notices the first that cannot belong to it.

/// Objects and lists within each other; readers of JSON refuse more.
const MAX_DEPTH: usize = 127;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// Where in the JSON the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the first brace.
    Start,
    /// Before the first key of an object.
    FirstKey,
    /// Before a further key.
    Key,
    /// In a key.
    InKey,
    /// Before a colon.
    Colon,
    /// Before the first item of a list.
    FirstItem,
    /// Before a value.
    Value,
    /// In a string that is a value.
    InString,
    /// In a number or `true`, `false`, `null`.
    InScalar,
    /// After a value.
    AfterValue,
    /// After the last brace.
    End,
}

/// What is open around the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    List,
}

/// How far an escape in a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    /// Hexadecimal digits still to come.
    Digits(u8),
}

/// The state between two characters.
#[derive(Debug, Clone)]
pub(super) struct JsonScanner {
    place: Place,
    open: Vec<Container>,
    escape: Escape,
    scalar: String,
}

impl JsonScanner {
    pub(super) fn new() -> Self {
        Self { place: Place::Start, open: Vec::new(), escape: Escape::None, scalar: String::new() }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// How many objects and lists are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Takes the next character.
    pub(super) fn push(&mut self, c: char) -> Result<(), NotJson> {
        match self.place {
            Place::InKey | Place::InString => return self.in_string(c),
            Place::InScalar if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') => {
                self.scalar.push(c);
                return Ok(());
            }
            Place::InScalar => {
                let known = serde_json::from_str::<serde_json::Value>(&self.scalar);
                known.map_err(|_| NotJson)?;
                self.scalar.clear();
                self.place = Place::AfterValue;
            }
            _ => {}
        }
        if matches!(c, ' ' | '\n' | '\r' | '\t') {
            return Ok(());
        }
        let inside = self.open.last().copied();
        self.place = match (self.place, c) {
            (Place::Start, '{') => return self.enter(Container::Object),
            (Place::FirstKey | Place::Key, '"') => Place::InKey,
            (Place::Colon, ':') => Place::Value,
            (Place::FirstKey | Place::AfterValue, '}') if inside == Some(Container::Object) => {
                return self.leave();
            }
            (Place::FirstItem | Place::AfterValue, ']') if inside == Some(Container::List) => {
                return self.leave();
            }
            (Place::AfterValue, ',') if inside == Some(Container::Object) => Place::Key,
            (Place::AfterValue, ',') => Place::Value,
            (Place::Value | Place::FirstItem, '{') => return self.enter(Container::Object),
            (Place::Value | Place::FirstItem, '[') => return self.enter(Container::List),
            (Place::Value | Place::FirstItem, '"') => Place::InString,
            (Place::Value | Place::FirstItem, 't' | 'f' | 'n' | '-' | '0'..='9') => {
                self.scalar.push(c);
                Place::InScalar
            }
            _ => return Err(NotJson),
        };
        Ok(())
    }

    fn in_string(&mut self, c: char) -> Result<(), NotJson> {
        self.escape = match (self.escape, c) {
            (Escape::None, '\\') => Escape::Backslash,
            (Escape::None, '"') => {
                let key = self.place == Place::InKey;
                self.place = if key { Place::Colon } else { Place::AfterValue };
                Escape::None
            }
            (Escape::None, '\0'..='\x1f') => return Err(NotJson),
            (Escape::None, _) => Escape::None,
            (Escape::Backslash, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Escape::None,
            (Escape::Backslash, 'u') => Escape::Digits(4),
            (Escape::Digits(left), c) if c.is_ascii_hexdigit() => match left {
                1 => Escape::None,
                _ => Escape::Digits(left - 1),
            },
            _ => return Err(NotJson),
        };
        Ok(())
    }

    fn enter(&mut self, container: Container) -> Result<(), NotJson> {
        if self.open.len() == MAX_DEPTH {
            return Err(NotJson);
        }
        self.open.push(container);
        self.place = match container {
            Container::Object => Place::FirstKey,
            Container::List => Place::FirstItem,
        };
        Ok(())
    }

    fn leave(&mut self) -> Result<(), NotJson> {
        self.open.pop();
        self.place = if self.open.is_empty() { Place::End } else { Place::AfterValue };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Whether the scanner takes the text as one whole object.
    fn is_object(text: &str) -> bool {
        let mut scanner = JsonScanner::new();
        let taken = text.trim_end().chars().all(|c| scanner.push(c).is_ok());
        taken && scanner.place() == Place::End
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parser(text in "\\{([{}\\[\\],:\"a1.e\\-]| |\"a\":|true|\\\\n|\\\\u00e9){0,12}\\}") {
            let parsed = serde_json::from_str::<Value>(&text);
            let sound = parsed.as_ref().is_ok_and(Value::is_object);
            prop_assert_eq!(is_object(&text), sound, "{}", text);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(is_object(&nested(MAX_DEPTH)));
        assert!(!is_object(&nested(MAX_DEPTH + 1)));
    }
}
