//! The formats of strings that are enforced. All others are comments, as the standard says.

/// A format: its name, and the texts that are written for it. They are plain ASCII without quotes
/// and backslashes, so a JSON string holds them as they are, and of bounded length, so they end.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) name: &'static str,
    pub(super) pattern: &'static str,
    /// The least and the most letters.
    pub(super) lengths: (u64, u64),
}

/// Month and day, and with a leap year the 29th of February. Years have four digits.
macro_rules! date {
    () => {
        "(?:[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])\
         |(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))\
         |[12][0-9](?:0[48]|[2468][048]|[13579][26])-02-29)"
    };
}

/// Hours to microseconds, and the zone.
macro_rules! time {
    () => {
        "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?\
         (?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
    };
}

/// A label of a host name.
macro_rules! label {
    () => {
        "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?"
    };
}

/// A host name.
macro_rules! host {
    () => {
        concat!(label!(), "(?:\\.", label!(), "){0,5}")
    };
}

macro_rules! octet {
    () => {
        "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}

macro_rules! ipv4 {
    () => {
        concat!("(?:", octet!(), "\\.){3}", octet!())
    };
}

/// A letter of a path, a query or a fragment.
macro_rules! url_letter {
    () => {
        "(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
    };
}

pub(super) static FORMATS: [Format; 10] = [
    Format { name: "date", pattern: date!(), lengths: (10, 10) },
    Format { name: "time", pattern: time!(), lengths: (9, 21) },
    Format { name: "date-time", pattern: concat!(date!(), "T", time!()), lengths: (20, 32) },
    Format {
        name: "duration",
        pattern: "P(?:[0-9]{1,4}W|(?:[0-9]{1,4}Y(?:[0-9]{1,4}M)?(?:[0-9]{1,4}D)?\
                  |[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)\
                  (?:T(?:[0-9]{1,4}H(?:[0-9]{1,4}M)?(?:[0-9]{1,4}S)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?\
                  |[0-9]{1,4}S))?|T(?:[0-9]{1,4}H(?:[0-9]{1,4}M)?(?:[0-9]{1,4}S)?\
                  |[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S))",
        lengths: (3, 32),
    },
    Format {
        name: "email",
        pattern: concat!(
            "[a-zA-Z0-9_+-]{1,32}(?:\\.[a-zA-Z0-9_+-]{1,24}){0,3}@",
            label!(),
            "(?:\\.",
            label!(),
            "){0,3}\\.[a-zA-Z]{2,12}"
        ),
        lengths: (6, 256),
    },
    Format { name: "hostname", pattern: host!(), lengths: (1, 197) },
    Format { name: "ipv4", pattern: ipv4!(), lengths: (7, 15) },
    Format {
        name: "ipv6",
        pattern: "(?:(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}\
                  |(?:[0-9a-fA-F]{1,4}:){1,6}(?::[0-9a-fA-F]{1,4})\
                  |(?:[0-9a-fA-F]{1,4}:){1,4}(?::[0-9a-fA-F]{1,4}){1,3}\
                  |(?:[0-9a-fA-F]{1,4}:){1,2}(?::[0-9a-fA-F]{1,4}){1,5}\
                  |(?:[0-9a-fA-F]{1,4}:){1,7}:|:(?::[0-9a-fA-F]{1,4}){1,7}|::)",
        lengths: (2, 39),
    },
    Format {
        name: "uuid",
        pattern: "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
        lengths: (36, 36),
    },
    Format {
        name: "uri",
        pattern: concat!(
            "(?:[a-z][a-z0-9+.-]{1,11}://",
            host!(),
            "(?::[1-9][0-9]{0,3})?(?:/",
            url_letter!(),
            "{0,48}){0,8}(?:\\?",
            url_letter!(),
            "{0,128})?(?:\\#",
            url_letter!(),
            "{0,64})?|(?:mailto|urn|tel|data|news):",
            url_letter!(),
            "{1,128})"
        ),
        lengths: (5, 1960),
    },
];

/// The format of a name, if it is enforced.
pub(super) fn format(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}
