//! Text of foreign files on its way to a terminal or a log.

use std::fmt::{self, Display, Write};

/// Shows `text` with every control character escaped, so that a name from a file can neither break a
/// line or a table nor send commands to a terminal. All other characters stay as they are.
///
/// ```
/// use bantam_checkpoint::printable;
/// assert_eq!(printable("x\n\u{1b}[31mevil").to_string(), r"x\n\u{1b}[31mevil");
/// assert_eq!(printable("model.norm.weight").to_string(), "model.norm.weight");
/// ```
pub fn printable(text: impl Display) -> impl Display {
    Printable(text)
}

struct Printable<T>(T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

/// Passes text on, control characters escaped.
struct Escaper<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_command) {
            let (plain, tail) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = tail.chars();
            if let Some(command) = characters.next() {
                write!(self.0, "{}", command.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Control characters, and those that break lines or reorder the text around them.
fn is_command(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_commands_a_terminal(text in any::<String>()) {
            let shown = printable(&text).to_string();
            prop_assert!(!shown.chars().any(is_command), "{shown:?}");
            if !text.chars().any(is_command) {
                prop_assert_eq!(shown, text);
            }
        }
    }

    #[test]
    fn escapes_are_those_of_rust() {
        assert_eq!(printable("a\tb\u{7}\u{9b}\u{202e}é").to_string(), r"a\tb\u{7}\u{9b}\u{202e}é");
    }
}
