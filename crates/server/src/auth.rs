//! API keys.

use std::hint::black_box;

use axum::http::{HeaderMap, header};

use crate::error::{ApiError, ErrorKind};

/// Keys of which a request must show one.
pub(crate) struct ApiKeys(Vec<String>);

impl ApiKeys {
    pub(crate) fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    /// Checks `Authorization: Bearer KEY`, `X-Api-Key: KEY` and `api-key: KEY`: one good key is enough.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let refuse =
            |message| Err(ApiError::new(ErrorKind::Unauthorized, message).code("invalid_api_key"));
        let mut shown = shown(headers).peekable();
        if shown.peek().is_none() {
            return refuse("no API key; send it as the header Authorization: Bearer KEY");
        }
        // Every key is looked at in full: the time taken tells nothing about how near a guess is.
        let is_key = |shown: &[u8]| {
            self.0.iter().fold(false, |known, key| known | equal(key.as_bytes(), shown))
        };
        let known = shown.fold(false, |known, shown| known | is_key(shown));
        if known { Ok(()) } else { refuse("the API key is not one of this server's") }
    }
}

impl ApiKeys {
    /// The key that opened the server for a request; none if keys are not asked for.
    pub(crate) fn shown<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let is_key = |shown: &&[u8]| self.0.iter().any(|key| equal(key.as_bytes(), shown));
        shown(headers).find(is_key)
    }
}

/// The keys that a request shows.
fn shown(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    let plain = ["x-api-key", "api-key"].into_iter().filter_map(|name| headers.get(name));
    bearer.into_iter().chain(plain.map(|value| value.as_bytes()))
}

/// Whether two texts are equal, in a time that depends on their lengths only.
fn equal(key: &[u8], shown: &[u8]) -> bool {
    let padded = shown.iter().chain(std::iter::repeat(&0));
    let difference =
        key.iter().zip(padded).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0 && key.len() == shown.len()
}

/// Paths that answer without a key: what a load balancer asks, and the files of the page, which
/// hold no secrets.
pub(crate) fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/health" | "/live" | "/ping")
        || path.starts_with("/v2/health/")
        || path.starts_with("/page/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_open() {
        let keys = ApiKeys::new(vec!["secret".to_owned(), "other".to_owned()]);
        let check = |name: &'static str, value: &'static str| {
            keys.check(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        check("authorization", "Bearer secret").unwrap();
        check("authorization", "bearer other").unwrap();
        check("api-key", "secret").unwrap();
        check("x-api-key", "secret").unwrap();
        let both = [("authorization", "Bearer wrong"), ("x-api-key", "other")];
        let both = both.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        keys.check(&HeaderMap::from_iter(both)).unwrap();
        for key in ["Bearer secre", "Bearer secret1", "Bearer ", "Basic secret", "secret", "é"] {
            assert!(check("authorization", key).is_err(), "{key}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
        ApiKeys::new(Vec::new()).check(&HeaderMap::new()).unwrap();
    }
}
