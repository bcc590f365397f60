//! The name of a request: the client's, or one made here.

use std::hash::{BuildHasher, RandomState};

use axum::http::{HeaderMap, HeaderName};

/// The header that carries it in both directions.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a client's name for a request at most.
const MAX_LENGTH: usize = 128;

/// The client's name for the request if it is one line of plain characters, else a new one.
pub(crate) fn of(headers: &HeaderMap) -> String {
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    given.filter(|id| is_sane(id)).map_or_else(|| unique("req"), str::to_owned)
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// A name that no other has: `kind-` and 32 hexadecimal digits.
pub(crate) fn unique(kind: &str) -> String {
    format!("{kind}-{}", hexadecimal())
}

/// 32 hexadecimal digits that no other name has.
pub(crate) fn hexadecimal() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// A random number, from the seeds that the standard library draws for its hash maps. Good for
/// names and for sampling; no secret depends on it.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sane_names_are_kept() {
        let of = |id: &'static str| of(&HeaderMap::from_iter([(HEADER, id.parse().unwrap())]));
        assert_eq!(of("client-7.a:b_c"), "client-7.a:b_c");
        for id in ["", "two words", "a\"b"] {
            assert_eq!(of(id).len(), 36, "{id:?}");
        }
        assert_ne!(unique("a"), unique("a"));
    }
}
