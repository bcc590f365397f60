//! An HTTP/1.1 client for servers that stream, with connections that stay open.
//!
//! General enough to misbehave on purpose: a body may be anything, and a stream that is dropped
//! before its end closes its connection at once, as a client that vanishes does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER,
};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::sse::Parser;
use super::{Failure, LoadError};

/// Time that a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that is read as a whole.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Characters of a server's words that an error quotes.
const MAX_QUOTE: usize = 300;

/// A client of one server; clones share its connections.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use bantam_eval::load::Client;
/// let client = Client::new("http://127.0.0.1:8000")?;
/// let body = r#"{"model": "smollm2", "prompt": "Hello", "stream": true}"#;
/// let mut events = client.post_stream("/v1/completions", body).await?;
/// while let Some(event) = events.next().await {
///     println!("{}", event?.data);
/// } // dropping `events` earlier closes the connection
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: String,
    port: u16,
    /// What stands before each path, without a slash at its end.
    prefix: String,
    headers: HeaderMap,
    /// Open connections that nobody uses.
    idle: Mutex<Vec<Connection>>,
}

/// A connection, and the task that drives it; dropping it closes the socket.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// A client of the server at `url`, such as `http://127.0.0.1:8000`; nothing is sent yet. An
    /// ending `/v1` is taken off, since every path says it.
    ///
    /// # Errors
    /// If the address is not `http://HOST[:PORT][/PREFIX]`.
    pub fn new(url: &str) -> Result<Self, LoadError> {
        let wrong = |problem| LoadError::Url { url: url.to_owned(), problem };
        let uri: Uri = url.trim().parse().map_err(|_| wrong("it is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("TLS is not supported")),
            _ => return Err(wrong("it does not begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("its host"))?;
        let path = uri.path().trim_end_matches('/');
        let headers = HeaderMap::from_iter([
            (HOST, host),
            (ACCEPT, HeaderValue::from_static("*/*")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let shared = Shared {
            // Brackets of an IPv6 address belong to the URL.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            prefix: path.strip_suffix("/v1").unwrap_or(path).to_owned(),
            headers,
            idle: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same server with an API key, sent as a bearer token; connections are not shared.
    ///
    /// # Errors
    /// If a header cannot carry the key.
    pub fn with_key(&self, key: &str) -> Result<Self, LoadError> {
        let bearer = format!("Bearer {key}");
        let mut value = HeaderValue::from_str(&bearer).map_err(|_| LoadError::Key)?;
        value.set_sensitive(true);
        let mut headers = self.shared.headers.clone();
        headers.insert(AUTHORIZATION, value);
        let Shared { host, port, prefix, .. } = &*self.shared;
        let (host, prefix) = (host.clone(), prefix.clone());
        let shared = Shared { host, port: *port, prefix, headers, idle: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Host and port of the server.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.shared.host, self.shared.port)
    }

    /// The server as a `Host` header names it.
    pub(super) fn authority(&self) -> String {
        let host = self.shared.headers.get(HOST).and_then(|host| host.to_str().ok());
        host.unwrap_or_default().to_owned()
    }

    /// What `Authorization` says, if there is a key.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.shared.headers.get(AUTHORIZATION)?.to_str().ok()
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// If there is no answer; one of any status is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends a body, well-formed or not.
    ///
    /// # Errors
    /// If there is no answer; one of any status is an answer.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer, Failure> {
        self.send(Method::POST, path, body.into()).await
    }

    /// Sends a body and reads the answer as events.
    ///
    /// # Errors
    /// If there is no answer, or its status is not 200.
    pub async fn post_stream(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<EventStream, Failure> {
        Ok(self.post(path, body).await?.success().await?.into_events())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let request = || {
            let uri = format!("{}{path}", self.shared.prefix);
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri
                .parse()
                .map_err(|_| Failure::Protocol { problem: format!("{path:?} is not a path") })?;
            *request.headers_mut() = self.shared.headers.clone();
            Ok(request)
        };
        loop {
            let (mut connection, used) = match self.idle_connection().await {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match connection.sender.send_request(request()?).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let body = Body { body, connection, shared: Arc::clone(&self.shared) };
                    return Ok(Answer { status: head.status, headers: head.headers, body });
                }
                // Closed by the server before anything was sent on it: not the request's fault.
                Err(error) if used && error.is_canceled() => {}
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// A connection that was used before and is still open.
    async fn idle_connection(&self) -> Option<Connection> {
        loop {
            let mut connection = lock(&self.shared.idle).pop()?;
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let Shared { host, port, .. } = &*self.shared;
        let failed =
            |problem: String| Failure::Connect { address: format!("{host}:{port}"), problem };
        let connecting = TcpStream::connect((host.as_str(), *port));
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(stream) => stream.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed("no reply".to_owned())),
        };
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Its error reaches the request that is under way.
        let driver = tokio::spawn(async { drop(driver.await) });
        Ok(Connection { sender, driver })
    }
}

/// What a server answered; its body is still to be read.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

impl Answer {
    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body.
    ///
    /// # Errors
    /// If the connection breaks, or the body is longer than 16 MiB.
    pub async fn bytes(mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(part) = self.body.next().await? {
            bytes.extend_from_slice(&part);
            if bytes.len() > MAX_ANSWER_BYTES {
                let problem = format!("it is longer than {} MiB", MAX_ANSWER_BYTES >> 20);
                return Err(Failure::Protocol { problem });
            }
        }
        self.body.release();
        Ok(bytes)
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// If the connection breaks or the body is something else.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        serde_json::from_slice(&self.bytes().await?)
            .map_err(|error| Failure::Protocol { problem: error.to_string() })
    }

    /// The answer itself if its status is 200.
    ///
    /// # Errors
    /// Any other status, with the server's words.
    pub async fn success(self) -> Result<Self, Failure> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        let status = self.status();
        let seconds = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let seconds: Option<f64> = seconds.and_then(|value| value.trim().parse().ok());
        let retry_after = seconds.and_then(|value| Duration::try_from_secs_f64(value).ok());
        let body = self.bytes().await?;
        let message = error_message(&String::from_utf8_lossy(&body));
        Err(Failure::Status { status, message, retry_after })
    }

    /// The body as server-sent events.
    #[must_use]
    pub fn into_events(self) -> EventStream {
        EventStream { body: Some(self.body), parser: Parser::default(), arrived: Instant::now() }
    }
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its data.
    pub data: String,
    /// When its last byte came.
    pub arrived: Instant,
}

/// Events of a stream. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    /// `None` after the end.
    body: Option<Body>,
    parser: Parser,
    arrived: Instant,
}

impl EventStream {
    /// Waits for the next event; `None` is the end of the stream.
    pub async fn next(&mut self) -> Option<Result<Event, Failure>> {
        loop {
            if let Some(data) = self.parser.pop() {
                return Some(Ok(Event { data, arrived: self.arrived }));
            }
            let read = match self.body.as_mut()?.next().await {
                Ok(Some(bytes)) => {
                    self.arrived = Instant::now();
                    self.parser.push(&bytes)
                }
                Ok(None) => {
                    self.body.take()?.release();
                    Ok(())
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = read {
                self.body = None;
                return Some(Err(failure));
            }
        }
    }
}

/// A body being read, with its connection.
#[derive(Debug)]
struct Body {
    body: Incoming,
    connection: Connection,
    shared: Arc<Shared>,
}

impl Body {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(broken(&error)),
            }
        }
    }

    /// Leaves the connection to the next request; only at the end of the body.
    fn release(self) {
        if !self.connection.sender.is_closed() {
            lock(&self.shared.idle).push(self.connection);
        }
    }
}

/// The lock guards a list that is whole at all times, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of HTTP with its cause, which says more.
fn broken(error: &hyper::Error) -> Failure {
    use std::error::Error as _;
    let problem = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Failure::Broken { problem }
}

/// The message of an error in OpenAI's form, or in others', or the text itself; shortened.
pub(super) fn error_message(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let error = &value["error"];
    let found = [&error["message"], error, &value["message"], &value["detail"]];
    let message = found.into_iter().find_map(|value| value.as_str()).unwrap_or(text).trim();
    match message.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None if message.is_empty() => "no explanation".to_owned(),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        let parts = |url: &str| {
            let client = Client::new(url).unwrap();
            let Shared { host, port, prefix, .. } = &*client.shared;
            (host.clone(), *port, prefix.clone())
        };
        assert_eq!(parts("http://localhost:8000"), ("localhost".into(), 8000, String::new()));
        assert_eq!(parts("http://localhost:8000/v1/"), ("localhost".into(), 8000, String::new()));
        assert_eq!(parts("http://[::1]/llm/v1"), ("::1".into(), 80, "/llm".into()));
        for wrong in ["localhost:8000", "https://x", "", "http://", "ftp://x", "http://a b"] {
            let error = Client::new(wrong).unwrap_err().to_string();
            assert!(error.ends_with("expected http://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn the_words_of_an_error_are_found() {
        assert_eq!(error_message(r#"{"error": {"message": "too long"}}"#), "too long");
        assert_eq!(error_message(r#"{"error": "too long"}"#), "too long");
        assert_eq!(error_message(r#"{"detail": "Not Found"}"#), "Not Found");
        assert_eq!(error_message("plain"), "plain");
        assert_eq!(error_message(""), "no explanation");
        assert_eq!(error_message(&"词".repeat(400)).chars().count(), 301);
    }
}
