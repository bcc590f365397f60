//! Connections: no more than there are slots, and none that is waited for in vain.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{self, Sleep};

use crate::ServerOptions;
use crate::activity::{Activity, Phase, Protocol, Registry, Slot};

/// What a client is told for which there is no slot, because every connection is being answered.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
                      content-type: application/json\r\n\r\n\
                      {\"error\":{\"message\":\"all connections are in use; retry in 1 s\",\
                      \"type\":\"server_error\",\"param\":null,\"code\":null}}";

/// How long connections are waited for.
#[derive(Clone, Copy)]
struct Patience {
    head: Duration,
    idle: Duration,
    write: Duration,
}

/// The connections that may be open at once, over all ports.
#[derive(Clone)]
pub(crate) struct Slots {
    registry: Arc<Registry>,
    patience: Patience,
}

impl Slots {
    pub(crate) fn new(registry: Arc<Registry>, options: &ServerOptions) -> Self {
        let patience = Patience {
            head: options.head_timeout,
            idle: options.idle_timeout,
            write: options.write_timeout,
        };
        Self { registry, patience }
    }

    /// The next connection. Clients that wait to be accepted never wait for those that say nothing.
    pub(crate) async fn accept(&self, listener: &TcpListener, protocol: Protocol) -> Connection {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_gone(&error) => continue,
                // No file descriptors: a connection that is closed gives one back shortly.
                Err(_) => {
                    let closed = self.registry.close_one();
                    time::sleep(Duration::from_millis(if closed { 1 } else { 50 })).await;
                    continue;
                }
            };
            // Tokens are worth a packet each. Without it the stream still works.
            let _ = stream.set_nodelay(true);
            match self.registry.enter(peer.ip(), protocol) {
                Some(slot) => return Connection::new(stream, slot, self.patience),
                // The socket's buffer is empty: all of it fits, or the client is gone.
                None => drop(stream.try_write(FULL).ok()),
            }
        }
    }
}

/// Whether a client left before it was accepted.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// A connection in its slot.
///
/// A client that stops reading fills the buffers on the way, and a write waits. If it waits for longer
/// than the options allow it fails: the connection ends, and with it its requests. Reading fails where
/// the head of a request takes too long, and when the slot is given to another.
pub(crate) struct Connection {
    stream: TcpStream,
    slot: Slot,
    patience: Patience,
    /// Set while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set while a request is waited for, with its end.
    silent: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Its slot was given to another.
    closed: bool,
}

impl Connection {
    fn new(stream: TcpStream, slot: Slot, patience: Patience) -> Self {
        Self { stream, slot, patience, stalled: None, silent: None, closed: false }
    }

    /// What it does.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.slot.activity
    }

    /// What became of a write, if it has not waited for too long.
    fn unless_stalled(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.patience.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(time::sleep(limit)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Fails once nothing has come for too long.
    fn while_silent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = match self.slot.activity.phase() {
            (Phase::Opening, since) => since + self.patience.head,
            (Phase::Idle, since) => since + self.patience.idle,
            (Phase::Sending | Phase::Answering, _) => {
                self.silent = None;
                return Poll::Pending;
            }
        };
        let (known, sleep) =
            self.silent.get_or_insert_with(|| (end, Box::pin(time::sleep_until(end.into()))));
        if *known != end {
            *known = end;
            sleep.as_mut().reset(end.into());
        }
        sleep.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.closed = self.closed || Pin::new(&mut self.slot.closing).poll(context).is_ready();
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            return self.while_silent(context);
        }
        if buffer.filled().len() > before {
            self.slot.activity.heard();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_stalled(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // Nothing is buffered here, so this never waits.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(feature = "grpc")]
impl tonic::transport::server::Connected for Connection {
    /// Calls find what their connection does among their extensions.
    type ConnectInfo = Arc<Activity>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(self.activity())
    }
}
