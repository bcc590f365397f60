//! The paths that clients write for those there are.

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

use crate::ServedModel;
use crate::state::AppState;

/// Takes slashes from the end of a request's path, and all but one of several in a row: clients put a
/// base address and a path together in all ways. A model's name with a slash becomes one part of the
/// path.
pub(crate) async fn tidy(State(state): State<AppState>, mut request: Request) -> Request {
    let path = request.uri().path();
    let names = state.models.iter().map(ServedModel::name);
    if let Some(uri) = tidied(path, names).and_then(|path| with_path(request.uri(), &path)) {
        *request.uri_mut() = uri;
    }
    request
}

/// The path, if it is another one.
fn tidied<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut tidied = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        tidied.push('/');
        tidied.push_str(part);
    }
    if tidied.is_empty() {
        tidied.push('/');
    }
    if let Some(rest) = tidied.strip_prefix("/v2/models/") {
        let is_asked = |name: &str| {
            rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let name = names.filter(|name| name.contains('/')).find(|name| is_asked(name));
        if let Some(name) = name {
            tidied = format!("/v2/models/{}{}", name.replace('/', "%2F"), &rest[name.len()..]);
        }
    }
    (tidied != path).then_some(tidied)
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied() {
        let tidied = |path: &str| tidied(path, ["tiny", "org/model"].into_iter());
        for same in ["/", "/v1/models", "/v1/models/org/model", "/v2/models/tiny/infer", "/a%2Fb"] {
            assert_eq!(tidied(same), None, "{same}");
        }
        for (path, expected) in [
            ("//", "/"),
            ("/v1/models/", "/v1/models"),
            ("//v1///models//", "/v1/models"),
            ("/v2/models/org/model/infer/", "/v2/models/org%2Fmodel/infer"),
            ("/v2/models/org/model", "/v2/models/org%2Fmodel"),
        ] {
            assert_eq!(tidied(path).as_deref(), Some(expected));
        }
        assert_eq!(tidied("/v2/models/org/models"), None);
    }

    #[test]
    fn the_rest_of_an_address_stays() {
        let uri: Uri = "http://localhost:8000/v1/models/?a=b/".parse().unwrap();
        let tidied = with_path(&uri, "/v1/models").unwrap();
        assert_eq!(tidied.to_string(), "http://localhost:8000/v1/models?a=b/");
    }
}
