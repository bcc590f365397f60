//! Strings as they are written: between quotes, with as few escapes as possible.

use llguidance::regex_to_lark;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

use super::form::TextForm;
use super::leaf::{Leaf, escaped};
use crate::grammar::limits;

/// A letter of a JSON string. Letters stand for themselves: `\u` could spell half of one.
const LETTER: &str = r#"(?:[^"\\\x00-\x1f\x7f]|\\["\\bfnrt])"#;
/// The letters that are written with a backslash, and what follows it.
const ESCAPES: [(char, char); 7] = [
    ('"', '"'),
    ('\\', '\\'),
    ('\u{8}', 'b'),
    ('\u{c}', 'f'),
    ('\n', 'n'),
    ('\r', 'r'),
    ('\t', 't'),
];

/// How the strings of a form are written; nothing if there are none.
pub(super) fn leaf(form: &TextForm<'_>) -> Result<Option<Leaf>, String> {
    let TextForm { min, max, patterns, formats, excluded } = form;
    if max.is_some_and(|max| *min > max) {
        return Ok(None);
    }
    let mut formats = formats.iter();
    let mut bare = Leaf::default();
    // The lengths of a format need no telling where they are within the limits.
    let mut told = (*min, *max) == (0, None);
    if let Some(format) = formats.next() {
        bare = Leaf::new(quoted(format.pattern));
        told = *min <= format.lengths.0 && max.is_none_or(|max| max >= format.lengths.1);
        bare = formats.fold(bare, |leaf, format| leaf.and(quoted(format.pattern)));
    } else if patterns.iter().all(|(_, wanted)| !wanted) {
        bare = Leaf::new(quoted(&of_length(*min, *max)));
        told = true;
    }
    if !told {
        bare = bare.and(quoted(&of_length(*min, *max)));
    }
    for (pattern, wanted) in patterns {
        let written = quoted(&searched(pattern)?);
        bare = if *wanted { bare.and(written) } else { bare.and_not(written) };
    }
    let leaf = excluded.iter().fold(bare, |leaf, text| leaf.and_not(escaped(&json_text(text))));
    Ok(Some(leaf))
}

/// Whether a text matches a pattern of a schema.
pub(super) fn matches(pattern: &str, text: &str) -> Result<bool, String> {
    Leaf::new(quoted(&searched(pattern)?)).matches(&json_text(text))
}

/// The one way in which a text is written.
pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn quoted(pattern: &str) -> String {
    format!("\"(?:{pattern})\"")
}

fn of_length(min: u64, max: Option<u64>) -> String {
    match (min, max) {
        (0, None) => format!("{LETTER}*"),
        (min, None) => format!("{LETTER}{{{min},}}"),
        (min, Some(max)) => format!("{LETTER}{{{min},{max}}}"),
    }
}

/// What stands between the quotes of a string in which a pattern is found.
fn searched(pattern: &str) -> Result<String, String> {
    let refused = |problem: String| format!("pattern {pattern:?} {problem}");
    limits::check_pattern(pattern).map_err(refused)?;
    // Digits and letters of words are ASCII in the language of these patterns.
    let parsed = regex_syntax::parse(&regex_to_lark(pattern, "dw")).map_err(|error| {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        refused(format!("cannot be enforced: {last}"))
    })?;
    if parsed.properties().minimum_len().is_some_and(|length| length > limits::MAX_PATTERN_LETTERS)
    {
        let most = limits::MAX_PATTERN_LETTERS;
        return Err(refused(format!("matches long texts only; at most {most} letters work")));
    }
    let whole = anchored(&parsed, true, true).ok_or_else(|| {
        refused(
            "has ^, $ or \\b where they cannot be enforced; begin with ^, end with $".to_owned(),
        )
    })?;
    Ok(whole.to_string())
}

/// The expression for whole texts, open where no anchor closes it; nothing for an anchor within.
fn anchored(pattern: &Hir, open_left: bool, open_right: bool) -> Option<Hir> {
    let any = || regex_syntax::parse(&format!("{LETTER}*")).ok();
    match pattern.kind() {
        HirKind::Look(Look::Start) if open_right => any(),
        HirKind::Look(Look::End) if open_left => any(),
        HirKind::Look(Look::Start | Look::End) => Some(Hir::empty()),
        HirKind::Alternation(ways) => {
            let ways = ways.iter().map(|way| anchored(way, open_left, open_right));
            Some(Hir::alternation(ways.collect::<Option<_>>()?))
        }
        HirKind::Capture(capture) => anchored(&capture.sub, open_left, open_right),
        HirKind::Concat(parts) => {
            let starts = |part: &&Hir| *part.kind() == HirKind::Look(Look::Start);
            let ends = |part: &&Hir| *part.kind() == HirKind::Look(Look::End);
            let begin = parts.iter().take_while(starts).count();
            let end = parts.len() - parts[begin..].iter().rev().take_while(ends).count();
            let (open_left, open_right) =
                (open_left && begin == 0, open_right && end == parts.len());
            let body = &parts[begin..end];
            let last = body.len().saturating_sub(1);
            if body.is_empty() {
                return if open_left || open_right { any() } else { Some(Hir::empty()) };
            }
            let parts = body
                .iter()
                .enumerate()
                .map(|(at, part)| anchored(part, open_left && at == 0, open_right && at == last));
            Some(Hir::concat(parts.collect::<Option<_>>()?))
        }
        _ if !pattern.properties().look_set().is_empty() => None,
        _ => {
            let left = if open_left { any()? } else { Hir::empty() };
            let right = if open_right { any()? } else { Hir::empty() };
            Some(Hir::concat(vec![left, as_written(pattern)?, right]))
        }
    }
}

/// The expression over the letters as a JSON string has them.
fn as_written(pattern: &Hir) -> Option<Hir> {
    Some(match pattern.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Look(_) => return None,
        HirKind::Literal(text) => {
            let text = std::str::from_utf8(&text.0).ok()?;
            Hir::concat(text.chars().map(|letter| one_of(&[(letter, letter)])).collect())
        }
        HirKind::Class(Class::Unicode(class)) => {
            let ranges: Vec<_> = class.iter().map(|range| (range.start(), range.end())).collect();
            one_of(&ranges)
        }
        HirKind::Class(Class::Bytes(class)) => {
            let ranges = class.iter().map(|range| (range.start().into(), range.end().into()));
            one_of(&ranges.filter(|&(_, end): &(char, char)| end.is_ascii()).collect::<Vec<_>>())
        }
        HirKind::Repetition(repeated) => {
            let sub = Box::new(as_written(&repeated.sub)?);
            Hir::repetition(Repetition { sub, ..repeated.clone() })
        }
        HirKind::Capture(capture) => as_written(&capture.sub)?,
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(as_written).collect::<Option<_>>()?),
        HirKind::Alternation(ways) => {
            Hir::alternation(ways.iter().map(as_written).collect::<Option<_>>()?)
        }
    })
}

/// One letter of these ranges, as it is written.
fn one_of(ranges: &[(char, char)]) -> Hir {
    let holds = |letter: char| ranges.iter().any(|&(from, to)| (from..=to).contains(&letter));
    let mut plain =
        ClassUnicode::new(ranges.iter().map(|&(from, to)| ClassUnicodeRange::new(from, to)));
    plain.difference(&ClassUnicode::new([
        ClassUnicodeRange::new('\0', '\u{1f}'),
        ClassUnicodeRange::new('"', '"'),
        ClassUnicodeRange::new('\\', '\\'),
        ClassUnicodeRange::new('\u{7f}', '\u{7f}'),
    ]));
    let literal = |text: String| Hir::literal(text.into_bytes());
    let mut ways = vec![Hir::class(Class::Unicode(plain))];
    ways.extend(
        ESCAPES
            .iter()
            .filter(|(letter, _)| holds(*letter))
            .map(|(_, sign)| literal(format!("\\{sign}"))),
    );
    Hir::alternation(ways)
}
