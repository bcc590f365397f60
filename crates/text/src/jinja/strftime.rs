//! `strftime_now`: dates as C's `strftime` writes them, in English.

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

/// The directives that are known.
const DIRECTIVES: &str = "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%";

/// A moment in UTC.
struct Moment {
    seconds: u64,
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// 0 to 365.
    day_of_year: u64,
    /// 0 is Sunday.
    weekday: u64,
}

/// Formats a time, in seconds since 1970 UTC, by the directives of glibc, which Python hands them to.
///
/// `%-d` leaves the leading zero out, `%_d` makes it a space, `%^a` is in capitals.
pub(super) fn strftime(seconds: u64, format: &str) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = civil_date(days);
    let moment = Moment {
        seconds,
        year,
        month,
        day,
        day_of_year: days - days_before(year),
        weekday: (days + 4) % 7, // 1970-01-01 was a Thursday.
    };
    let mut text = String::new();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let flag = letters.next_if(|letter| matches!(letter, '-' | '_' | '^' | '#' | '0'));
        match letters.next() {
            // At the end it stands for itself.
            None => text.push('%'),
            Some(directive) if DIRECTIVES.contains(directive) => {
                let written = moment.write(directive, flag);
                text.push_str(&if flag == Some('^') { written.to_uppercase() } else { written });
            }
            // What is no directive stands for itself, too.
            Some(other) => text.extend(['%'].into_iter().chain(flag).chain([other])),
        }
    }
    text
}

impl Moment {
    fn write(&self, directive: char, flag: Option<char>) -> String {
        let at = |form: &str| strftime(self.seconds, form);
        let hour = self.seconds / 3600 % 24;
        let twelve = (hour + 11) % 12 + 1;
        let month = MONTHS[self.month as usize - 1];
        let weekday = WEEKDAYS[self.weekday as usize];
        let (week_year, week) = self.iso_week();
        let padded = |number: u64, width: usize, fill: char| {
            let fill = match flag {
                Some('-') => return number.to_string(),
                Some('_') => ' ',
                Some('0') => '0',
                _ => fill,
            };
            let digits = number.to_string();
            let missing = width.saturating_sub(digits.len());
            std::iter::repeat_n(fill, missing).collect::<String>() + &digits
        };
        match directive {
            'a' => weekday[..3].to_owned(),
            'A' => weekday.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'B' => month.to_owned(),
            'c' => at("%a %b %e %H:%M:%S %Y"),
            'C' => padded(self.year / 100, 2, '0'),
            'd' => padded(self.day, 2, '0'),
            'D' | 'x' => at("%m/%d/%y"),
            'e' => padded(self.day, 2, ' '),
            'f' => "000000".to_owned(),
            'F' => at("%Y-%m-%d"),
            'g' => padded(week_year % 100, 2, '0'),
            'G' => week_year.to_string(),
            'H' => padded(hour, 2, '0'),
            'I' => padded(twelve, 2, '0'),
            'j' => padded(self.day_of_year + 1, 3, '0'),
            'k' => padded(hour, 2, ' '),
            'l' => padded(twelve, 2, ' '),
            'm' => padded(self.month, 2, '0'),
            'M' => padded(self.seconds / 60 % 60, 2, '0'),
            'n' => "\n".to_owned(),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'P' => if hour < 12 { "am" } else { "pm" }.to_owned(),
            'r' => at("%I:%M:%S %p"),
            'R' => at("%H:%M"),
            's' => self.seconds.to_string(),
            'S' => padded(self.seconds % 60, 2, '0'),
            't' => "\t".to_owned(),
            'T' | 'X' => at("%H:%M:%S"),
            'u' => (if self.weekday == 0 { 7 } else { self.weekday }).to_string(),
            // Weeks that begin with Sunday, and with Monday; days before the first are in week 0.
            'U' => padded((self.day_of_year + 7 - self.weekday) / 7, 2, '0'),
            'W' => padded((self.day_of_year + 7 - (self.weekday + 6) % 7) / 7, 2, '0'),
            'V' => padded(week, 2, '0'),
            'w' => self.weekday.to_string(),
            'y' => padded(self.year % 100, 2, '0'),
            'Y' => self.year.to_string(),
            '%' => "%".to_owned(),
            // Python's dates without a zone write none.
            _ => String::new(),
        }
    }

    /// The year and the week by ISO 8601: weeks begin with Monday and belong to the year that has
    /// their Thursday.
    fn iso_week(&self) -> (u64, u64) {
        let thursday = self.seconds / 86_400 + 3 - (self.weekday + 6) % 7;
        let (year, ..) = civil_date(thursday);
        (year, (thursday - days_before(year)) / 7 + 1)
    }
}

/// Days from 1970-01-01 to the first of January of a year from 1970 on.
fn days_before(year: u64) -> u64 {
    let past = year - 1;
    365 * (year - 1970) + (past / 4 - past / 100 + past / 400)
        - (1969 / 4 - 1969 / 100 + 1969 / 400)
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
    fn every_directive_is_written_as_python_does() {
        let golden = include_str!("../../tests/data/jinja.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let seconds = golden["strftime_at"].as_u64().unwrap();
        for (form, expected) in golden["strftime"].as_object().unwrap() {
            // Fractions of a second are not counted here.
            let expected = expected.as_str().unwrap().replace("000042", "000000");
            // `%s` is of the zone of the machine that made the goldens.
            assert_eq!(strftime(seconds, form), expected, "{form}");
        }
        assert_eq!(strftime(0, "%Q %-é"), "%Q %-é");
    }

    #[test]
    fn dates() {
        let at = |seconds, format: &str| strftime(seconds, format);
        assert_eq!(at(0, "%A %d %B %Y"), "Thursday 01 January 1970");
        assert_eq!(at(951_782_400, "%Y-%m-%d %j"), "2000-02-29 060");
        assert_eq!(at(951_868_800, "%-d %b %y"), "1 Mar 00");
        assert_eq!(at(1_721_990_105, "%a %d %b %Y %H:%M:%S"), "Fri 26 Jul 2024 10:35:05");
        assert_eq!(at(4_107_542_399, "%d %b %Y %I %p 100%%"), "28 Feb 2100 11 PM 100%");
        assert_eq!(at(1_735_603_200, "%G-W%V-%u %U %W"), "2025-W01-2 52 53");
    }

    #[test]
    fn consecutive_days_follow_each_other() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let days_in = |year: u64, month: u64| match month {
            2 => 28 + u64::from(is_leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil_date(days), expected);
            let (year, month, day) = expected;
            if (month, day) == (1, 1) {
                assert_eq!(days_before(year), days);
            }
            expected = match () {
                () if day < days_in(year, month) => (year, month, day + 1),
                () if month < 12 => (year, month + 1, 1),
                () => (year + 1, 1, 1),
            };
        }
    }
}
