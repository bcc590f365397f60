//! What chat templates expect of Python: string methods, `tojson`, `raise_exception` and
//! `strftime_now`.

use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// The template called `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RaisedByTemplate(String);

/// Gives templates the Python they use.
pub(crate) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
}

fn raise_exception(reason: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, reason.clone());
    Err(error.with_source(RaisedByTemplate(reason)))
}

/// `json.dumps(value, ensure_ascii=False, indent=…)`: unlike the filter of the template engine it
/// does not escape for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ascii == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: ensure_ascii=true"));
    }
    let mut json = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(MOST_INDENT));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, PythonFormatter)),
    };
    let invalid = |problem: String| Error::new(ErrorKind::BadSerialization, problem);
    written.map_err(|error| invalid(error.to_string()))?;
    String::from_utf8(json).map_err(|error| invalid(error.to_string()))
}

/// Templates indent by a handful of spaces.
const MOST_INDENT: usize = 64;

/// Python's default separators: `", "` and `": "`.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(seconds, format)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats a time, in seconds since 1970 UTC, by Python's `strftime` directives (English names).
fn strftime(seconds: u64, format: &str) -> Result<String, Error> {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[((days + 4) % 7) as usize]; // 1970-01-01 was a Thursday.
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = letters.next();
        // `%-d`: without the leading zero.
        let padded = directive != Some('-');
        if !padded {
            directive = letters.next();
        }
        let number = match directive {
            Some('d') => day,
            Some('m') => month,
            Some('y') => year % 100,
            Some('H') => hour,
            Some('I') => (hour + 11) % 12 + 1,
            Some('M') => minute,
            Some('S') => second,
            other => {
                match other {
                    Some('Y') => text.push_str(&year.to_string()),
                    Some('B') => text.push_str(month_name),
                    Some('b') => text.push_str(&month_name[..3]),
                    Some('A') => text.push_str(weekday),
                    Some('a') => text.push_str(&weekday[..3]),
                    Some('p') => text.push_str(if hour < 12 { "AM" } else { "PM" }),
                    Some('%') => text.push('%'),
                    _ => {
                        return Err(Error::new(
                            ErrorKind::InvalidOperation,
                            format!(
                                "strftime_now({format:?}): expected only the directives \
                                 %Y %m %d %y %B %b %A %a %H %I %M %S %p %%"
                            ),
                        ));
                    }
                }
                continue;
            }
        };
        let width = if padded { 2 } else { 1 };
        write!(text, "{number:0width$}").map_err(|_| Error::from(ErrorKind::WriteFailure))?;
    }
    Ok(text)
}

/// Year, month and day of the `days`th day after 1970-01-01 in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year and the lengths of
/// the months follow one linear rule (30.6 days on average).
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    const DAYS_BEFORE_1970: u64 = 719_468; // From 1 March of year 0.
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12 + 1;
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let at = |seconds, format: &str| strftime(seconds, format).unwrap();
        assert_eq!(at(0, "%A %d %B %Y"), "Thursday 01 January 1970");
        assert_eq!(at(951_782_400, "%Y-%m-%d"), "2000-02-29");
        assert_eq!(at(951_868_800, "%-d %b %y"), "1 Mar 00");
        assert_eq!(at(1_721_990_105, "%a %d %b %Y %H:%M:%S"), "Fri 26 Jul 2024 10:35:05");
        assert_eq!(at(4_107_542_399, "%d %b %Y %I %p 100%%"), "28 Feb 2100 11 PM 100%");
        assert!(strftime(0, "%Q").unwrap_err().to_string().contains("%Y"));
        assert!(strftime(0, "%").is_err());
    }

    #[test]
    fn consecutive_days_follow_each_other() {
        let days_in = |year: u64, month: u64| match month {
            2 if year.is_multiple_of(400) => 29,
            2 if year.is_multiple_of(4) && !year.is_multiple_of(100) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil_date(days), expected);
            let (year, month, day) = expected;
            expected = match () {
                () if day < days_in(year, month) => (year, month, day + 1),
                () if month < 12 => (year, month + 1, 1),
                () => (year + 1, 1, 1),
            };
        }
    }

    #[test]
    fn json_as_python_writes_it() {
        let value = Value::from(minijinja::value::Serde(serde_json::json!(
            {"name": "f<é>", "items": [1, 2.5, true, null], "empty": {}, "none": []}
        )));
        let mut environment = Environment::new();
        install(&mut environment);
        let render = |source: &str| {
            environment.render_str(source, minijinja::context! { value => value.clone() }).unwrap()
        };
        assert_eq!(
            render("{{ value | tojson }}"),
            r#"{"name": "f<é>", "items": [1, 2.5, true, null], "empty": {}, "none": []}"#
        );
        assert_eq!(
            render("{{ {'a': [1, 2], 'b': []} | tojson(indent=4) }}"),
            "{\n    \"a\": [\n        1,\n        2\n    ],\n    \"b\": []\n}"
        );
    }
}
