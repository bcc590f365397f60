//! The filters of templates.

use std::cmp::Ordering;

use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::arguments::{self, Arguments};
use super::methods::Group;
use super::operators::OPERATORS;
use super::printf::printf;
use super::{fault, json, methods, python, spend, strings, wrap};

/// A filter of our own: its parameters as Python names them, the value first.
pub(super) type Filter =
    (&'static str, &'static [&'static str], fn(&Arguments) -> Result<Value, Error>);

/// Filters of the engine that do what jinja2's do.
const ENGINE: &[&str] = &[
    "safe",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "batch",
    "slice",
    "sum",
    "list",
];

/// Filters whose results jinja2 makes one by one.
pub(super) const GENERATORS: &[&str] =
    &["map", "select", "reject", "selectattr", "rejectattr", "batch", "slice"];

/// Filters of jinja2 that are not here.
pub(super) const MISSING: &[&str] = &["random", "urlize", "pprint", "xmlattr"];

const OWN: &[Filter] = &[
    ("abs", &["x"], abs),
    ("attr", &["obj", "name"], attr),
    ("capitalize", &["s"], |a| Ok(strings::capitalize(&a.printed(0)?).into())),
    ("center", &["value", "width"], |a| {
        Ok(strings::center(&a.printed(0)?, a.integer_or(1, 80)?, ' ')?.into())
    }),
    ("count", &["obj"], length),
    ("d", &["value", "default_value", "boolean"], default),
    ("default", &["value", "default_value", "boolean"], default),
    ("dictsort", &["value", "case_sensitive", "by", "reverse"], dictsort),
    ("e", &["s"], escape),
    ("escape", &["s"], escape),
    ("filesizeformat", &["value", "binary"], wrap::filesizeformat),
    ("first", &["seq"], |a| Ok(sequence(a.value(0)?)?.into_iter().next().unwrap_or_default())),
    ("float", &["value", "default"], float),
    ("forceescape", &["value"], |a| Ok(Value::from_safe_string(python::escaped(&a.printed(0)?)))),
    ("groupby", &["value", "attribute", "default", "case_sensitive"], groupby),
    ("indent", &["s", "width", "first", "blank"], wrap::indent),
    ("int", &["value", "default", "base"], int),
    ("items", &["value"], items),
    ("join", &["value", "d", "attribute"], join),
    ("last", &["seq"], last),
    ("length", &["obj"], length),
    ("lower", &["s"], |a| Ok(strings::lower(&a.printed(0)?).into())),
    ("max", &["value", "case_sensitive", "attribute"], |a| extreme(a, Ordering::Greater)),
    ("min", &["value", "case_sensitive", "attribute"], |a| extreme(a, Ordering::Less)),
    ("replace", &["s", "old", "new", "count"], replace),
    ("reverse", &["value"], reverse),
    ("round", &["value", "precision", "method"], round),
    ("sort", &["value", "reverse", "case_sensitive", "attribute"], sort),
    ("string", &["object"], string),
    ("striptags", &["value"], wrap::striptags),
    ("title", &["s"], |a| Ok(strings::title_words(&a.printed(0)?).into())),
    ("tojson", &["x", "ensure_ascii", "indent", "separators", "sort_keys"], json::to_json),
    ("trim", &["value", "chars"], |a| {
        Ok(strings::trimmed(&a.printed(0)?, a.some(1).and_then(Value::as_str), true, true).into())
    }),
    ("truncate", &["s", "length", "killwords", "end", "leeway"], wrap::truncate),
    ("unique", &["value", "case_sensitive", "attribute"], unique),
    ("upper", &["s"], |a| Ok(a.printed(0)?.to_uppercase().into())),
    ("urlencode", &["value"], wrap::urlencode),
    ("wordcount", &["s"], |a| Ok(wrap::wordcount(&a.printed(0)?).into())),
    (
        "wordwrap",
        &["s", "width", "break_long_words", "wrapstring", "break_on_hyphens"],
        wrap::wordwrap,
    ),
];

/// Whether a template may use this filter.
pub(super) fn is_known(name: &str) -> bool {
    ENGINE.contains(&name) || name == "format" || OWN.iter().any(|(own, ..)| *own == name)
}

pub(super) fn install(environment: &mut Environment<'static>) {
    // What jinja2 makes one by one has no length and is no list.
    environment.add_filter("generator", |list: Value| {
        let items = python::items(&list)?;
        Ok::<_, Error>(Value::make_iterable(move || items.clone().into_iter()))
    });
    for &(name, parameters, work) in OWN.iter().chain(OPERATORS) {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>, given: Rest<ValueOrKwargs>| {
                let given = given.into_values();
                let bytes = given.iter().map(bytes).sum();
                spend(state, bytes)?;
                let result = work(&Arguments::bind(name, parameters, &given)?)?;
                spend(state, self::bytes(&result))?;
                Ok::<Value, Error>(result)
            },
        );
    }
    environment.add_filter("format", |pattern: Value, given: Rest<ValueOrKwargs>| {
        let given = given.into_values();
        let (positional, named) = arguments::split(&given)?;
        let names: Vec<&str> = named.args().collect();
        if !names.is_empty() {
            let pairs = names.iter().map(|name| Ok((*name, named.peek::<Value>(name)?)));
            let map = Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?);
            return printf(&python::display(&pattern)?, &map);
        }
        printf(&python::display(&pattern)?, &Value::from(Tuple::from(positional)))
    });
}

/// What a value costs a rendering that copies it: of lists and maps the places.
pub(super) fn bytes(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().map_or(8, |length| 16 * length),
    }
}

fn sequence(value: &Value) -> Result<Vec<Value>, Error> {
    python::items(value)
}

fn length(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.is_undefined() {
        return Ok(0.into());
    }
    let length =
        value.len().filter(|_| value.kind() != ValueKind::Iterable || methods::is_view(value));
    length
        .map(Value::from)
        .ok_or_else(|| fault(format!("object of type '{}' has no len()", python::type_name(value))))
}

fn abs(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    match python::integer(value) {
        Some(whole) => Ok(whole.unsigned_abs().into()),
        None => Ok(python::number(value)?.abs().into()),
    }
}

/// `getattr`, which finds no entries of dictionaries.
fn attr(arguments: &Arguments) -> Result<Value, Error> {
    let (value, name) = (arguments.value(0)?, arguments.text(1)?);
    if methods::has(value, name) {
        return methods::attribute(value, name);
    }
    match value.kind() {
        ValueKind::Undefined => value.get_attr(name),
        ValueKind::Plain | ValueKind::Iterable => value.get_attr(name),
        _ => Ok(Value::UNDEFINED),
    }
}

fn default(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.is_undefined() || (arguments.flag_or(2, false) && !value.is_true()) {
        return Ok(arguments.given(1).cloned().unwrap_or_else(|| Value::from("")));
    }
    Ok(value.clone())
}

/// What two values are sorted by: texts without their case, unless it counts.
fn folded(value: &Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => strings::lower(text).into(),
        _ => value.clone(),
    }
}

/// Sorts by a key, and says which two keys cannot be compared.
fn sort_by_key<T>(list: Vec<T>, key: impl Fn(&T) -> Result<Value, Error>) -> Result<Vec<T>, Error> {
    let mut failed = None;
    let mut keyed = Vec::with_capacity(list.len());
    for item in list {
        keyed.push((key(&item)?, item));
    }
    keyed.sort_by(|(a, _), (b, _)| {
        python::compare(a, b).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            Ordering::Equal
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn dictsort(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    let place = match arguments.text_or(2, "key")? {
        "key" => 0,
        "value" => 1,
        _ => return Err(fault("dictsort sorts by either \"key\" or \"value\"")),
    };
    let pairs = methods::pairs(value)?;
    let case_sensitive = arguments.flag_or(1, false);
    let mut sorted = sort_by_key(pairs, |pair| Ok(folded(&pair[place], case_sensitive)))?;
    if arguments.flag_or(3, false) {
        // Reversed as Python does it: equal ones keep their order.
        sorted.reverse();
        sorted = stable_reversed(sorted, |pair| folded(&pair[place], case_sensitive));
    }
    Ok(sorted.into_iter().map(|pair| Value::from(Tuple::from(pair))).collect())
}

/// Puts runs of equal keys, which reversing turned round, back into their order.
fn stable_reversed<T>(list: Vec<T>, key: impl Fn(&T) -> Value) -> Vec<T> {
    let mut result: Vec<T> = Vec::with_capacity(list.len());
    let mut run: Vec<T> = Vec::new();
    for item in list {
        if run.first().is_some_and(|first| !python::equal(&key(first), &key(&item))) {
            result.extend(run.drain(..).rev());
        }
        run.push(item);
    }
    result.extend(run.into_iter().rev());
    result
}

fn escape(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.is_safe() {
        return Ok(value.clone());
    }
    Ok(Value::from_safe_string(python::escaped(&python::display(value)?)))
}

fn float(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    let found = match value.as_str() {
        Some(text) => strings::to_float(text),
        None if value.is_undefined() => return Err(undefined(value)),
        None => python::number(value).ok(),
    };
    Ok(found.map_or_else(|| arguments.given(1).cloned().unwrap_or_else(|| 0.0.into()), Value::from))
}

pub(super) fn undefined(value: &Value) -> Error {
    // The engine knows the name of what is undefined; asking for an attribute makes it say so.
    value.get_attr("value").err().unwrap_or_else(|| fault("the value is undefined"))
}

fn int(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    let default = || arguments.given(1).cloned().unwrap_or_else(|| 0.into());
    if value.is_undefined() {
        return Err(undefined(value));
    }
    if let Some(text) = value.as_str() {
        let base = u32::try_from(arguments.integer_or(2, 10)?).unwrap_or(10);
        let whole = strings::to_integer(text, base);
        let cut = || strings::to_float(text).filter(|number| number.is_finite());
        return Ok(match (whole, cut()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(number)) => Value::from(number as i128),
            _ => default(),
        });
    }
    if value.kind() == ValueKind::Number && value.is_integer() {
        return Ok(value.clone());
    }
    match python::number(value) {
        Ok(number) if number.is_finite() => Ok(Value::from(number as i128)),
        _ => Ok(default()),
    }
}

/// Items under the attribute that they share, in its order.
fn groupby(arguments: &Arguments) -> Result<Value, Error> {
    let attribute = Some(arguments.value(1)?);
    let case_sensitive = arguments.flag_or(3, false);
    let of = |item: &Value| -> Result<Value, Error> {
        let found = by_path(item, attribute)?;
        Ok(if found.is_undefined() { arguments.given(2).cloned().unwrap_or(found) } else { found })
    };
    let key = |item: &Value| Ok::<_, Error>(folded(&of(item)?, case_sensitive));
    let mut groups: Vec<(Value, Group)> = Vec::new();
    for item in sort_by_key(sequence(arguments.value(0)?)?, key)? {
        let found = key(&item)?;
        match groups.last_mut() {
            Some((known, group)) if python::equal(known, &found) => group.list.push(item),
            _ => groups.push((found, Group { grouper: of(&item)?, list: vec![item] })),
        }
    }
    Ok(groups.into_iter().map(|(_, group)| Value::from_object(group)).collect())
}

fn items(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Map => Ok(methods::pairs(value)?
            .into_iter()
            .map(|pair| Value::from(Tuple::from(pair)))
            .collect()),
        _ => Err(fault("Can only get item pairs from a mapping.")),
    }
}

/// The value of an attribute, by a path with dots.
fn by_path(value: &Value, attribute: Option<&Value>) -> Result<Value, Error> {
    let Some(attribute) = attribute else { return Ok(value.clone()) };
    let path = python::display(attribute)?;
    let mut found = value.clone();
    for part in path.split('.') {
        found = match part.parse::<i64>() {
            Ok(index) => found.get_item(&Value::from(index))?,
            Err(_) => found.get_attr(part)?,
        };
    }
    Ok(found)
}

fn join(arguments: &Arguments) -> Result<Value, Error> {
    let separator = match arguments.given(1) {
        Some(separator) => python::display(separator)?,
        None => String::new(),
    };
    let mut text = String::new();
    for (n, item) in sequence(arguments.value(0)?)?.iter().enumerate() {
        if n > 0 {
            text.push_str(&separator);
        }
        text.push_str(&python::display(&by_path(item, arguments.some(2))?)?);
        if text.len() > super::MOST_BYTES {
            return Err(fault("join makes a text that is too long"));
        }
    }
    Ok(text.into())
}

fn last(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.kind() == ValueKind::Iterable && !methods::is_view(value) {
        return Err(fault("last needs a sequence; make it a list before"));
    }
    Ok(sequence(value)?.pop().unwrap_or_default())
}

fn extreme(arguments: &Arguments, wanted: Ordering) -> Result<Value, Error> {
    let case_sensitive = arguments.flag_or(1, false);
    let key =
        |item: &Value| Ok::<_, Error>(folded(&by_path(item, arguments.some(2))?, case_sensitive));
    let mut best: Option<(Value, Value)> = None;
    for item in sequence(arguments.value(0)?)? {
        let found = key(&item)?;
        let better = match &best {
            None => true,
            Some((known, _)) => python::compare(&found, known)? == wanted,
        };
        if better {
            best = Some((found, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn replace(arguments: &Arguments) -> Result<Value, Error> {
    let (text, old, new) = (arguments.printed(0)?, arguments.printed(1)?, arguments.printed(2)?);
    let count = arguments.integer_or(3, -1)?;
    let replaced = strings::replaced(&text, &old, &new, count)?;
    let is_safe = arguments.value(0)?.is_safe();
    Ok(if is_safe { Value::from_safe_string(replaced) } else { replaced.into() })
}

fn reverse(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if let Some(text) = value.as_str() {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    let mut list = sequence(value)?;
    list.reverse();
    Ok(Value::make_iterable(move || list.clone().into_iter()))
}

fn round(arguments: &Arguments) -> Result<Value, Error> {
    let number = python::number(arguments.value(0)?)?;
    let places = arguments.integer_or(1, 0)?.clamp(-400, 400) as i32;
    let scale = 10_f64.powi(places);
    let rounded = match arguments.text_or(2, "common")? {
        "common" => strings::rounded(number, places),
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        _ => return Err(fault("round: method must be common, ceil or floor")),
    };
    let whole = python::integer(arguments.value(0)?)
        .filter(|_| arguments.text_or(2, "common").is_ok_and(|m| m == "common"));
    Ok(whole.map_or_else(|| rounded.into(), |_| Value::from(rounded as i64)))
}

fn sort(arguments: &Arguments) -> Result<Value, Error> {
    let case_sensitive = arguments.flag_or(2, false);
    let paths: Vec<Value> = match arguments.some(3) {
        Some(paths) => python::display(paths)?.split(',').map(Value::from).collect(),
        None => Vec::new(),
    };
    let key = |item: &Value| -> Result<Value, Error> {
        if paths.is_empty() {
            return Ok(folded(item, case_sensitive));
        }
        let keys = paths.iter().map(|path| Ok(folded(&by_path(item, Some(path))?, case_sensitive)));
        Ok(Value::from(keys.collect::<Result<Vec<_>, Error>>()?))
    };
    let mut sorted = sort_by_key(sequence(arguments.value(0)?)?, key)?;
    if arguments.flag_or(1, false) {
        sorted.reverse();
        sorted = stable_reversed(sorted, |item| key(item).unwrap_or_default());
    }
    Ok(sorted.into())
}

fn string(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.as_str().is_some() { Ok(value.clone()) } else { Ok(python::display(value)?.into()) }
}

fn unique(arguments: &Arguments) -> Result<Value, Error> {
    let case_sensitive = arguments.flag_or(1, false);
    let mut seen = std::collections::BTreeSet::new();
    let mut unique = Vec::new();
    for item in sequence(arguments.value(0)?)? {
        let key = folded(&by_path(&item, arguments.some(2))?, case_sensitive);
        // Truth values count as numbers.
        let key = python::integer(&key).map_or(key, Value::from);
        if seen.insert(key) {
            unique.push(item);
        }
    }
    Ok(Value::make_iterable(move || unique.clone().into_iter()))
}
