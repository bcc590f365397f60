//! HTTP as an attacker speaks it: any header, any body, at any pace.
//!
//! The load client is honest: it sends whole requests with the headers that a server expects. Here a
//! request is bytes, and how they are sent and read is part of the attack.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Bytes of an answer that are kept; the rest is read and forgotten.
const MAX_KEPT: usize = 256 << 10;

/// Where attacks come from, on this machine: a server may treat clients by their address, and those
/// that behave must not be taken for these.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// A connection of an attacker.
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    if to.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let socket = TcpSocket::new_v4()?;
        // Where only one address is bound to the loopback, attacks come from it.
        if socket.bind((ATTACKER, 0).into()).is_ok() {
            return socket.connect(to).await;
        }
    }
    TcpStream::connect(to).await
}

/// A request as bytes.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    head: String,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// None if the connection ended without a status line.
    pub(super) status: Option<u16>,
    /// The body, or its beginning; chunked as it came.
    pub(super) body: String,
}

impl Wire {
    /// A POST to a path of a server, which closes the connection after its answer.
    ///
    /// `headers` are added to those that every request needs; a `Host` among them takes the place of
    /// the server's own.
    pub(super) fn post(host: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Self {
        let mut head = format!("POST {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        Self { head, body }
    }

    /// A GET of a page.
    pub(super) fn get(host: &str, path: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n");
        Self { head, body: Vec::new() }
    }

    /// Sends it as an honest client does, on a connection of its own, and reads the answer to its end.
    pub(super) async fn ask(&self, to: SocketAddr) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(self.head.as_bytes()).await?;
        stream.write_all(&self.body).await?;
        read_reply(&mut stream, None).await
    }

    /// Sends all of it and reads the answer to its end.
    pub(super) async fn exchange(&self, to: SocketAddr) -> io::Result<Reply> {
        let stream = connect(to).await?;
        let (mut read, mut write) = stream.into_split();
        let sending = async {
            write.write_all(self.head.as_bytes()).await?;
            write.write_all(&self.body).await
        };
        // A server that has heard enough answers before the end of the body and closes.
        let (_, reply) = tokio::join!(sending, read_reply(&mut read, None));
        reply
    }

    /// Sends all of it and leaves after a while, whatever came.
    pub(super) async fn leave_after(&self, to: SocketAddr, while_: Duration) -> io::Result<()> {
        let left = timeout(while_, self.exchange(to)).await;
        left.map_or(Ok(()), |reply| reply.map(drop))
    }

    /// Sends all of it and reads the answer a few bytes at a time.
    pub(super) async fn read_slowly(&self, to: SocketAddr) -> io::Result<Reply> {
        let mut stream = connect(to).await?;
        stream.write_all(self.head.as_bytes()).await?;
        stream.write_all(&self.body).await?;
        read_reply(&mut stream, Some(Duration::from_millis(500))).await
    }

    /// Sends its head at once and its body a byte at a time.
    pub(super) async fn send_slowly(&self, to: SocketAddr) -> io::Result<Reply> {
        let stream = connect(to).await?;
        let (mut read, mut write) = stream.into_split();
        let sending = async {
            write.write_all(self.head.as_bytes()).await?;
            for byte in &self.body {
                write.write_all(&[*byte]).await?;
                sleep(Duration::from_secs(1)).await;
            }
            Ok::<(), io::Error>(())
        };
        tokio::select! {
            reply = read_reply(&mut read, None) => reply,
            // Everything is sent, or the server does not listen any more.
            _ = sending => read_reply(&mut read, None).await,
        }
    }
}

/// Opens connections, sends the beginning of a request on each, and holds them until the server closes
/// them all; how many of them it had refused or closed after `patience`.
pub(super) async fn hold(
    to: SocketAddr,
    connections: usize,
    beginning: &[u8],
    patience: Duration,
) -> io::Result<usize> {
    let mut held = Vec::new();
    for _ in 0..connections {
        // What cannot be opened any more is refused, which is an answer too.
        let Ok(Ok(mut stream)) = timeout(Duration::from_secs(2), connect(to)).await else {
            continue;
        };
        if stream.write_all(beginning).await.is_ok() {
            held.push(stream);
        }
    }
    sleep(patience).await;
    let mut open = 0;
    for mut stream in held {
        let ended = timeout(Duration::from_millis(1), read_reply(&mut stream, None)).await;
        open += usize::from(ended.is_err());
    }
    Ok(connections - open)
}

/// Reads until the connection ends; `pause` goes before every few bytes.
async fn read_reply<R: AsyncRead + Unpin>(
    from: &mut R,
    pause: Option<Duration>,
) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; if pause.is_some() { 16 } else { 64 << 10 }];
    loop {
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) if bytes.len() < MAX_KEPT => bytes.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
            // A reset after an answer is how a server ends a body that it does not want.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Reply::parse(&bytes))
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).filter(|_| head.starts_with("HTTP/1."));
        Self { status: status.and_then(|status| status.parse().ok()), body: body.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let reply = Reply::parse(b"HTTP/1.1 400 Bad Request\r\nA: b\r\n\r\n{\"error\": 1}");
        assert_eq!((reply.status, reply.body.as_str()), (Some(400), "{\"error\": 1}"));
        assert_eq!(Reply::parse(b"HTTP/1.1 408 Request Timeout\r\n").status, Some(408));
        assert_eq!(Reply::parse(b""), Reply::default());
        assert_eq!(Reply::parse(b"SSH-2.0 400 x").status, None);
    }

    #[test]
    fn a_host_takes_the_place_of_the_servers_own() {
        let head = |headers: &[(&str, &str)]| Wire::post("a:1", "/p", headers, vec![7; 3]).head;
        assert!(head(&[]).contains("\r\nHost: a:1\r\n"));
        let foreign = head(&[("Host", "b")]);
        assert!(foreign.contains("\r\nHost: b\r\n") && !foreign.contains("a:1"));
        assert!(foreign.ends_with("Content-Length: 3\r\n\r\n"));
    }
}
