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
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// Time in which a request must have arrived, its headers and its body each.
    pub read_timeout: Duration,
    /// Time that a client may leave what is sent to it unread before its connection is closed.
    pub write_timeout: Duration,
    /// Connections open at once, over all ports; more wait to be served.
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
    /// `127.0.0.1:8000`, no keys, bodies of 8 MiB, 1,024 connections, no deadline, 30 s of
    /// grace, and a minute for clients that do not read.
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8000,
            #[cfg(feature = "grpc")]
            grpc_port: None,
            api_keys: Vec::new(),
            max_body_bytes: 8 << 20,
            read_timeout: Duration::from_secs(30),
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
