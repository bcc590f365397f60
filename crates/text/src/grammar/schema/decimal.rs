//! Numbers of a schema, exact: what a schema says about 0.1 is not what it says about the nearest
//! binary fraction.

use std::fmt;

use serde_json::Number;

/// Digits after the decimal point that are kept, and that an answer may have.
pub(super) const FRACTION: u32 = 17;
/// Digits before it.
pub(super) const INTEGER: u32 = 19;
/// One, in units of the last digit.
const ONE: i128 = 10_i128.pow(FRACTION);
/// The first number that has too many digits before the point.
const END: i128 = 10_i128.pow(FRACTION + INTEGER);

/// A number with [`FRACTION`] digits after the decimal point and [`INTEGER`] before it, in units of
/// the last digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decimal(i128);

/// Where a number goes that has too many digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// To the next smaller.
    Down,
    /// To the next larger.
    Up,
}

impl Decimal {
    pub(super) const ZERO: Self = Self(0);

    /// The number, if it has no more digits than are kept.
    pub(super) fn exact(number: &Number) -> Option<Self> {
        let down = Self::rounded(number, Rounding::Down);
        (down == Self::rounded(number, Rounding::Up) && down.0.abs() < END).then_some(down)
    }

    /// The nearest number that has no more digits than are kept; one that is too large becomes one
    /// that is larger than all that an answer may hold.
    pub(super) fn rounded(number: &Number, rounding: Rounding) -> Self {
        let text = number.to_string();
        let (negative, text) = text.strip_prefix('-').map_or((false, &*text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // An exponent of so many digits is beyond all bounds, as its sign says.
        let huge = if exponent.starts_with('-') { -10_000 } else { 10_000 };
        let exponent: i64 = exponent.parse().unwrap_or(huge).clamp(-10_000, 10_000);
        let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| i128::from(digit - b'0'));
        // Digits before the decimal point of the units of this type.
        let kept = whole.len() as i64 + exponent + i64::from(FRACTION);
        let (mut units, mut lost) = (0_i128, false);
        for (place, digit) in digits().enumerate() {
            if (place as i64) < kept {
                units = (units * 10 + digit).min(END);
            } else {
                lost |= digit != 0;
            }
        }
        for _ in digits().count() as i64..kept {
            units = (units * 10).min(END);
            if units == 0 {
                break;
            }
        }
        if lost && negative == (rounding == Rounding::Down) {
            units += 1;
        }
        Self(if negative { -units } else { units })
    }

    /// Whether it has no digits after the point.
    pub(super) fn is_integer(self) -> bool {
        self.0 % ONE == 0
    }

    /// Whether it is a multiple of `other`; of zero only zero is.
    pub(super) fn is_multiple_of(self, other: Self) -> bool {
        if other.0 == 0 { self.0 == 0 } else { self.0 % other.0 == 0 }
    }

    /// Its distance from zero.
    pub(super) fn abs(self) -> Self {
        Self(self.0.abs())
    }

    /// The digits before and after the decimal point, without needless zeros; no sign.
    pub(super) fn digits(self) -> (String, String) {
        let units = self.0.unsigned_abs();
        let fraction = format!("{:0width$}", units % ONE as u128, width = FRACTION as usize);
        ((units / ONE as u128).to_string(), fraction.trim_end_matches('0').to_owned())
    }

    /// The number and a power of ten: `self` is `number / 10^places`, with the fewest places.
    pub(super) fn scaled(self) -> (u128, u32) {
        let (mut units, mut places) = (self.0.unsigned_abs(), FRACTION);
        while places > 0 && units % 10 == 0 {
            units /= 10;
            places -= 1;
        }
        (units, places)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = self.digits();
        let sign = if self.0 < 0 { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn numbers_are_exact_or_rounded_to_the_side_asked_for() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.10", "-0.1"),
            ("12.5e2", "1250"),
            ("25e-1", "2.5"),
            ("9007199254740993", "9007199254740993"),
            ("1e18", "1000000000000000000"),
        ] {
            let exact = Decimal::exact(&number(text)).map(|decimal| decimal.to_string());
            assert_eq!(exact.as_deref(), Some(shown), "{text}");
        }
        let tiny = number("5e-324");
        assert_eq!(Decimal::exact(&tiny), None);
        assert_eq!(Decimal::rounded(&tiny, Rounding::Down), Decimal::ZERO);
        assert_eq!(Decimal::rounded(&tiny, Rounding::Up).to_string(), "0.00000000000000001");
        assert_eq!(Decimal::exact(&number("1.7976931348623157e308")), None);
        let huge = Decimal::rounded(&number("-1.7976931348623157e308"), Rounding::Up);
        assert!(huge < Decimal::rounded(&number("-9e18"), Rounding::Up));
    }
}
