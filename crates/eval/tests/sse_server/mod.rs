//! A server of OpenAI's API whose answers and timings a test decides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What the test's server does with a request: its path and body in, the reply out.
pub(crate) type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    #[allow(dead_code)] // not every test file needs it
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    #[allow(dead_code)] // not every test file needs it
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// A reply: an answer at once, or a stream of pauses and events.
pub(crate) enum Reply {
    Whole {
        status: u16,
        headers: &'static str,
        body: Value,
    },
    Stream(Vec<(Duration, String)>),
    /// A stream whose connection is cut after the last event.
    #[allow(dead_code)] // not every test file needs it
    Cut(Vec<(Duration, String)>),
}

/// A running server; it lives as long as the test's process.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) seen: Arc<Seen>,
}

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    /// Streams that ended because the client was gone.
    pub(crate) vanished: AtomicUsize,
    pub(crate) asked: Mutex<Vec<Asked>>,
}

/// Starts a server on a port of its own. `/v1/models` lists `models`; all else goes to `handler`.
pub(crate) fn start(
    models: &[&str],
    handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Server {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Seen::default());
    let list: Vec<Value> = models.iter().map(|id| json!({ "id": id })).collect();
    let handler: Arc<Handler> = Arc::new(move |asked: &Asked| match asked.path.as_str() {
        "/v1/models" => Reply::Whole { status: 200, headers: "", body: json!({ "data": list }) },
        _ => handler(asked),
    });
    let of_threads = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (handler, seen) = (Arc::clone(&handler), Arc::clone(&of_threads));
            seen.connections.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                // An error is a client that has gone away.
                let _ = serve(&stream.unwrap(), &*handler, &seen);
            });
        }
    });
    Server { url, seen }
}

/// Answers requests of one connection until it closes.
fn serve(stream: &TcpStream, handler: &Handler, seen: &Seen) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read_request(&mut reader)? {
        seen.asked.lock().unwrap().push(asked.clone());
        match handler(&asked) {
            Reply::Whole { status, headers, body } => {
                let body = body.to_string();
                let length = body.len();
                let mut writer = stream;
                write!(
                    writer,
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
                )?;
            }
            Reply::Stream(events) => {
                let sent = send_events(stream, &events);
                if sent.is_err() {
                    seen.vanished.fetch_add(1, Ordering::SeqCst);
                }
                sent?;
                (&*stream).write_all(b"0\r\n\r\n")?;
            }
            Reply::Cut(events) => {
                send_events(stream, &events)?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }
    Ok(())
}

fn send_events(mut stream: &TcpStream, events: &[(Duration, String)]) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )?;
    for (pause, data) in events {
        std::thread::sleep(*pause);
        let event = format!("data: {data}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap().to_owned();
    Ok(Some(Asked { path, head, body: String::from_utf8(body).unwrap() }))
}

/// The events of a chat's answer: its role at once, a piece of text after `first` and after each
/// `gap`, the end, the usage, `[DONE]`.
pub(crate) fn chat(first: Duration, gap: Duration, pieces: usize, tokens: usize) -> Reply {
    let now = Duration::ZERO;
    let chunk = |delta: Value, finish: Value| {
        json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }], "usage": null })
            .to_string()
    };
    let mut events = vec![(now, chunk(json!({ "role": "assistant", "content": "" }), Value::Null))];
    for piece in 0..pieces {
        let pause = if piece == 0 { first } else { gap };
        events.push((pause, chunk(json!({ "content": "x" }), Value::Null)));
    }
    events.push((now, chunk(json!({}), json!("stop"))));
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens,
        "prompt_tokens_details": { "cached_tokens": 3 } });
    events.push((now, json!({ "choices": [], "usage": usage }).to_string()));
    events.push((now, "[DONE]".to_owned()));
    Reply::Stream(events)
}
