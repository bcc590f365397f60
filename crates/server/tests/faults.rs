//! Clients that vanish, steps that fail, overload, and being told to stop: over a real socket where
//! it matters.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bantam_engine::{HandleOptions, Limits};
use bantam_server::{AppState, LogFormat, LogTarget, Server, ServerOptions, Stop};
use common::{Client, Fault, LONG, Toy, limits, quiet, served, settles};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

fn body(max_tokens: usize) -> Value {
    json!({"model": "tiny", "prompt": "nobody", "max_tokens": max_tokens, "ignore_eos": true})
}

/// A model whose steps begin when they are told to; once the other end is gone, freely.
fn gated() -> (Toy, Sender<()>) {
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let toy = Toy::failing(move |_| {
        let _ = gate.recv();
        None
    });
    (toy, open)
}

/// A server on a socket.
struct Running {
    address: SocketAddr,
    state: AppState,
    stop: watch::Sender<Stop>,
    served: JoinHandle<()>,
}

impl Running {
    async fn start(options: ServerOptions, toy: Toy) -> Self {
        let models = vec![served(toy, HandleOptions::default())];
        let server = Server::bind(options, models).await.unwrap();
        let (address, state) = (server.address(), server.state().clone());
        let (stop, told) = watch::channel(Stop::No);
        Self { address, state, stop, served: tokio::spawn(server.run(told)) }
    }

    /// A connection on which a request was sent.
    async fn post(&self, body: &Value) -> TcpStream {
        self.post_to("/v1/completions", body).await
    }

    async fn post_to(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let about = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        self.send(&format!("POST {path}"), &about, &body).await
    }

    async fn get(&self, path: &str) -> TcpStream {
        self.send(&format!("GET {path}"), "", "").await
    }

    async fn send(&self, line: &str, about: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\n{about}connection: close\r\n\r\n");
        stream.write_all((head + body).as_bytes()).await.unwrap();
        stream
    }

    async fn ends(self) {
        timeout(LONG, self.served).await.unwrap().unwrap();
    }
}

/// Everything that comes on a connection until it ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_client_that_vanishes_gives_its_blocks_back() {
    let (toy, open) = gated();
    let server = Running::start(quiet(), toy).await;
    let mut body = body(400);
    for streams in [true, false] {
        body["stream"] = streams.into();
        let mut stream = server.post(&body).await;
        if streams {
            open.send(()).unwrap();
            open.send(()).unwrap();
            let mut some = [0; 16];
            stream.read_exact(&mut some).await.unwrap();
        } else {
            open.send(()).unwrap();
            settles(&server.state, |metrics| metrics.running == 1).await;
        }
        let cancelled = server.state.models[0].engine().metrics().cancelled;
        drop(stream);
        // The engine notices at its next step.
        let begun = Instant::now();
        while server.state.models[0].engine().metrics().cancelled == cancelled {
            assert!(begun.elapsed() < LONG);
            open.send(()).unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        let metrics = settles(&server.state, |metrics| metrics.running == 0).await;
        assert_eq!((metrics.blocks.referenced, metrics.failed), (0, 0));
    }
    drop(open);
    server.stop.send_replace(Stop::Drain);
    server.ends().await;
}

#[tokio::test]
async fn stop_strings_end_the_work_at_once() {
    // The whole of an answer would take seconds: the text is read before.
    let client = Client::new(Toy::failing(|_| {
        thread::sleep(Duration::from_millis(2));
        None
    }));
    let mut free = body(12);
    free["seed"] = 5.into();
    let mut stopped = free.clone();
    stopped["max_tokens"] = 2000.into();
    let free = client.ok("/v1/completions", free).await;
    let text = free["choices"][0]["text"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(2).collect();
    stopped["stop"] = json!([stop]);
    for _ in 0..3 {
        client.ok("/v1/completions", stopped.clone()).await;
    }
    let metrics = settles(&client.state, |metrics| metrics.running == 0).await;
    assert_eq!(metrics.blocks.referenced, 0);
    let ended = (metrics.finished_length, metrics.finished_stop, metrics.cancelled);
    assert_eq!(ended, (1, 3, 0));
    assert_eq!(metrics.request_seconds.count(), 4);
}

#[tokio::test]
async fn more_than_may_wait_is_refused_with_a_time() {
    let (toy, open) = gated();
    let options = HandleOptions { max_waiting: 1, ..HandleOptions::default() };
    let client = Client::with(quiet(), vec![served(toy, options)]);
    let ask = || {
        let client = client.clone();
        tokio::spawn(async move { client.post("/v1/completions", body(1)).await })
    };
    let running = ask();
    let begun = Instant::now();
    // In its first step, which waits for the gate.
    while client.state.models[0].engine().metrics().requests == 0
        && client.state.models[0].engine().num_waiting() > 0
        || begun.elapsed() < Duration::from_millis(100)
    {
        sleep(Duration::from_millis(2)).await;
    }
    let waiting = ask();
    while client.state.models[0].engine().num_waiting() == 0 {
        sleep(Duration::from_millis(2)).await;
    }
    let (status, headers, bytes) =
        client.send(common::json_request("/v1/completions", &body(1))).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer["error"]["type"], "rate_limit_error");
    drop(open);
    for asked in [running, waiting] {
        assert_eq!(asked.await.unwrap().0, StatusCode::OK);
    }
    let (_, metrics) = client.get("/metrics").await;
    assert!(metrics.contains("bantam_requests_rejected_total{model=\"tiny\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn more_than_the_server_allows_is_refused_as_well() {
    let (toy, open) = gated();
    let options = ServerOptions { max_requests: 1, ..quiet() };
    let client = Client::with(options, vec![served(toy, HandleOptions::default())]);
    let first = {
        let client = client.clone();
        tokio::spawn(async move { client.post("/v1/completions", body(1)).await })
    };
    // The first and the one that asks.
    while !client.get("/metrics").await.1.contains("bantam_http_requests_in_flight 2\n") {
        sleep(Duration::from_millis(2)).await;
    }
    let (status, answer) = client.post("/v1/completions", body(1)).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("too_many_requests"))
    );
    assert_eq!(client.get("/health").await.0, StatusCode::OK);
    drop(open);
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
    assert_eq!(client.post("/v1/completions", body(1)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_step_that_fails_fails_its_requests_only() {
    for fault in [Fault::Error, Fault::Panic, Fault::Nan] {
        // The third step: the first token is out.
        let client = Client::new(Toy::failing(move |step| (step == 3).then_some(fault)));
        let (events, done) = client.events("/v1/completions", body(20)).await;
        assert!(!done, "{fault:?}");
        let (last, before) = events.split_last().unwrap();
        assert!(!before.is_empty() && before.iter().all(|event| event["choices"].is_array()));
        assert_eq!(last["error"]["type"], "server_error", "{last}");
        let answer = client.ok("/v1/completions", body(20)).await;
        assert_eq!(answer["usage"]["completion_tokens"], 20);
        assert_eq!(client.get("/health").await.0, StatusCode::OK);
        settles(&client.state, |metrics| metrics.blocks.referenced == 0).await;
    }
    let client = Client::new(Toy::failing(|step| (step == 2).then_some(Fault::Panic)));
    let (status, answer) = client.post("/v1/completions", body(20)).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer["error"]["message"].as_str().unwrap().contains("injected"), "{answer}");
}

#[tokio::test]
async fn a_model_that_dies_is_reported_by_name() {
    let dying = served(Toy::failing(|_| Some(Fault::Panic)), HandleOptions::default());
    let engine =
        bantam_engine::EngineHandle::spawn(HandleOptions::default(), || Ok(Toy::new(limits())));
    let healthy = bantam_server::ServedModel::new("other", engine.unwrap(), common::tokenizer());
    let client = Client::with(quiet(), vec![dying, healthy]);
    for _ in 0..3 {
        assert!(client.post("/v1/completions", body(2)).await.0.is_server_error());
    }
    let begun = Instant::now();
    while client.get("/health").await.0 == StatusCode::OK {
        assert!(begun.elapsed() < LONG);
    }
    let (status, report) = client.get("/health").await;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((status, &report["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    assert_eq!(
        (&report["models"][0]["name"], &report["models"][0]["status"]),
        (&json!("tiny"), &json!("dead"))
    );
    assert_eq!(report["models"][1]["status"], "ready");
    assert_eq!(client.post("/v1/completions", body(2)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let mut other = body(2);
    other["model"] = "other".into();
    client.ok("/v1/completions", other).await;
    assert_eq!(client.get("/live").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_deadline_that_passes_is_a_timeout() {
    // The deadline is over before the first step is, however the machine is loaded.
    let client = Client::new(Toy::failing(|_| {
        thread::sleep(Duration::from_millis(20));
        None
    }));
    let mut asked = body(50);
    asked["timeout"] = json!(0.01);
    let (status, answer) = client.post("/v1/completions", asked).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{answer}");
}

#[tokio::test]
async fn draining_completes_what_there_is_and_refuses_the_rest() {
    let (toy, open) = gated();
    let server = Running::start(quiet(), toy).await;
    let mut asked = body(30);
    asked["stream"] = true.into();
    let streams: Vec<TcpStream> = vec![server.post(&asked).await, server.post(&asked).await];
    let idle = TcpStream::connect(server.address).await.unwrap();
    let begun = Instant::now();
    while server.state.models[0].engine().metrics().requests < 2
        && begun.elapsed() < Duration::from_millis(300)
    {
        sleep(Duration::from_millis(2)).await;
        open.send(()).unwrap();
    }
    server.stop.send_replace(Stop::Drain);
    while server.state.models[0].engine().health().is_ready() {
        sleep(Duration::from_millis(2)).await;
    }
    drop(open);
    for stream in streams {
        let text = rest(stream).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("data: [DONE]"), "{text}");
    }
    // A connection without a request does not keep the server.
    let address = server.address;
    server.ends().await;
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn being_told_twice_ends_at_once() {
    let toy = Toy::failing(|_| {
        thread::sleep(Duration::from_millis(5));
        None
    });
    let options = ServerOptions { grace: Duration::from_secs(3600), ..quiet() };
    let server = Running::start(options, toy).await;
    let mut asked = body(450);
    asked["stream"] = true.into();
    let stream = server.post(&asked).await;
    settles(&server.state, |metrics| metrics.running == 1).await;
    server.stop.send_replace(Stop::Drain);
    server.stop.send_replace(Stop::Now);
    let begun = Instant::now();
    server.ends().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let text = rest(stream).await;
    // The client is told that this is not all.
    assert!(!text.contains("[DONE]") && text.contains("\"error\""), "{text}");
}

#[tokio::test]
async fn a_slow_client_is_not_waited_for() {
    let options = ServerOptions { head_timeout: Duration::from_millis(50), ..quiet() };
    let server = Running::start(options, Toy::new(limits())).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /v1/comp").await.unwrap();
    rest(stream).await;
    server.stop.send_replace(Stop::Drain);
    server.ends().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off() {
    // More is said in these steps than the buffers on the way can hold; then the model waits.
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let limits = Limits { num_blocks: 8 * limits().num_blocks, ..limits() };
    let mut toy = Toy::new(limits);
    toy.before = Box::new(move |step| {
        if step == 1000 {
            let _ = gate.recv();
        }
        None
    });
    let options = ServerOptions { write_timeout: Duration::from_millis(50), ..quiet() };
    let server = Running::start(options, toy).await;
    let asked = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "nobody"}], "ignore_eos": true,
        "n": 8, "max_tokens": 1500, "logprobs": true, "top_logprobs": 20, "stream": true,
    });
    let silent = server.post_to("/v1/chat/completions", &asked).await;
    let begun = Instant::now();
    loop {
        let metrics = rest(server.get("/metrics").await).await;
        // The one that asks.
        if metrics.contains("bantam_http_requests_in_flight 1\n")
            && server.state.models[0].engine().metrics().requests == 8
        {
            break;
        }
        assert!(begun.elapsed() < LONG, "{metrics}");
        sleep(Duration::from_millis(5)).await;
    }
    drop(open);
    let metrics = settles(&server.state, |metrics| metrics.running == 0).await;
    assert_eq!((metrics.cancelled, metrics.blocks.referenced), (8, 0));
    drop(silent);
    server.stop.send_replace(Stop::Drain);
    server.ends().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_disturbs_nobody() {
    let options = ServerOptions { log_target: LogTarget::File("/dev/full".into()), ..quiet() };
    let model = served(Toy::new(limits()), HandleOptions::default());
    let client = Client::with(options, vec![model]);
    for _ in 0..5 {
        client.ok("/v1/completions", body(3)).await;
    }
    let begun = Instant::now();
    loop {
        let (_, metrics) = client.get("/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with("bantam_log_failures_total"));
        let lost: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        if lost >= 5 {
            break;
        }
        assert!(begun.elapsed() < LONG);
    }
}

#[tokio::test]
async fn each_request_is_one_line() {
    let file = std::env::temp_dir().join(format!("bantam-log-{}", std::process::id()));
    let options = ServerOptions {
        log_target: LogTarget::File(file.clone()),
        log_format: LogFormat::Json,
        ..quiet()
    };
    let model = served(Toy::new(limits()), HandleOptions::default());
    let client = Client::with(options, vec![model]);
    let mut asked = body(3);
    asked["user"] = format!("a\nb{}", " ".repeat(5000)).into();
    let mut request = common::json_request("/v1/completions", &asked);
    request.headers_mut().insert("x-request-id", "mine-7".parse().unwrap());
    let (_, headers, _) = client.send(request).await;
    assert_eq!(headers["x-request-id"], "mine-7");
    client.post("/v1/completions", json!({"model": "tiny"})).await;
    client.get("/nowhere/at/all").await;
    let begun = Instant::now();
    let lines = loop {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() == 3 {
            break lines;
        }
        assert!(begun.elapsed() < LONG, "{text}");
        sleep(Duration::from_millis(5)).await;
    };
    fs::remove_file(&file).unwrap();
    let first = &lines[0];
    let expected = json!({
        "id": "mine-7", "status": 200, "route": "/v1/completions", "model": "tiny",
        "generated_tokens": 3, "finish": "length", "user": format!("a\nb{}", " ".repeat(125)),
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(first[key], *value, "{first}");
    }
    for time in ["queue_ms", "first_token_ms", "total_ms"] {
        assert!(first[time].as_f64().unwrap() >= 0.0, "{first}");
    }
    assert_eq!((&lines[1]["status"], lines[1]["error"].is_string()), (&json!(400), true));
    assert_eq!((&lines[2]["status"], &lines[2]["route"]), (&json!(404), &json!("other")));
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let client = Client::new(Toy::new(limits()));
    client.ok("/v1/completions", body(5)).await;
    client.post("/v1/completions", json!({})).await;
    settles(&client.state, |metrics| metrics.finished_length == 1 && metrics.running == 0).await;
    let (_, page) = client.get("/metrics").await;
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(family), "{line} under {family}");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        }
    }
    for line in [
        "bantam_generated_tokens_total{model=\"tiny\"} 5",
        "bantam_requests_finished_total{model=\"tiny\",reason=\"length\"} 1",
        "bantam_cache_blocks{model=\"tiny\",state=\"referenced\"} 0",
        "bantam_model_ready{model=\"tiny\"} 1",
        "bantam_http_requests_total{route=\"/v1/completions\",status=\"200\"} 1",
        "bantam_http_requests_total{route=\"/v1/completions\",status=\"400\"} 1",
        "bantam_first_token_seconds_count{model=\"tiny\"} 1",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
    assert!(page.contains("process_resident_memory_bytes"));
}
