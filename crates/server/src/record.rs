//! What is noted about a request while it is served; the line in the log at its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bantam_engine::FinishReason;

use crate::http_metrics::HttpMetrics;
use crate::log::{Line, Log};

/// Characters of a text from outside that are noted at most.
const MAX_QUOTED: usize = 128;

/// Who is told about requests.
pub(crate) struct Observer {
    pub(crate) log: Log,
    pub(crate) http: HttpMetrics,
}

/// The notes about one request. When the last owner drops it the request is over: it is counted and
/// logged.
pub struct Record {
    observer: Arc<Observer>,
    begun: Instant,
    line: Mutex<Line>,
}

impl Record {
    /// A request that begins now.
    pub(crate) fn new(observer: Arc<Observer>, id: String, method: &str, route: &str) -> Arc<Self> {
        // Any word may be a method.
        let (method, route) = (shortened(method), route.to_owned());
        observer.http.begin();
        let line = Line { id, method, route, ..Line::default() };
        Arc::new(Self { observer, begun: Instant::now(), line: Mutex::new(line) })
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Assignments only are made under the lock, so a poisoned line is whole.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request's name.
    #[must_use]
    pub fn request_id(&self) -> String {
        self.line().id.clone()
    }

    /// A model was asked, with prompts of this many tokens together.
    pub fn asked(&self, model: &str, prompt_tokens: usize) {
        let mut line = self.line();
        line.model = Some(model.to_owned());
        line.prompt_tokens = prompt_tokens;
    }

    /// The client names a user.
    pub fn user(&self, user: &str) {
        self.line().user = Some(shortened(user));
    }

    /// An answer left the queue.
    pub fn started(&self, cached_tokens: usize, queue: Duration) {
        let mut line = self.line();
        line.cached_tokens += cached_tokens;
        line.queue = line.queue.max(Some(queue));
    }

    /// Tokens were chosen.
    pub fn generated(&self, count: usize) {
        let mut line = self.line();
        line.generated_tokens += count;
        line.first_token.get_or_insert_with(|| self.begun.elapsed());
    }

    /// An answer is complete.
    pub fn finished(&self, reason: FinishReason) {
        self.line().finish = Some(reason);
    }

    /// The request, or the rest of its answer, failed.
    pub fn failed(&self, error: &str) {
        self.line().error = Some(error.to_owned());
    }

    /// The response begins with this status.
    pub(crate) fn responded(&self, status: u16) {
        self.line().status = status;
    }

    /// The client went away.
    pub(crate) fn vanished(&self) {
        self.line().vanished = true;
    }
}

/// The beginning of a text that came from outside.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.begun.elapsed();
        let Self { observer, line, .. } = self;
        let line = line.get_mut().unwrap_or_else(PoisonError::into_inner);
        line.total = total;
        if line.status == 0 {
            // Dropped before there was a response: nginx's number for a client that went away.
            (line.status, line.vanished) = (499, true);
        }
        observer.http.end(&line.route, line.status, line.vanished);
        observer.log.write(line);
    }
}
