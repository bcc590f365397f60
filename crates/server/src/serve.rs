//! Listening, and stopping.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

use crate::activity::Protocol;
use crate::connection::{Connection, Slots};
#[cfg(feature = "grpc")]
use crate::grpc;
use crate::state::{AppState, ServerState};
use crate::{ServedModel, ServerOptions, router};

/// Time for connections to send the failures of the last answers, and for the log.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes of a request's head at most, and of what is read or written at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing to serve.
    #[error("there is no model to serve; name one or more")]
    NoModel,
    /// Two models could not be told apart.
    #[error("two models are called {name}; give one of them another name")]
    SameName {
        /// The name.
        name: String,
    },
    /// The log cannot be opened.
    #[error("the log cannot be opened: {0}; choose another file, or none")]
    Log(io::Error),
    /// The address is taken, or not ours.
    #[error("cannot listen at {address}: {source}; choose another {option} or --host")]
    Bind {
        /// The option that chose the port.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// No threads, or no signals.
    #[error("the server's threads cannot be started: {0}")]
    Runtime(io::Error),
}

/// How a running server is told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not yet.
    #[default]
    No,
    /// Refuse what is new with status 503, complete the answers under way within the grace time, then
    /// end.
    Drain,
    /// End now.
    Now,
}

/// Serves models until a signal says to stop; `listening` is called once with the address.
///
/// The first SIGTERM or SIGINT drains ([`Stop::Drain`]), a second ends at once.
///
/// # Errors
/// If the options cannot be met, or the address not be listened at.
pub fn serve(
    options: ServerOptions,
    models: Vec<ServedModel>,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("bantam-http")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let served = runtime.block_on(async {
        let server = Server::bind(options, models).await?;
        listening(server.address());
        let stop = stop_signals().map_err(ServeError::Runtime)?;
        server.run(stop).await;
        Ok(())
    });
    // Work that nobody waits for any more must not delay the end.
    runtime.shutdown_background();
    served
}

/// Counts signals on behalf of a server.
fn stop_signals() -> io::Result<watch::Receiver<Stop>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(Stop::No);
    tokio::spawn(async move {
        for stop in [Stop::Drain, Stop::Now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(stop);
        }
        // A closed channel would look like a command.
        sender.closed().await;
    });
    Ok(receiver)
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    #[cfg(feature = "grpc")]
    grpc: Option<(TcpListener, SocketAddr)>,
    state: AppState,
}

impl Server {
    /// Listens; connections are answered from [`run`](Self::run) on.
    ///
    /// # Errors
    /// As [`serve`].
    pub async fn bind(
        options: ServerOptions,
        models: Vec<ServedModel>,
    ) -> Result<Self, ServeError> {
        let host = options.host;
        let state = ServerState::new(options, models)?;
        let address = SocketAddr::new(host, state.options.port);
        let (listener, address) = listen(address, "--port").await?;
        #[cfg(feature = "grpc")]
        let grpc = match state.options.grpc_port {
            Some(port) => Some(listen(SocketAddr::new(host, port), "--grpc-port").await?),
            None => None,
        };
        Ok(Self {
            listener,
            address,
            #[cfg(feature = "grpc")]
            grpc,
            state,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for gRPC, if it does.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|(_, address)| *address)
    }

    /// What its requests share.
    #[must_use]
    pub const fn state(&self) -> &AppState {
        &self.state
    }

    /// Serves until told to stop.
    pub async fn run(self, mut stop: watch::Receiver<Stop>) {
        #[cfg(feature = "grpc")]
        let grpc = self.grpc;
        let Self { listener, state, .. } = self;
        let router = router(Arc::clone(&state));
        let slots = Slots::new(Arc::clone(&state.connections), &state.options);
        // Tells connections to end after the response under way.
        let (closing, _) = watch::channel(false);
        let mut connections = JoinSet::new();
        #[cfg(feature = "grpc")]
        if let Some((listener, _)) = grpc {
            let end = ended(closing.subscribe());
            connections.spawn(grpc::serve(listener, slots.clone(), Arc::clone(&state), end));
        }
        let accepting = async {
            loop {
                let connection = slots.accept(&listener, Protocol::Http1).await;
                connections.spawn(answer(connection, router.clone(), ended(closing.subscribe())));
                while connections.try_join_next().is_some() {}
            }
        };
        let grace = state.options.grace;
        let mut now = stop.clone();
        let draining = async {
            told(&mut stop, Stop::Drain).await;
            state.drain();
            let end = Instant::now() + grace;
            let _ = time::timeout(grace, state.all_answered()).await;
            end
        };
        // New requests are refused by a server that still listens: its clients learn why, and when to
        // come again.
        let end = tokio::select! {
            () = accepting => None,
            () = told(&mut now, Stop::Now) => None,
            end = draining => Some(end),
        };
        drop(listener);
        closing.send_replace(true);
        if let Some(end) = end {
            tokio::select! {
                () = all(&mut connections) => {}
                () = told(&mut now, Stop::Now) => {}
                () = time::sleep_until(end.into()) => {}
            }
        }
        state.shutdown();
        let _ = time::timeout(LAST_WORDS, all(&mut connections)).await;
        connections.shutdown().await;
        state.observer.log.flush(LAST_WORDS);
    }
}

/// Listens at an address that `option` chose.
async fn listen(
    address: SocketAddr,
    option: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen.await.map_err(|source| ServeError::Bind { option, address, source })
}

/// Waits for this command or a stronger one; without a commander there is none.
async fn told(stop: &mut watch::Receiver<Stop>, least: Stop) {
    if stop.wait_for(|told| *told >= least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn all(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Waits until connections are told to end.
async fn ended(mut closing: watch::Receiver<bool>) {
    // Without a server, connections end as well.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Serves one connection until `end`, and then the response under way.
async fn answer(connection: Connection, router: Router, end: impl Future<Output = ()>) {
    let activity = Arc::clone(connection.activity());
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&activity));
        router.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        // The connection knows how long it waits for what.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(connection), service);
    let mut serving = pin!(serving);
    // How a connection ends is its client's business: requests are logged by themselves.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = end => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
