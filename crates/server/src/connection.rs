//! Connections: as many at once as the options allow, and none whose client has stopped reading.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Sleep};

use crate::ServerOptions;

/// The connections that may be open at once, over all ports.
#[derive(Clone)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    write_timeout: Duration,
}

impl Slots {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let free = Arc::new(Semaphore::new(options.max_connections));
        Self { free, write_timeout: options.write_timeout }
    }

    /// The next connection, once there is a slot for it.
    pub(crate) async fn accept(&self, listener: &TcpListener) -> Connection {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                // A connection that is gone already, or no file descriptors: others will end.
                Err(_) => time::sleep(Duration::from_millis(50)).await,
            }
        };
        // After accepting: a listener that only waits must not keep a slot from another.
        let slot = Arc::clone(&self.free).acquire_owned().await;
        // Tokens are worth a packet each. Without it the stream still works.
        let _ = stream.set_nodelay(true);
        Connection {
            stream,
            write_timeout: self.write_timeout,
            stalled: None,
            _slot: slot.expect("the semaphore is never closed"),
        }
    }
}

/// A connection in its slot.
///
/// A client that stops reading fills the buffers on the way, and a write waits. If it waits for longer
/// than the options allow it fails: the connection ends, and with it its requests.
pub(crate) struct Connection {
    stream: TcpStream,
    write_timeout: Duration,
    /// Set while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
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
        let limit = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(time::sleep(limit)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
    type ConnectInfo = tonic::transport::server::TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
