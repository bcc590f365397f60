//! What is done to the text of a template before it is parsed.

use minijinja::Error;

use super::{DEEPEST, MOST_OPERATORS, refusal};

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
    // What each open block adds: one, and one more for every `elif`, which is an `if` inside.
    let mut blocks: Vec<usize> = Vec::new();
    let mut depth = 0;
    for (kind, piece) in pieces(source) {
        if kind == Piece::Tag {
            match word(piece) {
                "elif" => {
                    if let Some(block) = blocks.last_mut() {
                        *block += 1;
                        depth += 1;
                    }
                }
                "set" if piece.contains('=') => {}
                "for" | "if" | "macro" | "call" | "filter" | "with" | "block" | "autoescape"
                | "set" => {
                    blocks.push(1);
                    depth += 1;
                }
                name if name.starts_with("end") => depth -= blocks.pop().unwrap_or(0),
                _ => {}
            }
        }
        if depth > DEEPEST {
            return Err(refusal(format!("it nests more than {DEEPEST} blocks")));
        }
        if matches!(kind, Piece::Tag | Piece::Expression) && operators(piece) > MOST_OPERATORS {
            let problem = format!("an expression has more than {MOST_OPERATORS} operators");
            return Err(refusal(problem));
        }
    }
    Ok(())
}

/// Operators, brackets and calls of one expression: the tree of it is no deeper.
fn operators(code: &str) -> usize {
    let signs = code.chars().filter(|&letter| "+-*/%~|.<>=!([{".contains(letter)).count();
    let is_word = |word: &&str| matches!(*word, "not" | "if" | "else" | "is" | "and" | "or" | "in");
    signs + code.split_whitespace().filter(is_word).count()
}
