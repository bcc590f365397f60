//! Filters that break, shorten, count and clean texts.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::arguments::Arguments;
use super::letters::is_space;
use super::{MOST_BYTES, fault, methods, python, strings};

/// `indent(s, width=4, first=False, blank=False)`.
pub(super) fn indent(arguments: &Arguments) -> Result<Value, Error> {
    let text = arguments.printed(0)?;
    let indent = match arguments.some(1) {
        Some(width) if width.as_str().is_some() => width.to_string(),
        _ => " ".repeat(arguments.integer_or(1, 4)?.clamp(0, 1 << 10) as usize),
    };
    let (first, blank) = (arguments.flag_or(2, false), arguments.flag_or(3, false));
    let text = text + "\n"; // As jinja2 does, to count the last line.
    let lines = strings::lines(&text, false);
    if text.len().saturating_add(lines.len().saturating_mul(indent.len())) > MOST_BYTES {
        return Err(fault("indent makes a text that is too long"));
    }
    let mut result = String::new();
    if first {
        result.push_str(&indent);
    }
    for (n, line) in lines.iter().enumerate() {
        if n > 0 {
            result.push('\n');
            if blank || !line.is_empty() {
                result.push_str(&indent);
            }
        }
        result.push_str(line);
    }
    Ok(result.into())
}

/// `truncate(s, length=255, killwords=False, end='...', leeway=5)`.
pub(super) fn truncate(arguments: &Arguments) -> Result<Value, Error> {
    let text = arguments.printed(0)?;
    let length = arguments.integer_or(1, 255)?;
    let end = arguments.text_or(3, "...")?;
    let leeway = arguments.integer_or(4, 5)?;
    let end_length = end.chars().count() as i64;
    if length < end_length || leeway < 0 {
        return Err(fault(format!("truncate: expected length >= {end_length} and leeway >= 0")));
    }
    if text.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(text.into());
    }
    let cut: String = text.chars().take((length - end_length) as usize).collect();
    let kept = match arguments.flag_or(2, false) {
        true => cut.as_str(),
        false => cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words),
    };
    Ok(format!("{kept}{end}").into())
}

/// Words of letters, digits and `_`.
pub(super) fn wordcount(text: &str) -> usize {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.split(|letter| !is_word(letter)).filter(|word| !word.is_empty()).count()
}

/// `wordwrap(s, width=79, break_long_words=True, wrapstring='\n', break_on_hyphens=True)`.
pub(super) fn wordwrap(arguments: &Arguments) -> Result<Value, Error> {
    let text = arguments.printed(0)?;
    let width = arguments.integer_or(1, 79)?;
    let Some(width) = usize::try_from(width).ok().filter(|width| *width > 0) else {
        return Err(fault(format!("wordwrap: invalid width {width} (must be > 0)")));
    };
    let break_long = arguments.flag_or(2, true);
    let newline = arguments.text_or(3, "\n")?;
    let on_hyphens = arguments.flag_or(4, true);
    let wrapped = strings::lines(&text, false)
        .into_iter()
        .map(|line| wrapped_line(line, width, break_long, on_hyphens).join(newline));
    Ok(wrapped.collect::<Vec<_>>().join(newline).into())
}

/// `textwrap.wrap` without a change to white space: spaces at the ends of lines are dropped, and those
/// at the beginning of lines but the first.
fn wrapped_line(line: &str, width: usize, break_long: bool, on_hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<String> = chunks(line, on_hyphens);
    chunks.reverse();
    let length = |chunk: &String| chunk.chars().count();
    let is_blank = |chunk: &String| chunk.chars().all(is_space);
    let mut lines = Vec::new();
    while !chunks.is_empty() {
        let (mut current, mut used) = (Vec::<String>::new(), 0);
        if !lines.is_empty() && chunks.last().is_some_and(is_blank) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.pop_if(|chunk| used + length(chunk) <= width) {
            used += length(&chunk);
            current.push(chunk);
        }
        if let Some(chunk) = chunks.pop_if(|chunk| length(chunk) > width) {
            let room = width.saturating_sub(used).max(1);
            if break_long {
                let head: String = chunk.chars().take(room).collect();
                chunks.push(chunk[head.len()..].to_owned());
                current.push(head);
            } else if current.is_empty() {
                current.push(chunk);
            } else {
                chunks.push(chunk);
            }
        }
        if current.last().is_some_and(is_blank) {
            current.pop();
        }
        if !current.is_empty() {
            lines.push(current.concat());
        }
    }
    lines
}

/// Words and the spaces between them; a word with hyphens may break after each.
fn chunks(line: &str, on_hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    let mut before: Option<char> = None;
    let letters: Vec<char> = line.chars().collect();
    for (n, &letter) in letters.iter().enumerate() {
        let begins = match before {
            None => true,
            Some(last) if is_space(last) != is_space(letter) => true,
            Some('-') if on_hyphens => {
                letter.is_alphabetic() && n >= 2 && letters[n - 2].is_alphanumeric()
            }
            Some(_) => false,
        };
        match chunks.last_mut() {
            Some(chunk) if !begins => chunk.push(letter),
            _ => chunks.push(letter.to_string()),
        }
        before = Some(letter);
    }
    chunks
}

/// `filesizeformat(value, binary=False)`.
pub(super) fn filesizeformat(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    let bytes = match value.as_str() {
        Some(text) => {
            strings::to_float(text).ok_or_else(|| fault("filesizeformat needs a number"))?
        }
        None => python::number(value)?,
    };
    let binary = arguments.flag_or(1, false);
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let units = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc()).into());
    }
    let mut unit = base;
    let mut name = units[0];
    for (power, candidate) in (2..).zip(units) {
        unit = base.powi(power);
        name = candidate;
        if bytes < unit {
            break;
        }
    }
    Ok(format!("{:.1} {name}", base * bytes / unit).into())
}

/// `striptags`: without comments and tags, and with single spaces.
pub(super) fn striptags(arguments: &Arguments) -> Result<Value, Error> {
    let mut text = arguments.printed(0)?;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut kept = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(start) = rest.find(open) {
            let Some(length) = rest[start..].find(close) else { break };
            kept.push_str(&rest[..start]);
            rest = &rest[start + length + close.len()..];
        }
        kept.push_str(rest);
        text = kept;
    }
    let text = text.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut plain = text;
    for (entity, letter) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&nbsp;", "\u{a0}"),
        ("&amp;", "&"),
    ] {
        plain = plain.replace(entity, letter);
    }
    Ok(plain.into())
}

/// `urlencode`: a text keeps its `/`; a dictionary or pairs become a query.
pub(super) fn urlencode(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    let pairs: Vec<Vec<Value>> = match value.kind() {
        ValueKind::Map => methods::pairs(value)?.into_iter().map(|pair| pair.to_vec()).collect(),
        ValueKind::Seq | ValueKind::Iterable => {
            python::items(value)?.iter().map(python::items).collect::<Result<_, _>>()?
        }
        _ => return Ok(quoted(&python::display(value)?, false).into()),
    };
    let mut query = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        let [key, value] = &pair[..] else { return Err(fault("urlencode takes pairs")) };
        let part = |value: &Value| Ok::<_, Error>(quoted(&python::display(value)?, true));
        query.push(format!("{}={}", part(key)?, part(value)?));
    }
    Ok(query.join("&").into())
}

fn quoted(text: &str, query: bool) -> String {
    let mut result = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                result.push(char::from(byte));
            }
            b'/' if !query => result.push('/'),
            b' ' if query => result.push('+'),
            _ => {
                // Writing into a text cannot fail.
                let _ = write!(result, "%{byte:02X}");
            }
        }
    }
    result
}
