//! What can be chosen about the server as a whole.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// How the server listens, whom it answers, and what it bears.
///
/// ```
/// use bantam_server::ServerOptions;
/// let options = ServerOptions { port: 0, ..ServerOptions::default() };
/// assert!(options.api_keys.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Address to listen at; `0.0.0.0` or `::` for all of the machine's.
    pub host: IpAddr,
    /// Port to listen at; 0 for any that is free.
    pub port: u16,
    /// Port for gRPC at the same address, 0 for any that is free; none for no gRPC.
    #[cfg(feature = "grpc")]
    pub grpc_port: Option<u16>,
    /// Keys of which a request must show one; empty to answer everyone.
    pub api_keys: Vec<String>,
    /// Names beside its own that a server without keys answers to, or `*` for any. Its own are
    /// `localhost`, loopback addresses, and the address it listens at.
    pub allow_hosts: Vec<String>,
    /// Origins of web pages that may use the server, such as `https://chat.example.com`, or `*` for
    /// any page; pages of the server's own names always may.
    pub cors_origins: Vec<String>,
    /// Bytes of a request's body at most; none for 2 MiB and 32 for each token of the longest context
    /// served, more than a prompt can have.
    pub max_body_bytes: Option<usize>,
    /// Time in which the head of a request must have arrived, from its first byte or, for the first of
    /// a connection, from the connection on.
    pub head_timeout: Duration,
    /// Time in which the body of a request must have arrived.
    pub body_timeout: Duration,
    /// Time that a connection is kept without a request.
    pub idle_timeout: Duration,
    /// Time that a client may leave what is sent to it unread before its connection is closed.
    pub write_timeout: Duration,
    /// Connections open at once, over all ports. For more, those that say nothing are closed, first
    /// those of the address that has most.
    pub max_connections: usize,
    /// Requests under way at once, over all models; more are refused with status 429.
    pub max_requests: usize,
    /// Deadline of requests that set none; none for no limit.
    pub deadline: Option<Duration>,
    /// Time that answers have to be completed once the server is told to stop.
    pub grace: Duration,
    /// Where the line for each request goes.
    pub log_target: LogTarget,
    /// How that line looks.
    pub log_format: LogFormat,
}

impl Default for ServerOptions {
    /// `127.0.0.1:8000`, no keys, bodies as long as the contexts allow, 1,024 connections, no deadline, 30 s of
    /// grace, 5 s for the head of a request, 30 s for its body, and a minute for clients that do not
    /// read.
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8000,
            #[cfg(feature = "grpc")]
            grpc_port: None,
            api_keys: Vec::new(),
            allow_hosts: Vec::new(),
            cors_origins: Vec::new(),
            max_body_bytes: None,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            max_connections: 1024,
            max_requests: 512,
            deadline: None,
            grace: Duration::from_secs(30),
            log_target: LogTarget::Stderr,
            log_format: LogFormat::Text,
        }
    }
}

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    Stderr,
    /// The end of a file, which is made if need be.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}
