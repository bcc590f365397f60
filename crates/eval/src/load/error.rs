//! Why one request failed, and why nothing can be measured at all.

use std::time::Duration;

/// Why one request has no complete answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("no server answers at {address}: {problem}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system says.
        problem: String,
    },
    /// An answer that is not 200.
    #[error("the server answered {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The server's words, shortened.
        message: String,
        /// When to come back, if the server says so.
        retry_after: Option<Duration>,
    },
    /// An error event inside a stream that had begun.
    #[error("the server ended the stream with an error: {message}")]
    Stream {
        /// The server's words, shortened.
        message: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection broke: {problem}")]
    Broken {
        /// What was missing.
        problem: String,
    },
    /// An answer that is not what the API promises.
    #[error("the answer is not understood: {problem}")]
    Protocol {
        /// What was wrong.
        problem: String,
    },
    /// No end in time.
    #[error("no complete answer after {seconds} s; allow more with --timeout")]
    Timeout {
        /// Seconds waited.
        seconds: f64,
    },
}

impl Failure {
    /// A short name to count failures by, such as `429` or `timeout`.
    ///
    /// ```
    /// use bantam_eval::load::Failure;
    /// let full = Failure::Status { status: 429, message: "full".into(), retry_after: None };
    /// assert_eq!(full.kind(), "429");
    /// ```
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Connect { .. } => "no connection".to_owned(),
            Self::Status { status, .. } => status.to_string(),
            Self::Stream { .. } => "error in stream".to_owned(),
            Self::Broken { .. } => "connection broke".to_owned(),
            Self::Protocol { .. } => "not understood".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
        }
    }
}

/// Why a server cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An address that is none.
    #[error("{url:?} is not the address of a server: {problem}; expected http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A key that no header can carry.
    #[error("the API key has characters that an HTTP header cannot carry; check how it was copied")]
    Key,
    /// Nobody there.
    #[error("{failure}; start one with `bantam serve MODEL` or give its address with --url")]
    Unreachable {
        /// What happened.
        failure: Failure,
    },
    /// A list of models that is none.
    #[error(
        "GET /v1/models: {problem}; --url must be the address of an OpenAI-compatible server, and \
         --model can name the model instead"
    )]
    Models {
        /// What happened.
        problem: String,
    },
    /// A model that the server does not have.
    #[error("the server has no model {asked:?}; it has {}", .have.join(", "))]
    UnknownModel {
        /// The model asked for.
        asked: String,
        /// The models there are.
        have: Vec<String>,
    },
    /// A choice is needed.
    #[error("the server has several models; choose one with --model: {}", .have.join(", "))]
    WhichModel {
        /// The models there are.
        have: Vec<String>,
    },
    /// A server that fails the very first requests.
    #[error("a warm-up request failed: {failure}")]
    WarmUp {
        /// How.
        failure: Failure,
    },
    /// Lengths cannot be counted.
    #[error(
        "reference lengths need the server's /tokenize, which failed: {failure}; give a number of \
         tokens instead"
    )]
    Tokenize {
        /// How.
        failure: Failure,
    },
    /// A server that does not say what it counts.
    #[error(
        "the server's /metrics cannot be used: {failure}; a soak compares them with what clients see, \
         so it needs a `bantam serve` of this version"
    )]
    Metrics {
        /// How.
        failure: Failure,
    },
    /// A server that is not to be attacked.
    #[error(
        "{host} is not this machine, and attacks hurt; only attack a server that is yours, and say so \
         with --any-host"
    )]
    NotThisMachine {
        /// The host of the address given.
        host: String,
    },
    /// A server with other clients.
    #[error(
        "the server has {under_way} requests under way; a soak needs it to itself, for its counts are \
         compared with what clients see"
    )]
    Busy {
        /// Requests under way.
        under_way: u64,
    },
    /// A line of a request file that is not a request.
    #[error("{file}, line {line}: {problem}")]
    RequestFile {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A request file without requests.
    #[error("{file}: no requests; expected one JSON object a line")]
    NoRequests {
        /// The file.
        file: String,
    },
    /// More requests than the file has.
    #[error(
        "{asked} requests were asked for, but there are {have}; use --num-requests {have} or fewer"
    )]
    TooFewRequests {
        /// The number asked for.
        asked: usize,
        /// The number there are.
        have: usize,
    },
    /// A request that an endpoint cannot express.
    #[error("request {number} is a conversation, which needs --endpoint chat")]
    NeedsChat {
        /// The request, counted from 1.
        number: usize,
    },
    /// A request without a reference answer.
    #[error(
        "request {number} has no reference answer to take the length from; give a number of tokens \
         instead of `reference`"
    )]
    NoReference {
        /// The request, counted from 1.
        number: usize,
    },
}

impl LoadError {
    /// Why the server's counters cannot be read.
    pub(super) fn metrics(failure: Failure) -> Self {
        Self::Metrics { failure }
    }
}
