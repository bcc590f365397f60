//! Numbers as they are written: ranges and multiples as regular expressions over digits.

use serde_json::{Value, json};

use super::decimal::{Decimal, FRACTION, INTEGER};
use super::form::{Bound, NumberForm};
use super::leaf::{Leaf, Multiple};

/// Endings that are written out for `multipleOf`, and the most digits of one.
const MAX_ENDINGS: u128 = 200;
const MAX_ENDING_DIGITS: u32 = 20;
/// Remainders that are told apart for `multipleOf`.
const MAX_REMAINDERS: u32 = 1000;

/// How the numbers of a form are written; nothing if there are none.
///
/// A number without an exponent has up to 19 digits before and 17 after the point; one about whose
/// size the schema says nothing may have an exponent of two digits. So every number ends, and fits
/// what programs read numbers into.
pub(super) fn leaf(form: &NumberForm<'_>) -> Result<Option<Leaf>, String> {
    let places = if form.integer { 0 } else { FRACTION };
    let mut leaf = match (form.min, form.max) {
        (None, None) if form.integer => Leaf::new("-?(?:0|[1-9][0-9]{0,17}|[1-8][0-9]{18})"),
        (None, None) if !form.broken && form.multiples.is_empty() && form.excluded.is_empty() => {
            Leaf::new("-?(?:0|[1-9][0-9]{0,18})(?:\\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?")
        }
        _ => Leaf::new(format!("-?(?:0|[1-9][0-9]{{0,{}}}){}", INTEGER - 1, fraction(places))),
    };
    if form.broken {
        if form.integer {
            return Ok(None);
        }
        leaf = leaf.and_not("-?[0-9]+(?:\\.0*)?");
    }
    if let (Some(min), Some(max)) = (form.min, form.max) {
        let empty =
            min.value > max.value || (min.value == max.value && (min.exclusive || max.exclusive));
        if empty {
            return Ok(None);
        }
    }
    if let Some(min) = form.min {
        leaf = leaf.and(at_least(min));
    }
    if let Some(max) = form.max {
        leaf = leaf.and(at_most(max));
    }
    for multiple in &form.multiples {
        leaf = and_multiple_of(leaf, form, *multiple)?;
    }
    for number in &form.excluded {
        let number = number
            .as_number()
            .and_then(Decimal::exact)
            .ok_or_else(|| format!("{number} has too many digits to be excluded"))?;
        leaf = leaf.and_not(equal_to(number));
    }
    Ok(Some(leaf))
}

/// The point and up to so many digits after it.
fn fraction(places: u32) -> String {
    if places == 0 { String::new() } else { format!("(?:\\.[0-9]{{1,{places}}})?") }
}

/// All ways to write one number without an exponent.
fn equal_to(number: Decimal) -> String {
    let (whole, fraction) = number.abs().digits();
    let sign = if number < Decimal::ZERO {
        "-"
    } else if number == Decimal::ZERO {
        "-?"
    } else {
        ""
    };
    if fraction.is_empty() {
        format!("{sign}{whole}(?:\\.0*)?")
    } else {
        format!("{sign}{whole}\\.{fraction}0*")
    }
}

fn at_least(Bound { value, exclusive }: Bound) -> String {
    if value < Decimal::ZERO {
        // Whatever is not negative, and what is negative and nearer to zero.
        format!("[0-9.]*|-(?:{})", smaller(value.abs(), !exclusive))
    } else {
        larger(value, !exclusive)
    }
}

fn at_most(Bound { value, exclusive }: Bound) -> String {
    if value < Decimal::ZERO {
        format!("-(?:{})", larger(value.abs(), !exclusive))
    } else if value == Decimal::ZERO && exclusive {
        // Not "-0".
        format!("-(?:{})", larger(value, false))
    } else {
        format!("-[0-9.]*|(?:{})", smaller(value, !exclusive))
    }
}

/// Numbers without a sign that are larger than `value`, or equal.
fn larger(value: Decimal, or_equal: bool) -> String {
    let (whole, fraction) = value.digits();
    // More digits before the point; or a larger digit after the same digits.
    let mut ways = vec![format!("[1-9][0-9]{{{},}}(?:\\.[0-9]*)?", whole.len())];
    for (at, digit) in whole.char_indices() {
        if let Some(digits) = above(digit) {
            let rest = whole.len() - at - 1;
            ways.push(format!("{}{digits}[0-9]{{{rest}}}(?:\\.[0-9]*)?", &whole[..at]));
        }
    }
    for (at, digit) in fraction.char_indices() {
        if let Some(digits) = above(digit) {
            ways.push(format!("{whole}\\.{}{digits}[0-9]*", &fraction[..at]));
        }
    }
    // The same digits and more.
    let same = if fraction.is_empty() { whole } else { format!("{whole}\\.{fraction}") };
    let point = if same.contains('.') { "" } else { "\\." };
    ways.push(if !or_equal {
        format!("{same}{point}0*[1-9][0-9]*")
    } else if point.is_empty() {
        format!("{same}[0-9]*")
    } else {
        format!("{same}(?:\\.[0-9]*)?")
    });
    ways.join("|")
}

/// Numbers without a sign that are smaller than `value`, or equal.
fn smaller(value: Decimal, or_equal: bool) -> String {
    let (whole, fraction) = value.digits();
    let mut ways = Vec::new();
    if whole.len() > 1 {
        ways.push(format!("[0-9]{{1,{}}}(?:\\.[0-9]*)?", whole.len() - 1));
    }
    for (at, digit) in whole.char_indices() {
        if let Some(digits) = below(digit) {
            let rest = whole.len() - at - 1;
            ways.push(format!("{}{digits}[0-9]{{{rest}}}(?:\\.[0-9]*)?", &whole[..at]));
        }
    }
    for (at, digit) in fraction.char_indices() {
        // What breaks off before the last digit is smaller, as that is not nought.
        let before = &fraction[..at];
        ways.push(if at == 0 { whole.clone() } else { format!("{whole}\\.{before}") });
        if let Some(digits) = below(digit) {
            ways.push(format!("{whole}\\.{before}{digits}[0-9]*"));
        }
    }
    if or_equal {
        ways.push(equal_to(value));
    }
    if ways.is_empty() { "[^\\s\\S]".to_owned() } else { ways.join("|") }
}

/// The digits after one, as a class.
fn above(digit: char) -> Option<String> {
    (digit < '9').then(|| format!("[{}-9]", char::from(digit as u8 + 1)))
}

/// The digits before one, as a class.
fn below(digit: char) -> Option<String> {
    (digit > '0').then(|| format!("[0-{}]", char::from(digit as u8 - 1)))
}

/// Adds that numbers are multiples of one.
///
/// Whether a number is a multiple of 2ᵃ·5ᵇ·10ᶜ shows in its last digits: those are written out. Of
/// another one the remainder is followed, digit by digit.
fn and_multiple_of(leaf: Leaf, form: &NumberForm<'_>, divisor: Decimal) -> Result<Leaf, String> {
    if divisor == Decimal::ZERO {
        return Err("multipleOf is 0; expected a number above 0".to_owned());
    }
    let (units, places) = divisor.abs().scaled();
    let digits = (0..=MAX_ENDING_DIGITS).find(|&digits| 10_u128.pow(digits) % units == 0);
    if let Some(digits) = digits.filter(|&digits| 10_u128.pow(digits) / units <= MAX_ENDINGS) {
        return Ok(leaf.and(endings(units, digits as usize, places as usize)));
    }
    match u32::try_from(units) {
        Ok(units) if units <= MAX_REMAINDERS && form.multiples.len() == 1 => {
            let schema = range_schema(form, divisor).to_string();
            Ok(leaf.and_multiple(Multiple { units, places, schema }))
        }
        _ => Err(format!(
            "multipleOf is {divisor}; without the decimal point at most {MAX_REMAINDERS} works, \
             or a divisor of a power of ten with at most {MAX_ENDINGS} endings, such as 25 or 0.01; \
             use minimum and maximum, or check it afterwards"
        )),
    }
}

/// The schema of multiples in a range; where none is given, one of 15 digits, so that they end.
fn range_schema(form: &NumberForm<'_>, divisor: Decimal) -> Value {
    const FAR: f64 = 1e15;
    let number = |value: Decimal| value.to_string().parse::<f64>().unwrap_or(FAR).clamp(-FAR, FAR);
    let kind = if form.integer { "integer" } else { "number" };
    let mut schema = json!({"type": kind, "minimum": -FAR, "maximum": FAR});
    schema["multipleOf"] = json!(number(divisor.abs()));
    for (bound, inclusive, exclusive) in
        [(form.min, "minimum", "exclusiveMinimum"), (form.max, "maximum", "exclusiveMaximum")]
    {
        if let Some(bound) = bound {
            schema[if bound.exclusive { exclusive } else { inclusive }] =
                json!(number(bound.value));
        }
    }
    schema
}

/// Numbers whose digits, `places` of them after the point, end in a multiple of `units` of so many
/// digits.
fn endings(units: u128, digits: usize, places: usize) -> String {
    // Digits of the ending before the point, and digits after the point that are free.
    let (before, free) = (digits.saturating_sub(places), places.saturating_sub(digits));
    let mut ways = Vec::new();
    for times in 0..10_u128.pow(digits as u32) / units {
        let ending =
            if digits == 0 { String::new() } else { format!("{:0digits$}", times * units) };
        let (whole, fraction) = ending.split_at(before);
        let fraction = fraction.trim_end_matches('0');
        let short = whole.trim_start_matches('0');
        let whole = match (before, short) {
            (0, _) => "[0-9]+".to_owned(),
            (_, "") => format!("(?:[0-9]*{whole}|0)"),
            (_, short) => format!("(?:[0-9]*{whole}|{short})"),
        };
        ways.push(if fraction.is_empty() {
            format!("{whole}(?:\\.[0-9]{{0,{free}}}0*)?")
        } else {
            format!("{whole}\\.[0-9]{{{free}}}{fraction}0*")
        });
    }
    format!("-?(?:{})", ways.join("|"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Number;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        let number: Number = serde_json::from_str(text).expect("a number");
        Decimal::exact(&number).expect("few digits")
    }

    /// Thousandths, written with as many digits as they need or with noughts after them.
    fn written_out(thousandths: i64, noughts: usize) -> String {
        let sign = if thousandths < 0 { "-" } else { "" };
        let (whole, rest) = (thousandths.abs() / 1000, thousandths.abs() % 1000);
        let rest = format!("{rest:03}");
        let rest = rest.trim_end_matches('0');
        match (rest, noughts) {
            ("", 0) => format!("{sign}{whole}"),
            (rest, noughts) => format!("{sign}{whole}.{rest}{}", "0".repeat(noughts)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn ranges_hold_what_is_within(
            low in -30_000_i64..30_000, span in 0_i64..20_000,
            exclusive in any::<[bool; 2]>(), near in -40_i64..40, noughts in 0_usize..3,
        ) {
            let bound = |value: i64, exclusive| {
                Some(Bound { value: decimal(&written_out(value, 0)), exclusive })
            };
            let form = NumberForm {
                min: bound(low, exclusive[0]),
                max: bound(low + span, exclusive[1]),
                ..NumberForm::default()
            };
            let leaf = leaf(&form).expect("a range");
            for number in [low + near, low + span + near, low, low + span, -low, 0, low / 1000 * 1000] {
                let within = (number > low || (number == low && !exclusive[0]))
                    && (number < low + span || (number == low + span && !exclusive[1]));
                let text = written_out(number, noughts);
                let matches = leaf.as_ref().is_some_and(|leaf| leaf.matches(&text) == Ok(true));
                prop_assert_eq!(matches, within, "{} in {:?}", text, form);
            }
        }

        #[test]
        fn multiples_are_multiples(
            divisor in prop::sample::select(vec![1_i64, 2, 5, 8, 10, 20, 25, 50, 100, 125, 200, 250, 500, 1000,
                2500, 4000, 5000, 25_000, 100_000]),
            times in 0_i64..500, other in 0_i64..500_000,
        ) {
            let form = NumberForm {
                multiples: vec![decimal(&written_out(divisor, 0))],
                ..NumberForm::default()
            };
            let leaf = leaf(&form).expect("few endings").expect("multiples");
            for number in [divisor * times, other, -other] {
                let text = written_out(number, 0);
                prop_assert_eq!(leaf.matches(&text), Ok(number % divisor == 0), "{} of {}", text, divisor);
            }
        }
    }
}
