//! One line for each request, written by a thread of its own.
//!
//! A request never waits for the log: lines that cannot be written, or that come faster than they
//! can be, are counted and lost.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bantam_engine::FinishReason;
use serde_json::{Value, json};

use crate::{LogFormat, LogTarget};

/// Lines that may wait to be written.
const MAX_WAITING: usize = 4096;

/// What is known about a request when it is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) status: u16,
    pub(crate) model: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) generated_tokens: usize,
    pub(crate) queue: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) total: Duration,
    pub(crate) finish: Option<FinishReason>,
    /// The client went away before the response was complete.
    pub(crate) vanished: bool,
    pub(crate) error: Option<String>,
}

impl Line {
    /// What is known, by name: the order is that of the line.
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let ms = |time: Duration| json!((time.as_secs_f64() * 1e4).round() / 10.0);
        let mut fields = vec![("id", json!(self.id))];
        if let Some(model) = &self.model {
            fields.extend([
                ("model", json!(model)),
                ("prompt_tokens", json!(self.prompt_tokens)),
                ("cached_tokens", json!(self.cached_tokens)),
                ("generated_tokens", json!(self.generated_tokens)),
            ]);
        }
        fields.extend(self.queue.map(|time| ("queue_ms", ms(time))));
        fields.extend(self.first_token.map(|time| ("first_token_ms", ms(time))));
        fields.push(("total_ms", ms(self.total)));
        fields.extend(self.finish.map(|reason| ("finish", json!(reason.name()))));
        fields.extend(self.user.as_ref().map(|user| ("user", json!(user))));
        fields.extend(self.vanished.then_some(("vanished", json!(true))));
        fields.extend(self.error.as_ref().map(|error| ("error", json!(error))));
        fields
    }

    fn format(&self, format: LogFormat, now: SystemTime) -> String {
        let Self { method, route, status, .. } = self;
        let time = timestamp(now);
        match format {
            LogFormat::Text => {
                let mut line = format!("{time} {status} {method} {route}");
                for (name, value) in self.fields() {
                    // Words stand as they are; anything else is quoted, so no line breaks.
                    match value.as_str().filter(|text| is_word(text)) {
                        Some(word) => write!(line, " {name}={word}"),
                        None => write!(line, " {name}={value}"),
                    }
                    .expect("a string takes any text");
                }
                line.push('\n');
                line
            }
            LogFormat::Json => {
                let head = [
                    ("time", json!(time)),
                    ("status", json!(status)),
                    ("method", json!(method)),
                    ("route", json!(route)),
                ];
                let all = head.into_iter().chain(self.fields());
                let object = all.map(|(name, value)| (name.to_owned(), value)).collect();
                format!("{}\n", Value::Object(object))
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b))
}

enum Command {
    Write(String),
    Flush(SyncSender<()>),
}

/// Where lines go.
pub(crate) struct Log {
    /// None for no log.
    commands: Option<SyncSender<Command>>,
    format: LogFormat,
    failures: Arc<AtomicU64>,
}

impl Log {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(target: &LogTarget, format: LogFormat) -> io::Result<Self> {
        let writer: Box<dyn Write + Send> = match target {
            LogTarget::Off => {
                return Ok(Self { commands: None, format, failures: Arc::default() });
            }
            LogTarget::Stderr => Box::new(io::stderr()),
            LogTarget::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let failures = Arc::new(AtomicU64::new(0));
        let (commands, received) = mpsc::sync_channel(MAX_WAITING);
        let counter = Arc::clone(&failures);
        thread::Builder::new()
            .name("bantam-log".to_owned())
            .spawn(move || write_lines(writer, &received, &counter))?;
        Ok(Self { commands: Some(commands), format, failures })
    }

    /// Writes a line, soon.
    pub(crate) fn write(&self, line: &Line) {
        let Some(commands) = &self.commands else { return };
        let text = line.format(self.format, SystemTime::now());
        if commands.try_send(Command::Write(text)).is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was written is out, for at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let Some(commands) = &self.commands else { return };
        let (done, wait) = mpsc::sync_channel(1);
        if commands.try_send(Command::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(timeout);
        }
    }

    /// Lines that were lost.
    pub(crate) fn num_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

fn write_lines(mut writer: Box<dyn Write + Send>, commands: &Receiver<Command>, lost: &AtomicU64) {
    for command in commands {
        match command {
            Command::Write(line) => {
                if writer.write_all(line.as_bytes()).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Command::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// A time as `2026-11-21T06:30:44.123Z`.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Years begin in March, so that the day added to leap years is the last; days count from
    // 0000-03-01. https://howardhinnant.github.io/date_algorithms.html
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64, ms: u64| {
            timestamp(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_709_251_199, 999), "2024-02-29T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_line_stays_one_line_whatever_it_says() {
        let line = Line {
            id: "r-1".to_owned(),
            method: "POST".to_owned(),
            route: "/v1/completions".to_owned(),
            status: 400,
            model: Some("tiny".to_owned()),
            user: Some("a\nb".to_owned()),
            total: Duration::from_micros(1_250),
            error: Some("bad \"n\"\r\n".to_owned()),
            ..Line::default()
        };
        let text = line.format(LogFormat::Text, UNIX_EPOCH);
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000Z 400 POST /v1/completions id=r-1 model=tiny prompt_tokens=0 \
             cached_tokens=0 generated_tokens=0 total_ms=1.3 user=\"a\\nb\" \
             error=\"bad \\\"n\\\"\\r\\n\"\n"
        );
        let json = line.format(LogFormat::Json, UNIX_EPOCH);
        assert_eq!(json.lines().count(), 1);
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["user"], "a\nb");
    }
}
