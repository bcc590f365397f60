//! Which hosts and which web pages a server answers.
//!
//! Any page that a browser on this machine has open can send requests to a server that listens here.
//! A server with API keys need not care: pages do not know them. One without answers to names that
//! cannot be somebody else's (against DNS rebinding, where a foreign name is made to lead here), and
//! only to pages of such names. Other pages are let in by name
//! ([`cors_origins`](crate::ServerOptions::cors_origins)), and their browsers told so by the rules of
//! CORS (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::fs;
use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::ServerOptions;
use crate::error::{ApiError, ErrorKind};

/// Lets all pages in, or all hosts.
pub(crate) const ANY: &str = "*";

/// Headers of responses that pages may read beside those they always may.
const EXPOSED: &str = "x-request-id, retry-after, inference-header-content-length";

const METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";

/// Seconds that a browser may remember what a page was allowed.
const MAX_AGE: &str = "600";

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// The hosts and pages that are answered.
pub(crate) struct Origins {
    /// None if every host is: there are keys, or the options say so.
    hosts: Option<Hosts>,
    pages: Vec<String>,
}

/// Names by which this server may be asked for.
struct Hosts {
    listening: IpAddr,
    /// In lower case.
    names: Vec<String>,
}

impl Origins {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let any =
            !options.api_keys.is_empty() || options.allow_hosts.iter().any(|name| name == ANY);
        Self { hosts: (!any).then(|| Hosts::new(options)), pages: options.cors_origins.clone() }
    }

    /// Refuses a request that was sent to a foreign name, or by a page that was not let in.
    ///
    /// Programs that are no browsers may leave both headers out.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(hosts) = &self.hosts else { return Ok(()) };
        let named = headers.get_all(header::HOST).into_iter().map(|host| host.as_bytes());
        let named = named.chain(uri.authority().map(|authority| authority.as_str().as_bytes()));
        for host in named {
            let known = host_of(host).is_some_and(|host| hosts.know(&host));
            if !known {
                let host = shown(host);
                let message = format!(
                    "the host {host:?} is not one that this server answers to, expected {}; serve \
                     with --allow-host NAME, or with an API key",
                    hosts.listed()
                );
                return Err(ApiError::new(ErrorKind::Forbidden, message).code("host_not_allowed"));
            }
        }
        for origin in headers.get_all(header::ORIGIN) {
            let ours = page_host(origin.as_bytes()).is_some_and(|host| hosts.know(&host));
            if !ours && !self.lets_in(origin) {
                return Err(refused_page(origin));
            }
        }
        Ok(())
    }

    /// Whether the options name this page's origin.
    fn lets_in(&self, origin: &HeaderValue) -> bool {
        self.pages.iter().any(|page| page == ANY || page.as_bytes() == origin.as_bytes())
    }

    /// The answer to a browser that asks what a page may send; none if it asks something else.
    pub(crate) fn preflight(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<Result<Response, ApiError>> {
        let origin = headers.get(header::ORIGIN)?;
        headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if method != Method::OPTIONS {
            return None;
        }
        if !self.lets_in(origin) {
            return Some(Err(refused_page(origin)));
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let said = response.headers_mut();
        let mut say =
            |name, value: &'static str| said.insert(name, HeaderValue::from_static(value));
        say(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        say(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if headers.contains_key(REQUEST_PRIVATE_NETWORK) {
            say(ALLOW_PRIVATE_NETWORK, "true");
        }
        // Headers do no harm here, and a list of them would leave some client out.
        if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            said.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        Some(Ok(response))
    }

    /// Tells a browser whether the page of this origin may read the response.
    pub(crate) fn tell(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        response.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.pages.is_empty() {
            return;
        }
        response.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.lets_in(origin)) {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let exposed = HeaderValue::from_static(EXPOSED);
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

impl Hosts {
    fn new(options: &ServerOptions) -> Self {
        let mut names: Vec<String> =
            options.allow_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        if !options.host.is_loopback() {
            // What others on the network call this machine.
            let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            names.extend(Some(own.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()));
        }
        Self { listening: options.host, names }
    }

    fn know(&self, host: &str) -> bool {
        if self.names.iter().any(|name| name == host) {
            return true;
        }
        match host.parse::<IpAddr>() {
            // No name leads to a page whose host is an address: it is this server's own.
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback()
                    || self.listening.is_unspecified()
                    || address == self.listening.to_canonical()
            }
            // Browsers take such names to this machine without asking anybody.
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    fn listed(&self) -> String {
        let fixed = ["localhost".to_owned(), self.listening.to_string()];
        fixed.into_iter().chain(self.names.iter().cloned()).collect::<Vec<_>>().join(" or ")
    }
}

/// The host in a `Host` header or a URI, in lower case, without its port.
fn host_of(authority: &[u8]) -> Option<String> {
    let authority = Authority::try_from(authority).ok()?;
    let host = authority.host();
    if authority.as_str().contains('@') {
        return None;
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())
}

/// The host of a web page's origin.
fn page_host(origin: &[u8]) -> Option<String> {
    let authority =
        [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme))?;
    host_of(authority)
}

/// Text of any kind and length from outside, short and printable.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(100).collect()
}

fn refused_page(origin: &HeaderValue) -> ApiError {
    let origin = shown(origin.as_bytes());
    let message = format!(
        "pages of {origin:?} may not use this server; serve with --cors-origin {origin} to let \
         them, or --allow-host NAME if the server has that name"
    );
    ApiError::new(ErrorKind::Forbidden, message).code("origin_not_allowed")
}

/// Checks an origin that is to be let in.
///
/// # Errors
/// If browsers send nothing of this form: says what they send.
pub fn check_origin(origin: &str) -> Result<(), String> {
    let expected = "expected * or an origin such as https://chat.example.com";
    if matches!(origin, ANY | "null") {
        return Ok(());
    }
    let Some((scheme, host)) = origin.split_once("://") else {
        return Err(format!("{origin:?} has no scheme, {expected}"));
    };
    let plain = host_of(host.as_bytes()).is_some_and(|host| !host.is_empty());
    if !plain || scheme.is_empty() || host.contains('/') {
        return Err(format!("{origin:?} is no scheme and host, {expected}"));
    }
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{origin:?} has capitals, which browsers do not send, {expected}"));
    }
    Ok(())
}

/// Checks a name that the server is to answer to.
///
/// # Errors
/// If it is not a host without a port: says what is.
pub fn check_host(name: &str) -> Result<(), String> {
    let is_name = host_of(name.as_bytes()).is_some_and(|host| host == name.to_ascii_lowercase());
    if name == ANY || (is_name && !name.is_empty()) || name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("{name:?} is not the name of a host, expected one such as gpu-box.lan, or *"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(host: &str, allow: &[&str], pages: &[&str], keys: &[&str]) -> Origins {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
        Origins::new(&ServerOptions {
            host: host.parse().unwrap(),
            allow_hosts: texts(allow),
            cors_origins: texts(pages),
            api_keys: texts(keys),
            ..ServerOptions::default()
        })
    }

    fn asks(origins: &Origins, host: &str, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        origins.check(&Uri::from_static("/"), &headers).is_ok()
    }

    #[test]
    fn a_server_answers_to_names_that_are_its_own() {
        let local = origins("127.0.0.1", &["Box.lan"], &[], &[]);
        for host in [
            "",
            "localhost",
            "localhost:8000",
            "LOCALHOST.",
            "api.localhost:1",
            "127.0.0.1:8000",
            "127.1.2.3",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
            "box.lan:80",
        ] {
            assert!(asks(&local, host, ""), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.7:8000",
            "evil@localhost",
            "localhost:8000:1",
            "0.0.0.0",
            "a b",
        ] {
            assert!(!asks(&local, host, ""), "{host}");
        }
        let open = origins("0.0.0.0", &[], &[], &[]);
        assert!(asks(&open, "192.168.1.7:8000", "") && !asks(&open, "evil.example", ""));
        let one = origins("192.168.1.7", &[], &[], &[]);
        assert!(asks(&one, "192.168.1.7", "") && !asks(&one, "192.168.1.8", ""));
        assert!(asks(&origins("127.0.0.1", &["*"], &[], &[]), "evil.example", ""));
        assert!(asks(
            &origins("127.0.0.1", &[], &[], &["key"]),
            "evil.example",
            "http://a.example"
        ));
        // What a proxy is asked for counts as well.
        let uri = Uri::from_static("http://evil.example/v1/models");
        assert!(local.check(&uri, &HeaderMap::new()).is_err());
    }

    #[test]
    fn pages_are_the_servers_own_or_let_in() {
        let local = origins("127.0.0.1", &["box.lan"], &["https://chat.example:4"], &[]);
        for page in [
            "http://localhost:8000",
            "http://127.0.0.1:3000",
            "https://box.lan",
            "http://[::1]:9",
            "https://chat.example:4",
        ] {
            assert!(asks(&local, "localhost", page), "{page}");
        }
        for page in [
            "http://evil.example",
            "null",
            "https://chat.example",
            "http://chat.example:4",
            "https://chat.example:4.evil.example",
            "file://",
            "chrome-extension://localhost",
        ] {
            assert!(!asks(&local, "localhost", page), "{page}");
        }
        assert!(asks(&origins("127.0.0.1", &[], &["*"], &[]), "localhost", "null"));
    }

    #[test]
    fn names_of_hosts_and_origins_are_checked() {
        for good in ["*", "null", "https://a.example", "http://[::1]:3000", "app://x"] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in ["", "a.example", "https://", "https://a.example/", "https://A.example", "://a"]
        {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
        for good in ["*", "a.example", "Gpu-Box", "10.0.0.1", "fd00::1"] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        for bad in ["", "a.example:80", "https://a.example", "a b", "a/b"] {
            assert!(check_host(bad).is_err(), "{bad}");
        }
    }
}
