//! Reads the notation.

use std::collections::HashMap;

use super::super::schema::escaped;

/// Rules of a grammar, by number.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) bodies: Vec<Expr>,
    pub(super) root: usize,
}

/// What a rule may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Text(String),
    /// One letter of these ranges, which are in order and apart.
    Class(Vec<(char, char)>),
    Ref(usize),
    Sequence(Vec<Expr>),
    Choice(Vec<Expr>),
    Repeat(Box<Expr>, u32, Option<u32>),
    /// A special token, as the Lark dialect writes it.
    Token(String),
}

/// Repetitions that are counted.
const MAX_COUNT: u32 = 4096;
/// Groups within each other.
const MAX_DEPTH: usize = 64;

impl Rules {
    /// Which rules refer to themselves, or to one that does, or name a token: those that are no
    /// regular expression.
    pub(super) fn recursive(&self) -> Vec<bool> {
        let mut regular = vec![false; self.bodies.len()];
        // A rule is regular once all that it refers to is.
        loop {
            let before = regular.clone();
            for (at, body) in self.bodies.iter().enumerate() {
                regular[at] = is_regular(body, &before);
            }
            if regular == before {
                return regular.into_iter().map(|regular| !regular).collect();
            }
        }
    }
}

impl Rules {
    /// The rules, with one of its own for each part of a recursive rule that is regular.
    pub(super) fn with_words(mut self) -> Self {
        let regular: Vec<bool> = self.recursive().iter().map(|recursive| !recursive).collect();
        for at in 0..self.bodies.len() {
            if !regular[at] {
                let body = std::mem::replace(&mut self.bodies[at], Expr::Sequence(Vec::new()));
                self.bodies[at] = self.lifted(body, &regular);
            }
        }
        self
    }

    fn lifted(&mut self, expr: Expr, regular: &[bool]) -> Expr {
        if is_regular(&expr, regular) {
            if matches!(expr, Expr::Text(_) | Expr::Class(_) | Expr::Ref(_)) {
                return expr;
            }
            self.bodies.push(expr);
            return Expr::Ref(self.bodies.len() - 1);
        }
        match expr {
            Expr::Choice(parts) => {
                Expr::Choice(parts.into_iter().map(|part| self.lifted(part, regular)).collect())
            }
            Expr::Repeat(body, min, max) => {
                Expr::Repeat(Box::new(self.lifted(*body, regular)), min, max)
            }
            Expr::Sequence(parts) => {
                let (mut all, mut run) = (Vec::new(), Vec::new());
                for part in parts {
                    if is_regular(&part, regular) {
                        run.push(part);
                        continue;
                    }
                    all.extend(self.word(std::mem::take(&mut run), regular));
                    all.push(self.lifted(part, regular));
                }
                all.extend(self.word(run, regular));
                Expr::Sequence(all)
            }
            other => other,
        }
    }

    /// Regular parts one after another as one.
    fn word(&mut self, mut run: Vec<Expr>, regular: &[bool]) -> Option<Expr> {
        match run.len() {
            0 => None,
            1 => run.pop().map(|part| self.lifted(part, regular)),
            _ => Some(self.lifted(Expr::Sequence(run), regular)),
        }
    }

    /// The regular expression of a rule that is one.
    pub(super) fn pattern(&self, rule: usize) -> String {
        self.expression(&self.bodies[rule])
    }

    fn expression(&self, expr: &Expr) -> String {
        let joined = |parts: &[Expr], between: &str| {
            let parts: Vec<String> = parts.iter().map(|part| self.expression(part)).collect();
            format!("(?:{})", parts.join(between))
        };
        match expr {
            Expr::Text(text) => format!("(?:{})", escaped(text)),
            Expr::Class(ranges) => class(ranges),
            Expr::Ref(rule) => self.pattern(*rule),
            Expr::Sequence(parts) => joined(parts, ""),
            Expr::Choice(parts) => joined(parts, "|"),
            Expr::Repeat(body, min, max) => {
                let max = max.map_or(String::new(), |max| max.to_string());
                format!("(?:{}){{{min},{max}}}", self.expression(body))
            }
            Expr::Token(_) => String::new(),
        }
    }
}

/// A letter of these ranges, as a regular expression.
pub(super) fn class(ranges: &[(char, char)]) -> String {
    let code = |letter: char| format!("\\x{{{:x}}}", u32::from(letter));
    let ranges = ranges.iter().map(|&(from, to)| format!("{}-{}", code(from), code(to)));
    format!("[{}]", ranges.collect::<String>())
}

pub(super) fn is_regular(expr: &Expr, regular: &[bool]) -> bool {
    match expr {
        Expr::Text(_) | Expr::Class(_) => true,
        Expr::Token(_) => false,
        Expr::Ref(rule) => regular[*rule],
        Expr::Repeat(body, ..) => is_regular(body, regular),
        Expr::Sequence(parts) | Expr::Choice(parts) => {
            parts.iter().all(|part| is_regular(part, regular))
        }
    }
}

/// Letters of the names of rules.
pub(super) fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

/// The rules of a grammar, which begins at `root`.
pub(super) fn rules(source: &str) -> Result<Rules, String> {
    let letters: Vec<char> = source.chars().collect();
    let mut reader = Reader { letters, at: 0, names: HashMap::new(), defined: Vec::new() };
    reader.skip();
    while let Some(name) = reader.definition() {
        let rule = reader.number(&name);
        let body = reader.choice(0)?;
        let known = &mut reader.defined[rule];
        if known.is_some() {
            return Err(format!("rule {name} is defined twice"));
        }
        *known = Some(body);
    }
    if reader.at < reader.letters.len() {
        return Err(reader.unexpected("a rule, as in: name ::= \"text\" | [a-z]+"));
    }
    let root = *reader.names.get("root").ok_or("no rule is called root: the text begins there")?;
    let mut names: Vec<(&String, &usize)> = reader.names.iter().collect();
    names.sort_by_key(|(_, rule)| **rule);
    let defined = reader.defined.into_iter().zip(names);
    let bodies = defined.map(|(body, (name, _))| {
        body.ok_or_else(|| format!("rule {name} is referred to and not defined"))
    });
    Ok(Rules { bodies: bodies.collect::<Result<_, _>>()?, root })
}

struct Reader {
    letters: Vec<char>,
    at: usize,
    names: HashMap<String, usize>,
    defined: Vec<Option<Expr>>,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn take(&mut self, letter: char) -> bool {
        let found = self.peek() == Some(letter);
        self.at += usize::from(found);
        found
    }

    /// Skips spaces, ends of lines and comments.
    fn skip(&mut self) {
        while let Some(letter) = self.peek() {
            if letter == '#' {
                while self.peek().is_some_and(|letter| letter != '\n') {
                    self.at += 1;
                }
            } else if !letter.is_whitespace() {
                return;
            } else {
                self.at += 1;
            }
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        let line = 1 + self.letters[..self.at].iter().filter(|&&letter| letter == '\n').count();
        let rest: String = self.letters[self.at..].iter().take(20).collect();
        let got = if rest.is_empty() { "the end".to_owned() } else { format!("{rest:?}") };
        format!("line {line}: got {got}; expected {expected}")
    }

    fn number(&mut self, name: &str) -> usize {
        let next = self.defined.len();
        let rule = *self.names.entry(name.to_owned()).or_insert(next);
        if rule == next {
            self.defined.push(None);
        }
        rule
    }

    fn name(&mut self) -> Option<String> {
        let start = self.at;
        while self.peek().is_some_and(is_name) {
            self.at += 1;
        }
        (self.at > start).then(|| self.letters[start..self.at].iter().collect())
    }

    /// `name ::=`, if that is what comes next.
    fn definition(&mut self) -> Option<String> {
        let start = self.at;
        let name = self.name();
        self.skip();
        if name.is_some() && self.letters[self.at..].starts_with(&[':', ':', '=']) {
            self.at += 3;
            self.skip();
            return name;
        }
        self.at = start;
        None
    }

    fn choice(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err(self.unexpected(&format!("groups at most {MAX_DEPTH} deep")));
        }
        let mut options = vec![self.sequence(depth)?];
        while self.take('|') {
            self.skip();
            options.push(self.sequence(depth)?);
        }
        Ok(if options.len() == 1 { options.remove(0) } else { Expr::Choice(options) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expr, String> {
        let mut parts: Vec<Expr> = Vec::new();
        loop {
            // The next rule ends this one.
            let start = self.at;
            if self.definition().is_some() {
                self.at = start;
                break;
            }
            let part = match self.peek() {
                None | Some('|' | ')') => break,
                Some('"') => Expr::Text(self.text()?),
                Some('[') => Expr::Class(self.class()?),
                Some('.') => {
                    self.at += 1;
                    Expr::Class(vec![('\0', char::MAX)])
                }
                Some('(') => {
                    self.at += 1;
                    self.skip();
                    let body = self.choice(depth + 1)?;
                    if !self.take(')') {
                        return Err(self.unexpected("\")\""));
                    }
                    body
                }
                Some('<') => self.token()?,
                Some(_) => match self.name() {
                    Some(name) => Expr::Ref(self.number(&name)),
                    None => return Err(self.unexpected("a text, a class, a name or a group")),
                },
            };
            let part = self.repeated(part)?;
            self.skip();
            parts.push(part);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Sequence(parts) })
    }

    fn repeated(&mut self, mut part: Expr) -> Result<Expr, String> {
        loop {
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    let end = self.letters[self.at..].iter().position(|&letter| letter == '}');
                    let end = self.at + end.ok_or_else(|| self.unexpected("\"}\" after it"))?;
                    let counts: String = self.letters[self.at + 1..end].iter().collect();
                    let counts = range(&counts).ok_or_else(|| {
                        self.unexpected(&format!("{{m}}, {{m,}} or {{m,n}} up to {MAX_COUNT}"))
                    })?;
                    self.at = end;
                    counts
                }
                _ => return Ok(part),
            };
            self.at += 1;
            part = Expr::Repeat(Box::new(part), min, max);
        }
    }

    fn text(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        while !self.take('"') {
            text.push(self.letter()?);
        }
        Ok(text)
    }

    fn class(&mut self) -> Result<Vec<(char, char)>, String> {
        self.at += 1;
        let negated = self.take('^');
        let mut ranges = Vec::new();
        while !self.take(']') {
            let from = self.letter()?;
            let is_range = self.peek() == Some('-')
                && self.letters.get(self.at + 1).is_some_and(|&to| to != ']');
            let to = if is_range {
                self.at += 1;
                self.letter()?
            } else {
                from
            };
            if from > to {
                return Err(self.unexpected("a range from the smaller to the larger letter"));
            }
            ranges.push((from, to));
        }
        let mut class = regex_syntax::hir::ClassUnicode::new(
            ranges
                .into_iter()
                .map(|(from, to)| regex_syntax::hir::ClassUnicodeRange::new(from, to)),
        );
        if negated {
            class.negate();
        }
        if class.ranges().is_empty() {
            return Err(self.unexpected("a class with letters before it"));
        }
        Ok(class.iter().map(|range| (range.start(), range.end())).collect())
    }

    fn token(&mut self) -> Result<Expr, String> {
        let end = self.letters[self.at..].iter().position(|&letter| letter == '>');
        let end = self.at + end.ok_or_else(|| self.unexpected("\">\" after it"))? + 1;
        let token: String = self.letters[self.at..end].iter().collect();
        self.at = end;
        Ok(Expr::Token(token))
    }

    /// A letter of a text or a class, which may be written with a backslash.
    fn letter(&mut self) -> Result<char, String> {
        let Some(letter) = self.peek() else {
            return Err(self.unexpected("the end of a text or class"));
        };
        self.at += 1;
        if letter != '\\' {
            return Ok(letter);
        }
        let escape = self.peek();
        self.at += 1;
        let digits = match escape {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('f') => return Ok('\u{c}'),
            Some('b') => return Ok('\u{8}'),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(letter) if letter.is_ascii_punctuation() => return Ok(letter),
            _ => {
                self.at -= 2;
                return Err(self.unexpected("an escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\x \\u \\U"));
            }
        };
        let code: String = self.letters.iter().skip(self.at).take(digits).collect();
        let letter = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
        let letter = letter.filter(|_| code.len() == digits);
        let letter =
            letter.ok_or_else(|| self.unexpected(&format!("{digits} hexadecimal digits")))?;
        self.at += digits;
        Ok(letter)
    }
}

/// The counts between braces.
fn range(counts: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|&count| count <= MAX_COUNT);
    match counts.split_once(',') {
        None => number(counts).map(|count| (count, Some(count))),
        Some((min, max)) => {
            let min = if min.trim().is_empty() { 0 } else { number(min)? };
            let max = if max.trim().is_empty() { None } else { Some(number(max)?) };
            max.is_none_or(|max| min <= max).then_some((min, max))
        }
    }
}
