//! What is done to the text of a template before it is parsed.

use minijinja::Error;

use super::{DEEPEST, refusal};

/// The text with `\n` for every line end, as jinja2 reads it, and `{% generation %}` as a block.
pub(super) fn prepared(source: &str) -> String {
    without_generation_marks(&source.replace("\r\n", "\n").replace('\r', "\n"))
}

/// A piece of a template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Text,
    Comment,
    Expression,
    Tag,
}

/// Cuts a template into pieces that joined are the template again. Comments, raw text and strings are
/// not searched for tags.
fn pieces(source: &str) -> Vec<(Piece, &str)> {
    let mut pieces = Vec::new();
    let mut rest = source;
    while let Some(start) =
        rest.find("{%").into_iter().chain(rest.find("{{")).chain(rest.find("{#")).min()
    {
        let (text, piece) = rest.split_at(start);
        pieces.push((Piece::Text, text));
        let kind = match piece.as_bytes()[1] {
            b'%' => Piece::Tag,
            b'{' => Piece::Expression,
            _ => Piece::Comment,
        };
        let length = match kind {
            Piece::Comment => piece.find("#}").map_or(piece.len(), |end| end + 2),
            Piece::Expression => code_length(piece, "}}"),
            _ => code_length(piece, "%}"),
        };
        let (piece, after) = piece.split_at(length);
        pieces.push((kind, piece));
        rest = after;
        if kind == Piece::Tag && word(piece) == "raw" {
            let end = raw_length(rest);
            let (raw, after) = rest.split_at(end);
            pieces.push((Piece::Text, raw));
            rest = after;
        }
    }
    pieces.push((Piece::Text, rest));
    pieces
}

/// The length of a tag or expression up to its `end`, which in a string is none.
fn code_length(code: &str, end: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in code.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            None if code[at..].starts_with(end) => return at + end.len(),
            None => {}
        }
    }
    code.len()
}

/// The length of raw text: up to its `{% endraw %}`.
fn raw_length(text: &str) -> usize {
    let mut from = 0;
    while let Some(start) = text[from..].find("{%") {
        let start = from + start;
        if word(&text[start..]) == "endraw" {
            return start;
        }
        from = start + 2;
    }
    text.len()
}

/// The first word of a tag.
fn word(tag: &str) -> &str {
    let inner = tag.get(2..).unwrap_or_default();
    let inner = inner.trim_start_matches(['-', '+']).trim_start();
    let end = inner.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    &inner[..end.unwrap_or(inner.len())]
}

/// Replaces `{% generation %}` blocks, which only mark text for training, by `{% with %}`: like
/// theirs, its assignments end with it. Their whitespace control stays.
fn without_generation_marks(source: &str) -> String {
    let replaced = |(kind, piece): (Piece, &str)| match (kind, word(piece)) {
        (Piece::Tag, "generation") => piece.replacen("generation", "with", 1),
        (Piece::Tag, "endgeneration") => piece.replacen("endgeneration", "endwith", 1),
        _ => piece.to_owned(),
    };
    pieces(source).into_iter().map(replaced).collect()
}

/// Refuses a template that nests so deep that reading it would overflow the stack.
pub(super) fn check_depth(source: &str) -> Result<(), Error> {
    let mut blocks = 0_usize;
    for (kind, piece) in pieces(source) {
        if kind == Piece::Tag {
            let name = word(piece);
            if name.starts_with("end") {
                blocks = blocks.saturating_sub(1);
            } else if matches!(
                name,
                "for"
                    | "if"
                    | "macro"
                    | "call"
                    | "filter"
                    | "with"
                    | "block"
                    | "autoescape"
                    | "set"
            ) && !(name == "set" && piece.contains('='))
            {
                blocks += 1;
            }
        }
        if blocks > DEEPEST || (kind != Piece::Text && brackets(piece) > DEEPEST) {
            let problem = format!("it nests more than {DEEPEST} blocks or brackets");
            return Err(refusal(problem));
        }
    }
    Ok(())
}

/// The depth of brackets and of prefix operators, as far as they can nest.
fn brackets(code: &str) -> usize {
    let (mut depth, mut deepest, mut prefixes) = (0_usize, 0_usize, 0_usize);
    for letter in code.chars() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '-' | '~' | '*' | '|' | '.' => prefixes += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    // Chains of operators make a tree as deep as they are long.
    let words = code
        .split_whitespace()
        .filter(|word| matches!(*word, "not" | "if" | "else" | "is" | "and" | "or"));
    deepest.max((prefixes + words.count()) / 20)
}
