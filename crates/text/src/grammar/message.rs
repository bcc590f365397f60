//! Messages of the grammar library in the words of this crate.

/// Most characters that are shown: of a longer message, so many at its beginning and its end.
const SHOWN: [usize; 2] = [120, 180];

/// What the library says, and what is said instead.
const PHRASES: [(&str, &str); 6] = [
    ("Unimplemented keys:", "unsupported keywords"),
    ("NoExtensionBias", "no text satisfies it"),
    (
        "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf \
         with anyOf",
        "oneOf with options that one value may satisfy together is not supported; use anyOf",
    ),
    (
        "Only absolute $ref's (#/...) are supported without 'referencing' feature; ref",
        "$ref must begin with #/, got",
    ),
    ("Unknown format:", "unsupported format"),
    ("Invalid type:", "unsupported type"),
];

/// A message of the library on one line, without quotations of the source and dumps of state.
pub(super) fn plain(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.trim_matches('^').is_empty());
    let said = lines.take_while(|line| !line.starts_with('<')).filter(|line| !is_quotation(line));
    let mut text = said.collect::<Vec<_>>().join("; ").replace(":; ", ": ");
    for (theirs, ours) in PHRASES {
        text = text.replace(theirs, ours);
    }
    shortened(&text)
}

/// The beginning and the end of a text, where the library quotes the source and says what is wrong.
fn shortened(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let [head, tail] = SHOWN;
    if letters.len() <= head + tail {
        return text.to_owned();
    }
    let part = |letters: &[char]| letters.iter().collect::<String>();
    format!("{} … {}", part(&letters[..head]), part(&letters[letters.len() - tail..]))
}

/// Whether a line quotes the source after its number: `12 | start: "a"`.
fn is_quotation(line: &str) -> bool {
    let (number, _) = line.split_once('|').unwrap_or_default();
    !number.is_empty() && number.trim_end().bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_left() {
        let said = "at 2(7): invalid regex \"(\": regex parse error:\n    (\n    ^\nerror: unclosed \
                    group\n   1 | start: TEXT\n   2 | TEXT: /(/\n             ^\n\n<state>\nTokens";
        let expected = "at 2(7): invalid regex \"(\": regex parse error: (; error: unclosed group";
        assert_eq!(plain(said), expected);
        assert_eq!(plain("Unimplemented keys: [\"not\"]"), "unsupported keywords [\"not\"]");
    }
}
