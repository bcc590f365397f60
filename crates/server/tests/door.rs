//! Who may ask, in what form, and by which spelling of a path: over every route there is.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bantam_engine::{EngineHandle, HandleOptions};
use bantam_server::{ServedModel, ServerOptions};
use common::{Client, Toy, json_request, limits, quiet, served, tokenizer};
use serde_json::{Value, json};

fn client(options: ServerOptions) -> Client {
    Client::with(options, vec![served(Toy::new(limits()), HandleOptions::default())])
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    let builder =
        headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Body::from(body.to_owned())).unwrap()
}

/// Every path of the description with its methods, in capitals; names of models filled in.
async fn operations(client: &Client) -> Vec<(String, String)> {
    let (_, text) = client.get("/openapi.json").await;
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let path =
            path.replace("{id}", "tiny").replace("{model}", "tiny").replace("{version}", "1");
        for method in item.as_object().unwrap().keys() {
            all.push((method.to_uppercase(), path.clone()));
        }
    }
    all
}

#[tokio::test]
async fn bodies_that_any_page_can_send_are_refused_on_every_route() {
    let client = client(quiet());
    let kinds: [&[(&str, &str)]; 6] = [
        &[],
        &[("content-type", "text/plain")],
        &[("content-type", "text/plain;charset=UTF-8")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ];
    let body = json!({"model": "tiny", "prompt": "a", "text_input": "a", "max_tokens": 1,
        "messages": [{"role": "user", "content": "a"}], "tokens": [5]});
    let mut tried = 0;
    for (method, path) in operations(&client).await {
        if method != "POST" {
            continue;
        }
        for headers in kinds {
            let (status, answer, _) =
                client.send(request("POST", &path, headers, &body.to_string())).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {headers:?}");
            assert_eq!(answer["accept-encoding"], "identity");
            tried += 1;
        }
        // The same in a kind that pages must ask for is read.
        let json = [("content-type", "application/json")];
        let (status, ..) = client.send(request("POST", &path, &json, "{")).await;
        assert_ne!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
    }
    assert!(tried >= 6 * 8, "only {tried} cases");
    assert_eq!(client.state.models[0].engine().metrics().requests, 0);
}

#[tokio::test]
async fn foreign_hosts_and_pages_are_refused_everywhere_without_keys() {
    let client = client(quiet());
    let foreign =
        [("host", "evil.example:8000"), ("origin", "http://evil.example"), ("origin", "null")];
    for (method, path) in operations(&client).await {
        for header in foreign {
            let headers = [("content-type", "application/json"), header];
            let (status, headers, body) =
                client.send(request(&method, &path, &headers, "{}")).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} {header:?}");
            assert!(!headers.contains_key("access-control-allow-origin"));
            assert!(String::from_utf8_lossy(&body).contains("--"), "no option is named");
        }
        let ours = [("host", "localhost:8000"), ("origin", "http://localhost:8000")];
        let (status, headers, _) = client.send(request(&method, &path, &ours, "")).await;
        assert_ne!(status, StatusCode::FORBIDDEN, "{method} {path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    // A key is what no page knows.
    let keyed = self::client(ServerOptions { api_keys: vec!["secret".to_owned()], ..quiet() });
    for header in foreign {
        let (status, ..) = keyed.send(request("GET", "/v1/models", &[header], "")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let headers = [header, ("authorization", "Bearer secret")];
        let (status, ..) = keyed.send(request("GET", "/v1/models", &headers, "")).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn pages_that_were_let_in_are_told_so() {
    let page = "https://chat.example";
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-stainless-os"),
        ];
        request("OPTIONS", "/v1/chat/completions", &headers, "")
    };
    let allowed = |headers: &HeaderMap| {
        headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 1}).to_string();
    for (origins, keys) in [(page, ""), ("*", ""), (page, "secret"), ("*", "secret")] {
        let client = client(ServerOptions {
            cors_origins: vec![origins.to_owned()],
            api_keys: Some(keys.to_owned()).filter(|key| !key.is_empty()).into_iter().collect(),
            ..quiet()
        });
        let (status, headers, _) = client.send(preflight(page)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(allowed(&headers).as_deref(), Some(page));
        assert_eq!(
            headers["access-control-allow-headers"],
            "authorization,content-type,x-stainless-os"
        );
        assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
        assert!(headers.contains_key("access-control-max-age"));
        assert_eq!(headers["vary"], "origin");
        let (status, headers, _) = client.send(preflight("https://other.example")).await;
        let any = origins == "*";
        assert_eq!(status == StatusCode::NO_CONTENT, any);
        assert_eq!(allowed(&headers).is_some(), any);

        let bearer = format!("Bearer {keys}");
        let headers =
            [("origin", page), ("content-type", "application/json"), ("authorization", &bearer)];
        let (status, headers, _) =
            client.send(request("POST", "/v1/completions", &headers, &body)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(allowed(&headers).as_deref(), Some(page));
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
        // A page may read why it is refused.
        let (status, headers, _) =
            client.send(request("GET", "/no", &[("origin", page)], "")).await;
        assert!(status.is_client_error());
        assert_eq!(allowed(&headers).as_deref(), Some(page));
    }
    // Nobody is let in if the options name nobody.
    let (status, headers, body) = client(quiet()).send(preflight(page)).await;
    assert_eq!((status, allowed(&headers)), (StatusCode::FORBIDDEN, None));
    assert!(String::from_utf8_lossy(&body).contains("--cors-origin https://chat.example"));
    let (status, headers, _) =
        client(quiet()).send(request("OPTIONS", "/v1/models", &[], "")).await;
    assert_eq!((status, headers["allow"].to_str().unwrap()), (StatusCode::NO_CONTENT, "GET,HEAD"));
}

#[tokio::test]
async fn every_path_may_end_with_a_slash() {
    let client = client(quiet());
    for (method, path) in operations(&client).await {
        let ask = |path: &str| match &method[..] {
            "POST" => request("POST", path, &[("content-type", "application/json")], "{"),
            method => request(method, path, &[], ""),
        };
        let is_route = |body: &[u8]| {
            let body = String::from_utf8_lossy(body);
            !body.contains("there is nothing at")
        };
        let (expected, _, body) = client.send(ask(&path)).await;
        assert!(is_route(&body), "{method} {path}");
        for spelling in [format!("{path}/"), format!("/{path}"), path.replace('/', "//")] {
            let (status, _, body) = client.send(ask(&spelling)).await;
            assert_eq!((status, is_route(&body)), (expected, true), "{method} {spelling}");
        }
    }
}

#[tokio::test]
async fn what_can_be_got_can_be_asked_about() {
    let client = client(quiet());
    for (method, path) in operations(&client).await {
        let asked = client.send(request("HEAD", &path, &[], "")).await;
        if method == "GET" {
            let (status, headers, _) = client.send(request("GET", &path, &[], "")).await;
            assert_eq!((asked.0, asked.2.len()), (status, 0), "{path}");
            assert_eq!(asked.1.get("content-type"), headers.get("content-type"), "{path}");
        }
        // Whatever a path does not answer to, it says what it does.
        let (status, headers, _) = client.send(request("PATCH", &path, &[], "")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(headers["allow"].to_str().unwrap().contains(&method), "{path}: {headers:?}");
    }
}

#[tokio::test]
async fn names_of_models_may_have_slashes() {
    let engine = EngineHandle::spawn(HandleOptions::default(), || Ok(Toy::new(limits()))).unwrap();
    let model = ServedModel::new("org/model", engine, tokenizer());
    let client = Client::with(quiet(), vec![model]);
    for path in ["/v1/models/org/model", "/v1/models/org%2Fmodel", "/v1/models/org/model/"] {
        let (status, text) = client.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["id"], "org/model");
    }
    for path in
        ["/v2/models/org/model", "/v2/models/org%2Fmodel/ready", "/v2/models/org/model/ready"]
    {
        assert_eq!(client.get(path).await.0, StatusCode::OK, "{path}");
    }
    let body = json!({"text_input": "a", "max_tokens": 1});
    let (status, _) = client.post("/v2/models/org/model/generate", body).await;
    assert_eq!(status, StatusCode::OK);
    for path in ["/v1/models/org", "/v1/models/org/other", "/v2/models/org/other"] {
        assert_eq!(client.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    // However many paths are tried, the metrics have a line for each route.
    for n in 0..50 {
        client.get(&format!("/v1/models/a{n}/b")).await;
        client.get(&format!("/nowhere/{n}?x={n}")).await;
        client.send(request(&format!("M{n}"), "/v1/models", &[], "")).await;
    }
    let (_, metrics) = client.get("/metrics").await;
    let lines = metrics.lines().filter(|line| line.starts_with("bantam_http_requests_total{"));
    assert!(lines.count() < 20, "{metrics}");
}

#[tokio::test]
async fn probes_are_answered_under_the_names_they_use() {
    let client = client(ServerOptions { api_keys: vec!["secret".to_owned()], ..quiet() });
    for (method, path) in
        [("GET", "/ping"), ("POST", "/ping"), ("GET", "/health"), ("GET", "/live")]
    {
        assert_eq!(client.send(request(method, path, &[], "")).await.0, StatusCode::OK, "{path}");
    }
    let key = [("x-api-key", "secret")];
    let (status, _, body) = client.send(request("GET", "/version", &key, "")).await;
    assert_eq!(status, StatusCode::OK);
    let version: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn what_clients_write_is_shown_short() {
    let client = client(quiet());
    let long = "x".repeat(60_000);
    let (status, text) = client.get(&format!("/{long}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.len() < 3000, "{} bytes", text.len());
    for body in [
        json!({"model": long, "prompt": "a"}),
        json!({"model": "tiny", "prompt": "a", "temperature": long}),
        json!({"model": "tiny", "prompt": "a", long.clone(): 1}),
    ] {
        let (_, headers, bytes) = client.send(json_request("/v1/completions", &body)).await;
        assert!(bytes.len() < 5000, "{} bytes", bytes.len());
        assert!(headers["x-request-id"].len() < 200);
    }
    let ids = ["a b", "\u{e9}", "", &"y".repeat(129), "x\ty"];
    for id in ids {
        let asked = request("GET", "/live", &[("x-request-id", id)], "");
        let (_, headers, _) = client.send(asked).await;
        assert_ne!(headers["x-request-id"].as_bytes(), id.as_bytes());
    }
}
