//! Python's methods of texts, and what filters share with them.

use minijinja::value::Tuple;
use minijinja::{Error, Value};

use super::arguments::Arguments;
use super::letters::{
    all, is_decimal, is_digit, is_numeric, is_printable, is_space, is_upper, title_letter,
};
use super::{MOST_BYTES, fault, python};

/// A method: its parameters after the text itself.
type Method = (&'static str, &'static [&'static str], fn(&str, &Arguments) -> Result<Value, Error>);

/// The methods of a text; `format` is the engine's.
pub(super) const METHODS: &[Method] = &[
    ("capitalize", &[], |s, _| Ok(capitalize(s).into())),
    ("casefold", &[], |s, _| Ok(lower(s).replace('ß', "ss").into())),
    ("center", &["width", "fillchar"], |s, a| Ok(center_method(s, width(a)?, fill(a)?).into())),
    ("count", &["sub", "start", "end"], |s, a| {
        let part = a.text(0)?;
        let text = window(s, a, 1)?.map(|(_, text)| text);
        let count = |text: &str| match part {
            "" => text.chars().count() + 1,
            _ => text.matches(part).count(),
        };
        Ok(text.map_or(0, count).into())
    }),
    ("endswith", &["suffix", "start", "end"], |s, a| affix(s, a, |s, part| s.ends_with(part))),
    ("expandtabs", &["tabsize"], |s, a| Ok(expand_tabs(s, a.integer_or(0, 8)?)?.into())),
    ("find", &["sub", "start", "end"], |s, a| {
        Ok(find(s, a, |s, part| s.find(part))?.unwrap_or(-1).into())
    }),
    ("format", &[], |_, _| Err(fault("format"))),
    ("format_map", &["mapping"], |s, a| {
        let map = a.value(0)?.clone();
        let pairs = super::methods::pairs(&map)?.into_iter();
        let names: minijinja::value::Kwargs =
            pairs.map(|[key, value]| (key.to_string(), value)).collect();
        let style = minijinja::formatting::FormatStyle::StrFormat;
        Ok(minijinja::formatting::format(style, s, &[Value::from(names)])?.into())
    }),
    ("index", &["sub", "start", "end"], |s, a| found(find(s, a, |s, part| s.find(part))?)),
    ("isalnum", &[], |s, _| Ok(all(s, char::is_alphanumeric).into())),
    ("isalpha", &[], |s, _| Ok(all(s, char::is_alphabetic).into())),
    ("isascii", &[], |s, _| Ok(s.is_ascii().into())),
    ("isdecimal", &[], |s, _| Ok(all(s, is_decimal).into())),
    ("isdigit", &[], |s, _| Ok(all(s, is_digit).into())),
    ("isidentifier", &[], |s, _| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        Ok((all(s, word) && !s.starts_with(char::is_numeric)).into())
    }),
    ("islower", &[], |s, _| {
        Ok((s.chars().any(char::is_lowercase) && !s.chars().any(is_upper)).into())
    }),
    ("isnumeric", &[], |s, _| Ok(all(s, is_numeric).into())),
    ("isprintable", &[], |s, _| Ok(s.chars().all(is_printable).into())),
    ("isspace", &[], |s, _| Ok(all(s, is_space).into())),
    ("istitle", &[], |s, _| {
        Ok((s.chars().any(|c| c.is_lowercase() || is_upper(c)) && title(s) == s).into())
    }),
    ("isupper", &[], |s, _| {
        Ok((s.chars().any(is_upper) && !s.chars().any(char::is_lowercase)).into())
    }),
    ("join", &["iterable"], join),
    ("ljust", &["width", "fillchar"], |s, a| {
        Ok((s.to_owned() + &padding(s, width(a)?, fill(a)?)).into())
    }),
    ("lower", &[], |s, _| Ok(lower(s).into())),
    ("lstrip", &["chars"], |s, a| Ok(trimmed(s, chars(a)?, true, false).into())),
    ("partition", &["sep"], |s, a| {
        let sep = separator(a)?;
        let (before, sep, after) = match s.split_once(sep) {
            Some((before, after)) => (before, sep, after),
            None => (s, "", ""),
        };
        Ok(tuple([before, sep, after]))
    }),
    ("removeprefix", &["prefix"], |s, a| Ok(s.strip_prefix(a.text(0)?).unwrap_or(s).into())),
    ("removesuffix", &["suffix"], |s, a| Ok(s.strip_suffix(a.text(0)?).unwrap_or(s).into())),
    ("replace", &["old", "new", "count"], |s, a| {
        Ok(replaced(s, a.text(0)?, a.text(1)?, a.integer_or(2, -1)?)?.into())
    }),
    ("rfind", &["sub", "start", "end"], |s, a| {
        Ok(find(s, a, |s, part| s.rfind(part))?.unwrap_or(-1).into())
    }),
    ("rindex", &["sub", "start", "end"], |s, a| found(find(s, a, |s, part| s.rfind(part))?)),
    ("rjust", &["width", "fillchar"], |s, a| Ok((padding(s, width(a)?, fill(a)?) + s).into())),
    ("rpartition", &["sep"], |s, a| {
        let sep = separator(a)?;
        let (before, sep, after) = match s.rsplit_once(sep) {
            Some((before, after)) => (before, sep, after),
            None => ("", "", s),
        };
        Ok(tuple([before, sep, after]))
    }),
    ("rsplit", &["sep", "maxsplit"], |s, a| split(s, a, true)),
    ("rstrip", &["chars"], |s, a| Ok(trimmed(s, chars(a)?, false, true).into())),
    ("split", &["sep", "maxsplit"], |s, a| split(s, a, false)),
    ("splitlines", &["keepends"], |s, a| Ok(texts(lines(s, a.flag_or(0, false))))),
    ("startswith", &["prefix", "start", "end"], |s, a| affix(s, a, |s, part| s.starts_with(part))),
    ("strip", &["chars"], |s, a| Ok(trimmed(s, chars(a)?, true, true).into())),
    ("swapcase", &[], |s, _| {
        let swapped = |c: char| match is_upper(c) {
            true => lower(c.encode_utf8(&mut [0; 4])),
            false => c.to_uppercase().collect(),
        };
        Ok(s.chars().map(swapped).collect::<String>().into())
    }),
    ("title", &[], |s, _| Ok(title(s).into())),
    ("upper", &[], |s, _| Ok(s.to_uppercase().into())),
    ("zfill", &["width"], |s, a| {
        let zeros = padding(s, width(a)?, '0');
        let signed = s.starts_with(['-', '+']);
        let (sign, digits) = s.split_at(usize::from(signed));
        Ok(format!("{sign}{zeros}{digits}").into())
    }),
];

/// A list of texts.
fn texts(parts: Vec<&str>) -> Value {
    parts.into_iter().map(Value::from).collect()
}

fn tuple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}

/// Lower case; the last sigma of a word is the engine's and Python's alike.
pub(super) fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(title_letter).unwrap_or_default();
    first + &lower(letters.as_str())
}

/// `str.title`: a word begins after everything that has no case.
fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        let cased = letter.is_lowercase() || is_upper(letter);
        if cased && !inside {
            result.push_str(&title_letter(letter));
        } else {
            result.extend(letter.to_lowercase());
        }
        inside = cased;
    }
    result
}

/// The filter `title`: a word begins after white space, `-` and opening brackets.
pub(super) fn title_words(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        let is_break = is_space(letter) || matches!(letter, '-' | '(' | '{' | '[' | '<');
        if is_break || inside {
            result.extend(letter.to_lowercase());
        } else {
            result.extend(letter.to_uppercase());
        }
        inside = !is_break;
    }
    result
}

fn width(arguments: &Arguments) -> Result<i64, Error> {
    arguments.value(0)?;
    arguments.integer_or(0, 0)
}

fn fill(arguments: &Arguments) -> Result<char, Error> {
    let fill = arguments.text_or(1, " ")?;
    let mut letters = fill.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(letter),
        _ => Err(fault("the fill character must be exactly one character long")),
    }
}

/// What is missing to a width; widths beyond all use are cut.
fn padding(text: &str, width: i64, fill: char) -> String {
    let width = usize::try_from(width).unwrap_or(0).min(1 << 20);
    std::iter::repeat_n(fill, width.saturating_sub(text.chars().count())).collect()
}

/// `str.center`, whose odd place is on the left where the width is odd.
pub(super) fn center(text: &str, width: i64, fill: char) -> Result<String, Error> {
    Ok(center_method(text, width, fill))
}

fn center_method(text: &str, width: i64, fill: char) -> String {
    let missing = padding(text, width, fill).chars().count();
    let left = missing / 2 + (missing & width.unsigned_abs() as usize & 1);
    let pad = |count| std::iter::repeat_n(fill, count).collect::<String>();
    pad(left) + text + &pad(missing - left)
}

/// The part of a text that `start` and `end` name by characters, and its first character.
fn window<'s>(
    text: &'s str,
    arguments: &Arguments,
    start: usize,
) -> Result<Option<(usize, &'s str)>, Error> {
    let length = text.chars().count() as i64;
    let place = |index: i64| if index < 0 { (index + length).max(0) } else { index };
    let from = place(arguments.integer_or(start, 0)?);
    let to = place(arguments.integer_or(start + 1, length)?).min(length);
    if from > to {
        return Ok(None);
    }
    let byte =
        |place: i64| text.char_indices().nth(place as usize).map_or(text.len(), |(at, _)| at);
    Ok(Some((from as usize, &text[byte(from)..byte(to)])))
}

/// The character at which a text is found, by `find` or `rfind`.
fn find(
    text: &str,
    arguments: &Arguments,
    find: impl Fn(&str, &str) -> Option<usize>,
) -> Result<Option<i64>, Error> {
    let part = arguments.text(0)?;
    let Some((from, window)) = window(text, arguments, 1)? else { return Ok(None) };
    Ok(find(window, part).map(|at| (from + window[..at].chars().count()) as i64))
}

fn found(place: Option<i64>) -> Result<Value, Error> {
    place.map(Value::from).ok_or_else(|| fault("substring not found"))
}

/// `startswith` and `endswith`: of one text or of any in a tuple.
fn affix(
    text: &str,
    arguments: &Arguments,
    is: impl Fn(&str, &str) -> bool,
) -> Result<Value, Error> {
    let affixes = arguments.value(0)?;
    let one = |value: &Value| value.as_str().map(str::to_owned);
    let affixes: Option<Vec<String>> = match one(affixes) {
        Some(text) => Some(vec![text]),
        None if affixes.is_tuple() => affixes.try_iter()?.map(|value| one(&value)).collect(),
        None => None,
    };
    let Some(affixes) = affixes else {
        return Err(fault("expected a text or a tuple of texts"));
    };
    let window = window(text, arguments, 1)?;
    Ok(window.is_some_and(|(_, text)| affixes.iter().any(|affix| is(text, affix))).into())
}

fn expand_tabs(text: &str, size: i64) -> Result<String, Error> {
    let size = usize::try_from(size).unwrap_or(0).min(64);
    let (mut result, mut column) = (String::with_capacity(text.len()), 0);
    for letter in text.chars() {
        match letter {
            '\t' if size > 0 => {
                let missing = size - column % size;
                result.extend(std::iter::repeat_n(' ', missing));
                column += missing;
            }
            '\t' => {}
            _ => {
                result.push(letter);
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(result)
}

fn join(separator: &str, arguments: &Arguments) -> Result<Value, Error> {
    let mut text = String::new();
    for (n, item) in python::items(arguments.value(0)?)?.iter().enumerate() {
        let Some(part) = item.as_str() else {
            let kind = python::type_name(item);
            return Err(fault(format!("sequence item {n}: expected str instance, {kind} found")));
        };
        text.push_str(if n == 0 { "" } else { separator });
        text.push_str(part);
        if text.len() > MOST_BYTES {
            return Err(fault("join makes a text that is too long"));
        }
    }
    Ok(text.into())
}

fn chars(arguments: &Arguments) -> Result<Option<&str>, Error> {
    if arguments.some(0).is_some() { arguments.text(0).map(Some) } else { Ok(None) }
}

/// A text without some characters at its ends: white space, if none are named.
pub(super) fn trimmed<'s>(text: &'s str, chars: Option<&str>, start: bool, end: bool) -> &'s str {
    let is_cut =
        |letter: char| chars.map_or_else(|| is_space(letter), |chars| chars.contains(letter));
    let text = if start { text.trim_start_matches(is_cut) } else { text };
    if end { text.trim_end_matches(is_cut) } else { text }
}

fn separator(arguments: &Arguments) -> Result<&str, Error> {
    match arguments.text(0)? {
        "" => Err(fault("empty separator")),
        separator => Ok(separator),
    }
}

/// `str.replace`, which puts the new text between all characters where the old one is empty.
pub(super) fn replaced(text: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let places = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let places = places.min(count);
    if text.len().saturating_add(places.saturating_mul(new.len())) > MOST_BYTES {
        return Err(fault("replace makes a text that is too long"));
    }
    Ok(text.replacen(old, new, places))
}

fn split(text: &str, arguments: &Arguments, from_right: bool) -> Result<Value, Error> {
    let most = usize::try_from(arguments.integer_or(1, -1)?).unwrap_or(usize::MAX);
    if arguments.some(0).is_none() {
        return Ok(texts(words(text, most, from_right)));
    }
    let separator = separator(arguments)?;
    let limit = most.saturating_add(1);
    let mut parts: Vec<&str> = if from_right {
        text.rsplitn(limit, separator).collect()
    } else {
        text.splitn(limit, separator).collect()
    };
    if from_right {
        parts.reverse();
    }
    Ok(texts(parts))
}

/// The words of a text; what is left after `most` of them keeps its spaces inside.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = trimmed(text, None, true, true);
    if from_right {
        while parts.len() < most
            && let Some(at) = rest.rfind(is_space)
        {
            let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
            parts.push(&rest[after..]);
            rest = trimmed(&rest[..at], None, false, true);
        }
    } else {
        while parts.len() < most
            && let Some(at) = rest.find(is_space)
        {
            parts.push(&rest[..at]);
            rest = trimmed(&rest[at..], None, true, false);
        }
        rest = if parts.len() == most {
            trimmed(rest_with_end(text, rest), None, true, false)
        } else {
            rest
        };
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// `rest`, which ends where the words of `text` end, with the spaces after it.
fn rest_with_end<'s>(text: &'s str, rest: &'s str) -> &'s str {
    let end = trimmed(text, None, false, true).len();
    if rest.is_empty() { rest } else { &text[end - rest.len()..] }
}

/// The lines of a text by all of Unicode's line ends.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |letter: char| {
        matches!(
            letter,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(is_end).unwrap_or(rest.len());
        let end = match rest[at..].chars().next() {
            Some('\r') if rest[at..].starts_with("\r\n") => at + 2,
            Some(letter) => at + letter.len_utf8(),
            None => at,
        };
        lines.push(&rest[..if keep_ends { end } else { at }]);
        rest = &rest[end..];
    }
    lines
}

/// `float(text)`.
pub(super) fn to_float(text: &str) -> Option<f64> {
    let text = trimmed(text, None, true, true);
    let digits = text.replace('_', "");
    let lonely = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    if lonely || digits.is_empty() { None } else { digits.parse().ok() }
}

/// `int(text, base)`, as far as 128 bits go.
pub(super) fn to_integer(text: &str, base: u32) -> Option<i128> {
    let text = trimmed(text, None, true, true);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let digits = digits.replace('_', "").to_ascii_lowercase();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
    if digits.starts_with(['+', '-']) || !(2..=36).contains(&base) {
        return None;
    }
    Some(sign * i128::from_str_radix(digits, base).ok()?)
}

/// `round(number, places)`: half to even, on the decimal digits of the number itself.
pub(super) fn rounded(number: f64, places: i32) -> f64 {
    if !number.is_finite() {
        return number;
    }
    match usize::try_from(places) {
        // Rust prints exact digits rounded half to even, which is what Python rounds by.
        Ok(places) => format!("{number:.places$}").parse().unwrap_or(number),
        Err(_) => {
            let scale = 10_f64.powi(-places);
            (number / scale).round_ties_even() * scale
        }
    }
}
