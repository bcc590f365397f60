//! Connections that say nothing, say it slowly, or say it wrongly, beside clients that ask; and what a
//! server that stops tells those who come. Over real sockets.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bantam_engine::HandleOptions;
use bantam_server::{AppState, Server, ServerOptions, Stop};
use common::{LONG, Toy, limits, quiet, served, settles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const ASK: &str = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A healthy client is answered in less than this, whatever others do.
const SOON: Duration = Duration::from_secs(2);

struct Running {
    address: SocketAddr,
    state: AppState,
    stop: watch::Sender<Stop>,
    served: JoinHandle<()>,
}

impl Running {
    async fn start(options: ServerOptions, toy: Toy) -> Self {
        let server =
            Server::bind(options, vec![served(toy, HandleOptions::default())]).await.unwrap();
        let (address, state) = (server.address(), server.state().clone());
        let (stop, told) = watch::channel(Stop::No);
        Self { address, state, stop, served: tokio::spawn(server.run(told)) }
    }

    async fn new(options: ServerOptions) -> Self {
        Self::start(options, Toy::new(limits())).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes on a new connection.
    async fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// What comes back for these bytes until the connection ends, and how long it took.
    async fn ask(&self, bytes: &str) -> (String, Duration) {
        let begun = Instant::now();
        let answer = rest(self.send(bytes).await).await;
        (answer, begun.elapsed())
    }

    /// Waits until so many requests are under way.
    async fn in_flight(&self, count: usize) {
        // The one that asks is one more.
        let line = format!("bantam_http_requests_in_flight {}\n", count + 1);
        let begun = Instant::now();
        while !self.ask(&ASK.replace("/v1/models", "/metrics")).await.0.contains(&line) {
            assert!(begun.elapsed() < LONG);
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn ends(self) {
        self.stop.send_replace(Stop::Drain);
        timeout(LONG, self.served).await.unwrap().unwrap();
    }
}

/// Everything that comes on a connection until it ends, however it does.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn post(path: &str, body: &str, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_waiting() {
    let server = Running::new(ServerOptions { max_connections: 64, ..quiet() }).await;
    let beginnings =
        ["", "GET /v1/models HT", "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"];
    let slow = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                application/json\r\ncontent-length: 50\r\n\r\n{";
    let idle = "GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut held = Vec::new();
    for round in 0..100 {
        for bytes in beginnings.iter().chain([&slow, &idle]) {
            held.push(server.send(bytes).await);
        }
        if round % 20 == 19 {
            let (answer, took) = server.ask(ASK).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
            assert!(took < SOON, "{took:?} beside {} connections", held.len());
        }
    }
    drop(held);
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_keeps_its_share_while_another_takes_all() {
    let server = Running::new(ServerOptions { max_connections: 32, ..quiet() }).await;
    // Linux answers at all of 127.0.0.0/8.
    let from = |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(server.address)
    };
    let mut patient = from("127.0.0.2").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(from("127.0.0.3").await.unwrap());
    }
    // It came first and has said nothing, but is the only one of its address.
    patient.write_all(ASK.as_bytes()).await.unwrap();
    let answer = rest(patient).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_answered_is_not_closed_for_others() {
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let (stepping, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let toy = Toy::failing(move |_| {
        let _ = stepping.send(());
        let _ = gate.recv();
        None
    });
    let server = Running::start(ServerOptions { max_connections: 5, ..quiet() }, toy).await;
    let body = r#"{"model": "tiny", "prompt": "a", "max_tokens": 2, "stream": true}"#;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(server.send(&post("/v1/completions", body, "connection: close\r\n")).await);
        if asked.len() == 1 {
            // The others come too late for its step, and wait.
            timeout(SOON, steps.recv()).await.unwrap();
        }
    }
    server.in_flight(4).await;
    let slow = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n";
    let half = server.send(slow).await;
    // The silent one gives way; nobody else does.
    let last = server.send(&post("/v1/completions", body, "connection: close\r\n")).await;
    assert_eq!(rest(half).await, "");
    asked.push(last);
    let engine = server.state.models[0].engine();
    while engine.num_waiting() < 4 {
        sleep(Duration::from_millis(5)).await;
    }
    // The head of a stream comes before its first event.
    let mut head = [0; 15];
    timeout(SOON, asked[0].read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let (answer, took) = server.ask(ASK).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer:?}");
    assert!(took < SOON);
    drop(open);
    for stream in asked {
        assert!(rest(stream).await.contains("data: [DONE]"));
    }
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_request_has_its_time() {
    let brief = Duration::from_millis(300);
    let options =
        ServerOptions { head_timeout: brief, body_timeout: brief, idle_timeout: brief, ..quiet() };
    let server = Running::new(options).await;
    let trickle = |first: &'static str, byte: &'static str| {
        let address = server.address;
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(first.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let writing = tokio::spawn(async move {
                while writer.write_all(byte.as_bytes()).await.is_ok() {
                    sleep(Duration::from_millis(20)).await;
                }
            });
            let mut bytes = Vec::new();
            let _ = timeout(LONG, reader.read_to_end(&mut bytes)).await.unwrap();
            writing.abort();
            (begun.elapsed(), String::from_utf8_lossy(&bytes).into_owned())
        })
    };
    let body = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                application/json\r\ncontent-length: 5000\r\n\r\n";
    let chunked = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                   application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    for (first, byte, said) in [
        ("GET /", "a", ""),
        ("GET / HTTP/1.1\r\n", "x: y\r\n", ""),
        ("", "\r\n", ""),
        ("GET /live HTTP/1.1\r\nhost: localhost\r\n\r\nG", "", "alive"),
        ("GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n", "", "alive"),
        (body, " ", "HTTP/1.1 408"),
        (chunked, "1\r\n \r\n", "HTTP/1.1 408"),
        (chunked, "1;a=b\r\n \r\n", "HTTP/1.1 408"),
    ] {
        let (took, answer) = trickle(first, byte).await.unwrap();
        assert!(took >= brief && took < brief + SOON, "{first:?}: {took:?}");
        assert!(answer.contains(said) && answer.is_empty() == said.is_empty(), "{answer:?}");
    }
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_take_no_place_among_requests() {
    let server = Running::new(ServerOptions { max_requests: 4, ..quiet() }).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let half = post("/v1/completions", &" ".repeat(50), "");
        held.push(server.send(&half[..half.len() - 20]).await);
    }
    let body = r#"{"model": "tiny", "prompt": "a", "max_tokens": 1}"#;
    let (answer, _) = server.ask(&post("/v1/completions", body, "connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    drop(held);
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_could_be_read_two_ways_are_refused() {
    let server = Running::new(quiet()).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/json\r\n";
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(100_000));
    let line = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(100_000));
    let extension = format!(
        "{head}transfer-encoding: chunked\r\n\r\n1;{}\r\n{{\r\n0\r\n\r\n",
        "e".repeat(50_000)
    );
    for bytes in [
        format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
        format!("{head}content-length: 2, 3\r\n\r\n{{}}"),
        format!("{head}content-length: -1\r\n\r\n{{}}"),
        format!("{head}content-length: 18446744073709551616\r\n\r\n{{}}"),
        format!("{head}transfer-encoding: gzip, x\r\n\r\n{{}}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}"),
        format!("{head}{many}content-length: 2\r\n\r\n{{}}"),
        format!("{head}{large}content-length: 2\r\n\r\n{{}}"),
        format!("{head}host: evil.example\r\ncontent-length: 2\r\n\r\n{{}}"),
        format!("{head}a b: c\r\ncontent-length: 2\r\n\r\n{{}}"),
        "GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            .to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01".to_owned(),
        line,
        extension,
    ] {
        let (answer, took) = server.ask(&bytes).await;
        let shown: String = bytes.chars().take(300).collect();
        assert!(!answer.starts_with("HTTP/1.1 2") && took < SOON, "{shown}: {answer:?} {took:?}");
    }
    // What a client may say before its body, and several requests in a row.
    let body = r#"{"model": "tiny", "prompt": "a", "max_tokens": 1}"#;
    let expecting = post("/v1/completions", body, "connection: close\r\nexpect: 100-continue\r\n");
    let (answer, _) = server.ask(&expecting).await;
    assert!(answer.starts_with("HTTP/1.1 100") && answer.contains("HTTP/1.1 200"), "{answer:?}");
    let refused = post("/v1/completions", body, "connection: close\r\nexpect: 100-continue\r\n")
        .replace("application/json", "text/plain");
    let (answer, _) = server.ask(&refused).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "no body is asked for in vain: {answer:?}");
    let (answer, _) = server
        .ask(&format!(
            "{}{}{ASK}",
            post("/v1/completions", body, ""),
            &ASK.replace("connection: close\r\n", "")
        ))
        .await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer:?}");
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_until_it_ends() {
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let toy = Toy::failing(move |_| {
        let _ = gate.recv();
        None
    });
    let server = Running::start(quiet(), toy).await;
    let body = r#"{"model": "tiny", "prompt": "a", "max_tokens": 3}"#;
    let running = server.send(&post("/v1/completions", body, "connection: close\r\n")).await;
    // Its first step, after which the engine says that it runs.
    open.send(()).unwrap();
    settles(&server.state, |metrics| metrics.running == 1).await;
    let mut kept = server.send("GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut some = [0; 512];
    assert!(kept.read(&mut some).await.unwrap() > 0);
    server.stop.send_replace(Stop::Drain);
    while server.state.models[0].engine().health().is_ready() {
        sleep(Duration::from_millis(2)).await;
    }
    let get = |path: &str| ASK.replace("/v1/models", path);
    for _ in 0..3 {
        for asked in [
            post("/v1/completions", body, "connection: close\r\n"),
            post("/v1/chat/completions", "{}", "connection: close\r\n"),
            post("/v2/models/tiny/generate", "{}", "connection: close\r\n"),
            get("/v1/models"),
        ] {
            let (answer, _) = server.ask(&asked).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
            assert!(answer.contains("retry-after: "), "{answer:?}");
        }
        for (path, status) in [("/health", 503), ("/ping", 503), ("/live", 200), ("/metrics", 200)]
        {
            let (answer, _) = server.ask(&get(path)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
    // A connection from before learns the same, and that it is the last it hears.
    kept.write_all(post("/v1/completions", body, "").as_bytes()).await.unwrap();
    let answer = rest(kept).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close"),
        "{answer:?}"
    );
    drop(open);
    let answer = rest(running).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"completion_tokens\":3"));
    let address = server.address;
    server.ends().await;
    assert!(TcpStream::connect(address).await.is_err());
}
