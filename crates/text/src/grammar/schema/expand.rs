//! What a schema means for one value: its keywords brought together into alternatives.

use std::cell::{Cell, RefCell};

use serde_json::{Map, Value};

use super::decimal::{Decimal, Rounding};
use super::document::{Document, Node, Position};
use super::form::{Alternative, Bound, Form, ListForm, NumberForm, ObjectForm, TextForm};
use super::keywords;
use super::text;
use super::{formats, negate};
use crate::grammar::limits;

/// Ways in which one value may satisfy a schema, apart from constants: what `anyOf` in `allOf`
/// multiplies to.
const MAX_ALTERNATIVES: usize = 200;
/// Steps for a whole schema: each brings two alternatives together.
const MAX_STEPS: usize = 150_000;

pub(super) static NULL: Value = Value::Null;
pub(super) static TRUE: Value = Value::Bool(true);
pub(super) static FALSE: Value = Value::Bool(false);

type Fields<'a> = &'a Map<String, Value>;
type Alternatives<'a> = Vec<Alternative<'a>>;

/// Expands the schemas of one document.
pub(super) struct Expander<'a> {
    pub(super) document: Document<'a>,
    steps: Cell<usize>,
    /// The schemas whose expansion is under way.
    path: RefCell<Vec<(usize, bool)>>,
    /// Comparisons of forms within each other that are under way.
    pub(super) comparing: Cell<usize>,
}

impl<'a> Expander<'a> {
    pub(super) fn new(document: Document<'a>) -> Self {
        Self { document, steps: Cell::new(0), path: RefCell::default(), comparing: Cell::new(0) }
    }

    /// All ways to satisfy all schemas of a position; none if nothing satisfies them.
    ///
    /// Where no schema names a type, the kinds about which one says something are meant.
    pub(super) fn expand(&self, position: &[Node<'a>]) -> Result<Alternatives<'a>, String> {
        let mut all = None;
        for node in position {
            let ways = self.node(*node)?;
            all = Some(match all {
                None => ways,
                Some(all) => self.both(all, ways)?,
            });
        }
        let all = all.unwrap_or_else(any_kind);
        let mut kept = Vec::new();
        for alternative in all {
            kept.extend(self.without_excluded(alternative)?);
        }
        if kept.iter().any(|alternative| alternative.shaped) {
            kept.retain(|alternative| alternative.typed || alternative.shaped);
        }
        Ok(kept)
    }

    /// All ways to satisfy one schema, or not to.
    pub(super) fn node(&self, node: Node<'a>) -> Result<Alternatives<'a>, String> {
        let key = node.key();
        if self.path.borrow().contains(&key) {
            // It means itself and nothing else.
            return Ok(Vec::new());
        }
        if self.path.borrow().len() > super::MAX_DEPTH {
            let most = super::MAX_DEPTH;
            return Err(format!("schemas refer to each other more than {most} deep; flatten them"));
        }
        self.path.borrow_mut().push(key);
        let expanded = match node.schema {
            Value::Bool(accepts) if *accepts != node.negated => Ok(any_kind()),
            Value::Bool(_) => Ok(Vec::new()),
            Value::Object(fields) if node.negated => negate::fields(self, fields),
            Value::Object(fields) => self.fields(fields),
            other => {
                Err(format!("expected a schema, which is an object or a boolean, got {other}"))
            }
        };
        self.path.borrow_mut().pop();
        expanded
    }

    fn fields(&self, fields: Fields<'a>) -> Result<Alternatives<'a>, String> {
        keywords::check(fields)?;
        let mut all = kinds(fields)?;
        for (keyword, value) in fields {
            match keyword.as_str() {
                "const" => all = self.both(all, vec![constant(value)])?,
                "enum" => {
                    let values = keywords::list(keyword, value)?;
                    limits::check_count(keyword, values.len() as u64)?;
                    all = self.both(all, values.iter().map(constant).collect())?;
                }
                "$ref" => {
                    let target = self.document.resolve(keywords::text(keyword, value)?)?;
                    all = self.both(all, self.node(Node::new(target))?)?;
                }
                "allOf" => {
                    for schema in keywords::list(keyword, value)? {
                        all = self.both(all, self.node(Node::new(schema))?)?;
                    }
                }
                "anyOf" => {
                    let mut any = Vec::new();
                    for schema in keywords::list(keyword, value)? {
                        any.extend(self.node(Node::new(schema))?);
                    }
                    all = self.both(all, any)?;
                }
                "oneOf" => all = self.both(all, self.one_of(keywords::list(keyword, value)?)?)?,
                "not" => all = self.both(all, self.node(Node::not(value))?)?,
                "if" => all = self.both(all, self.condition(fields, value)?)?,
                "dependentRequired" | "dependentSchemas" | "dependencies" => {
                    for (name, needed) in keywords::object(keyword, value)? {
                        all = self.both(all, self.dependent(name, needed)?)?;
                    }
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// Each option, without what another accepts too.
    fn one_of(&self, options: &'a [Value]) -> Result<Alternatives<'a>, String> {
        let mut all = Vec::new();
        for (at, option) in options.iter().enumerate() {
            let others = options.iter().enumerate().filter(|(other, _)| *other != at);
            let others: Vec<Node<'a>> = others.map(|(_, schema)| Node::new(schema)).collect();
            for mut alternative in self.node(Node::new(option))? {
                alternative.excluded.extend(&others);
                all.push(alternative);
            }
        }
        Ok(all)
    }

    /// `if`: what it accepts with `then`, or what it does not with `else`.
    fn condition(&self, fields: Fields<'a>, schema: &'a Value) -> Result<Alternatives<'a>, String> {
        let branch = |negated, keyword: &str| {
            let condition = Node { schema, negated };
            let Some(consequence) = fields.get(keyword) else { return self.node(condition) };
            self.both(self.node(condition)?, self.node(Node::new(consequence))?)
        };
        if !fields.contains_key("then") && !fields.contains_key("else") {
            return Ok(any_kind());
        }
        let mut all = branch(false, "then")?;
        all.extend(branch(true, "else")?);
        Ok(all)
    }

    /// A property that is there only with others, or if the object satisfies a schema.
    fn dependent(&self, name: &'a str, needed: &'a Value) -> Result<Alternatives<'a>, String> {
        let mut without = any_kind();
        let mut with = any_kind();
        for alternative in &mut without {
            if let Form::Object(form) = &mut alternative.form {
                form.properties.push((name, vec![Node::new(&FALSE)]));
            }
        }
        with.retain(|alternative| matches!(alternative.form, Form::Object(_)));
        for alternative in &mut with {
            if let (Form::Object(form), Value::Array(names)) = (&mut alternative.form, needed) {
                form.required = vec![name];
                form.required.extend(names.iter().filter_map(Value::as_str));
            }
        }
        if !needed.is_array() {
            with = self.both(with, self.node(Node::new(needed))?)?;
        }
        without.extend(with);
        Ok(without)
    }

    /// All ways to satisfy two schemas.
    pub(super) fn both(
        &self,
        one: Alternatives<'a>,
        other: Alternatives<'a>,
    ) -> Result<Alternatives<'a>, String> {
        let mut all = Vec::new();
        for a in &one {
            for b in &other {
                self.steps.set(self.steps.get() + 1);
                if self.steps.get() > MAX_STEPS {
                    return Err(format!(
                        "its allOf, anyOf and oneOf together take more than {MAX_STEPS} steps; \
                         write fewer alternatives"
                    ));
                }
                all.extend(self.merged(a, b)?);
            }
        }
        let constant =
            |alternative: &&Alternative<'_>| matches!(alternative.form, Form::Constant(_));
        let forms = all.len() - all.iter().filter(constant).count();
        if forms > MAX_ALTERNATIVES {
            return Err(format!(
                "allOf, anyOf and oneOf give {forms} alternatives for one value; at most \
                 {MAX_ALTERNATIVES} work"
            ));
        }
        Ok(all)
    }

    fn merged(
        &self,
        a: &Alternative<'a>,
        b: &Alternative<'a>,
    ) -> Result<Option<Alternative<'a>>, String> {
        let form = match (&a.form, &b.form) {
            (Form::Constant(value), other) | (other, Form::Constant(value)) => {
                if !self.form_accepts(other, value)? {
                    return Ok(None);
                }
                Form::Constant(value)
            }
            (Form::Number(a), Form::Number(b)) => Form::Number(a.clone().and(b.clone())),
            (Form::Text(a), Form::Text(b)) => Form::Text(a.clone().and(b.clone())),
            (Form::List(a), Form::List(b)) => Form::List(a.clone().and(b.clone())),
            (Form::Object(a), Form::Object(b)) => {
                Form::Object(a.clone().and(b.clone(), &text::matches)?)
            }
            _ => return Ok(None),
        };
        let mut excluded = a.excluded.clone();
        excluded.extend(&b.excluded);
        let (typed, shaped) = (a.typed || b.typed, a.shaped || b.shaped);
        Ok(Some(Alternative { form, typed, shaped, excluded }))
    }

    /// The ways of an alternative that none of its excluded schemas accept.
    fn without_excluded(&self, alternative: Alternative<'a>) -> Result<Alternatives<'a>, String> {
        let excluded = alternative.excluded.clone();
        let mut kept = vec![Alternative { excluded: Vec::new(), ..alternative }];
        for node in excluded {
            let others = self.expand(&[node])?;
            let mut disjoint = Vec::new();
            for alternative in kept {
                if self.never_both(&alternative.form, &others)? {
                    disjoint.push(alternative);
                } else {
                    let rest = self.node(Node::not(node.schema)).map_err(|_| {
                        "oneOf with options that one value may satisfy together is not supported; \
                         use anyOf"
                            .to_owned()
                    })?;
                    disjoint.extend(self.both(vec![alternative], rest)?);
                }
            }
            kept = disjoint;
        }
        Ok(kept)
    }
}

/// The kinds that `type` leaves, with what the keywords of each say.
fn kinds(fields: Fields<'_>) -> Result<Alternatives<'_>, String> {
    let names: Vec<&str> = match fields.get("type") {
        None => Vec::new(),
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            names.iter().map(|name| keywords::text("type", name)).collect::<Result<_, _>>()?
        }
        Some(other) => {
            return Err(format!("type is {other}; expected a name or a list of names"));
        }
    };
    if let Some(name) = names.iter().find(|name| !keywords::TYPES.contains(name)) {
        return Err(format!("unsupported type {name}; expected {}", keywords::TYPES.join(", ")));
    }
    let typed = fields.contains_key("type");
    // `nullable` is how OpenAPI 3.0 says it.
    let nullable = fields.get("nullable") == Some(&TRUE);
    let wants = |name: &str| !typed || names.contains(&name) || (name == "null" && nullable);
    let mut all = Vec::new();
    let mut add = |form, shaped| {
        all.push(Alternative { typed, shaped, ..Alternative::untold(form) });
    };
    if wants("null") {
        add(Form::Constant(&NULL), false);
    }
    if wants("boolean") {
        add(Form::Constant(&TRUE), false);
        add(Form::Constant(&FALSE), false);
    }
    if wants("number") || wants("integer") {
        let integer = typed && !names.contains(&"number");
        let form = NumberForm { integer, ..number_form(fields)? };
        add(Form::Number(form), keywords::NUMBER.iter().any(|key| fields.contains_key(*key)));
    }
    if wants("string") {
        let shaped = keywords::TEXT.iter().any(|key| fields.contains_key(*key));
        add(Form::Text(text_form(fields)?), shaped);
    }
    if wants("array") {
        let shaped = keywords::LIST.iter().any(|key| fields.contains_key(*key));
        add(Form::List(list_form(fields)?), shaped);
    }
    if wants("object") {
        let shaped = keywords::OBJECT.iter().any(|key| fields.contains_key(*key));
        add(Form::Object(object_form(fields)?), shaped);
    }
    Ok(all)
}

/// A value of any kind.
pub(super) fn any_kind<'a>() -> Alternatives<'a> {
    let constants = [&NULL, &TRUE, &FALSE].map(Form::Constant);
    let forms = [
        Form::Number(NumberForm::default()),
        Form::Text(TextForm::default()),
        Form::List(ListForm::default()),
        Form::Object(ObjectForm::default()),
    ];
    constants.into_iter().chain(forms).map(Alternative::untold).collect()
}

pub(super) fn constant(value: &Value) -> Alternative<'_> {
    Alternative::told(Form::Constant(value))
}

fn number_form(fields: Fields<'_>) -> Result<NumberForm<'_>, String> {
    let bound = |keyword: &str, exclusive: bool, rounding| -> Result<Option<Bound>, String> {
        let number = keywords::number(fields, keyword)?;
        Ok(number.map(|number| rounded(number, exclusive, rounding)))
    };
    // Draft 4 has a boolean beside the number.
    let beside = |keyword| fields.get(keyword) == Some(&TRUE);
    let inclusive = NumberForm {
        min: bound("minimum", beside("exclusiveMinimum"), Rounding::Up)?,
        max: bound("maximum", beside("exclusiveMaximum"), Rounding::Down)?,
        ..NumberForm::default()
    };
    let exclusive = NumberForm {
        min: bound("exclusiveMinimum", true, Rounding::Up)?,
        max: bound("exclusiveMaximum", true, Rounding::Down)?,
        ..NumberForm::default()
    };
    let mut form = inclusive.and(exclusive);
    if let Some(number) = keywords::number(fields, "multipleOf")? {
        let exact = Decimal::exact(number).ok_or_else(|| {
            format!("multipleOf is {number}; at most 19 digits before and 17 after the point work")
        })?;
        form.multiples.push(exact);
    }
    Ok(form)
}

/// A bound, rounded into the range if it has too many digits.
fn rounded(number: &serde_json::Number, exclusive: bool, rounding: Rounding) -> Bound {
    let exact = Decimal::exact(number).is_some();
    Bound { value: Decimal::rounded(number, rounding), exclusive: exclusive && exact }
}

fn text_form(fields: Fields<'_>) -> Result<TextForm<'_>, String> {
    let mut form = TextForm {
        min: keywords::count(fields, "minLength")?.unwrap_or(0),
        max: keywords::count(fields, "maxLength")?,
        ..TextForm::default()
    };
    if let Some(pattern) = fields.get("pattern") {
        form.patterns.push((keywords::text("pattern", pattern)?, true));
    }
    if let Some(name) = fields.get("format") {
        form.formats.extend(formats::format(keywords::text("format", name)?));
    }
    Ok(form)
}

fn list_form(fields: Fields<'_>) -> Result<ListForm<'_>, String> {
    let items = fields.get("items");
    // Before draft 2020-12, `items` was a list, and `additionalItems` said what follows.
    let (first, rest) = match items {
        Some(Value::Array(first)) => (Some(first), fields.get("additionalItems")),
        _ => {
            let first = fields.get("prefixItems");
            (first.map(|first| keywords::vec("prefixItems", first)).transpose()?, items)
        }
    };
    let rest = rest.or_else(|| fields.get("unevaluatedItems"));
    Ok(ListForm {
        first: first
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .map(|item| vec![Node::new(item)])
            .collect(),
        rest: rest.map(Node::new).into_iter().collect(),
        min: keywords::count(fields, "minItems")?.unwrap_or(0),
        max: keywords::count(fields, "maxItems")?,
        unique: fields.get("uniqueItems") == Some(&TRUE),
    })
}

fn object_form(fields: Fields<'_>) -> Result<ObjectForm<'_>, String> {
    let positions = |keyword: &str| -> Result<Vec<(&str, Position<'_>)>, String> {
        let Some(value) = fields.get(keyword) else { return Ok(Vec::new()) };
        let listed = keywords::object(keyword, value)?;
        Ok(listed.iter().map(|(name, schema)| (name.as_str(), vec![Node::new(schema)])).collect())
    };
    let mut form = ObjectForm {
        properties: positions("properties")?,
        listed: fields.contains_key("properties"),
        patterns: positions("patternProperties")?,
        additional: fields
            .get("additionalProperties")
            .or_else(|| fields.get("unevaluatedProperties"))
            .map(|schema| vec![Node::new(schema)]),
        names: fields.get("propertyNames").map(Node::new).into_iter().collect(),
        min: keywords::count(fields, "minProperties")?.unwrap_or(0),
        max: keywords::count(fields, "maxProperties")?,
        ..ObjectForm::default()
    };
    if let Some(names) = fields.get("required") {
        // Draft 3 had a boolean within the property, which some tools still write.
        if !names.is_boolean() {
            for name in keywords::list("required", names)? {
                form.required.push(keywords::text("required", name)?);
            }
        }
    }
    form.required.sort_unstable();
    form.required.dedup();
    limits::check_patterns(form.patterns.len(), form.properties.len())?;
    for at in 0..form.properties.len() {
        let (name, mut position) = form.properties[at].clone();
        for (pattern, schemas) in &form.patterns {
            if text::matches(pattern, name)? {
                super::document::join(&mut position, schemas);
            }
        }
        form.properties[at].1 = position;
    }
    Ok(form)
}
