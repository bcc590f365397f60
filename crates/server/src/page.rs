//! The built-in page: a chat and a dashboard.
//!
//! Its files lie in the crate's folder `page` and are part of the binary. They are served as they
//! are written: no build step, nothing from elsewhere. The page uses the public API only, so it needs
//! a key where the API does.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::state::AppState;

/// A browser runs and loads what this server sends, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    body: &'static str,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(File { name: $name, body: include_str!(concat!("../page/", $name)) }),*]
    };
}

const FILES: &[File] = files![
    "index.html",
    "icon.svg",
    "style.css",
    "chat.css",
    "dashboard.css",
    "app.js",
    "answer.js",
    "api.js",
    "chart.js",
    "chat.js",
    "conversation.js",
    "dashboard.js",
    "dom.js",
    "engine.js",
    "format.js",
    "history.js",
    "markdown-view.js",
    "markdown.js",
    "message-view.js",
    "metrics.js",
    "sse.js",
    "tables.js",
];

/// The page at `/` and its files under `/page/`.
pub(crate) fn routes() -> Router<AppState> {
    FILES.iter().fold(Router::new(), |router, file| {
        router.route(
            &file.path(),
            get(move |headers: HeaderMap| async move { file.respond(&headers) }),
        )
    })
}

impl File {
    fn path(&self) -> String {
        match self.name {
            "index.html" => "/".to_owned(),
            name => format!("/page/{name}"),
        }
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// Names the content: another release has another name where the file differs.
    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.body.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    /// The file, or that the browser's copy is still right.
    fn respond(&self, request: &HeaderMap) -> Response {
        let etag = self.etag();
        let fresh = is_known(request, &etag);
        let headers = [
            (header::CONTENT_TYPE, self.content_type()),
            (header::ETAG, etag.as_str()),
            // Copies may be kept, but are asked about: a new release shows at once.
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        if fresh {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, self.body).into_response()
        }
    }
}

/// Whether the browser has the content of this name already.
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let names = request.get_all(header::IF_NONE_MATCH).into_iter();
    names.filter_map(|value| value.to_str().ok()).flat_map(|names| names.split(',')).any(|name| {
        let name = name.trim();
        name == "*" || name.strip_prefix("W/").unwrap_or(name) == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file asks the server for by `src`, `href` or `import`.
    fn needs(file: &File) -> Vec<String> {
        let folder = if file.name == "index.html" { "/" } else { "/page/" };
        let quoted = |mark| file.body.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
        let pages = quoted("src=\"").chain(quoted("href=\"")).filter(|to| !to.starts_with('#'));
        let modules = quoted(" from \"").map(|module| module.trim_start_matches("./"));
        match file.content_type() {
            "text/html; charset=utf-8" => pages.map(|to| format!("{folder}{to}")).collect(),
            "text/javascript; charset=utf-8" => modules.map(|to| format!("{folder}{to}")).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn what_the_page_needs_is_served_and_what_is_served_is_needed() {
        let mut served: Vec<String> = FILES.iter().map(File::path).collect();
        let mut needed: Vec<String> =
            FILES.iter().flat_map(needs).chain(["/".to_owned()]).collect();
        needed.sort();
        needed.dedup();
        served.sort();
        assert_eq!(served, needed);
    }

    #[test]
    fn files_are_short_and_ask_no_other_host() {
        for File { name, body } in FILES {
            let lines = body.lines().count();
            assert!(lines < 300, "{name} has {lines} lines");
            let hosts = body.replace("http://www.w3.org/", "");
            assert!(!hosts.contains("http:") && !hosts.contains("https:"), "{name}");
            assert!(!body.contains("innerHTML") && !body.contains("style=\""), "{name}");
        }
    }

    #[test]
    fn a_copy_is_known_by_its_name() {
        let known = |value: &'static str| {
            is_known(
                &HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]),
                "\"a\"",
            )
        };
        assert!(known("\"a\"") && known("W/\"a\"") && known("\"b\", \"a\"") && known("*"));
        assert!(!known("\"b\"") && !known("a") && !known(""));
        assert!(!is_known(&HeaderMap::new(), "\"a\""));
    }
}
