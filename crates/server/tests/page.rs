//! The files of the built-in page, as a browser asks for them.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bantam_engine::HandleOptions;
use bantam_server::ServerOptions;
use common::{Client, Toy, limits, quiet, served};

#[tokio::test]
async fn the_page_is_kept_by_browsers_and_asked_about() {
    let client = Client::new(Toy::new(limits()));
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (status, headers, body) = client.send(request).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
        assert!(!body.is_empty());
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"));
        assert_eq!(headers["cache-control"], "no-cache");

        let etag = &headers["etag"];
        let again = Request::get(path).header("if-none-match", etag).body(Body::empty()).unwrap();
        let (status, headers, body) = client.send(again).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(&headers["etag"], etag);
    }
    assert_eq!(client.get("/page/no-such-file.js").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_page_itself_needs_no_key() {
    let options = ServerOptions { api_keys: vec!["secret".to_owned()], ..quiet() };
    let models = vec![served(Toy::new(limits()), HandleOptions::default())];
    let client = Client::with(options, models);
    for path in ["/", "/page/app.js", "/health"] {
        assert_eq!(client.get(path).await.0, StatusCode::OK, "{path}");
    }
    for path in ["/metrics", "/v1/models"] {
        assert_eq!(client.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}

/// The dashboard reads metrics by name: each must be there, with the labels that it asks for.
#[tokio::test]
async fn the_dashboard_reads_metrics_that_exist() {
    let client = Client::new(Toy::new(limits()));
    let (_, metrics) = client.get("/metrics").await;
    let source = include_str!("../page/engine.js");
    let mut num_names = 0;
    for line in source.lines().filter(|line| line.contains("\"bantam_")) {
        let name = line.split('"').nth(1).unwrap();
        let suffix = if line.contains('[') { "" } else { "_bucket" };
        let label = line.split_once("{ ").map(|(_, label)| {
            let (key, value) = label.split_once(": ").unwrap();
            format!(",{key}=\"{}\"", value.split('"').nth(1).unwrap())
        });
        let sample = format!("{name}{suffix}{{model=\"tiny\"{}", label.unwrap_or_default());
        assert!(metrics.contains(&sample), "{sample} is not in /metrics");
        num_names += 1;
    }
    assert!(num_names > 20, "only {num_names} names found");
}
