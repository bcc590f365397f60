//! What a server says about itself.

use std::time::Duration;

use crate::load::{Client, Failure};

/// What `/metrics` says about one model and the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) accepted: u64,
    pub(super) finished: u64,
    pub(super) cancelled: u64,
    pub(super) failed: u64,
    pub(super) failed_steps: u64,
    pub(super) rejected: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) generated_tokens: u64,
    pub(super) preemptions: u64,
    pub(super) evictions: u64,
    pub(super) waiting: u64,
    pub(super) running: u64,
    /// Blocks of the cache that sequences hold.
    pub(super) referenced: u64,
    /// Blocks of the cache that keep what may come again.
    pub(super) idle: u64,
    pub(super) free: u64,
    /// HTTP requests under way, the one that asks included.
    pub(super) in_flight: u64,
    pub(super) vanished: u64,
    pub(super) resident_bytes: Option<u64>,
}

impl Counters {
    /// Asks the server.
    pub(super) async fn read(client: &Client, model: &str) -> Result<Self, Failure> {
        let answer = client.get("/metrics").await?.success().await?;
        let bytes = answer.bytes().await?;
        Self::parse(&String::from_utf8_lossy(&bytes), model).map_err(|missing| Failure::Protocol {
            problem: format!("GET /metrics has no {missing}"),
        })
    }

    /// Reads the text format of Prometheus; the error is the name of what is missing.
    fn parse(page: &str, model: &str) -> Result<Self, String> {
        let model = model.replace('\\', "\\\\").replace('"', "\\\"");
        let model = format!("model=\"{model}\"");
        // The sum over all samples of a name that have these labels; none if there are none.
        let sum = |name: &str, labels: &[&str]| {
            let samples = page.lines().filter_map(|line| {
                let (sample, value) = line.rsplit_once(' ')?;
                let found = sample.strip_prefix(name)?;
                let named = found.is_empty() || found.starts_with('{');
                let labelled = labels.iter().all(|label| found.contains(label));
                (named && labelled).then(|| value.parse::<f64>().ok())?
            });
            samples.reduce(|a, b| a + b).map(|value| value as u64)
        };
        let of_model = |name: &str| sum(name, &[&model]).ok_or_else(|| name.to_owned());
        let blocks = |state: &str| {
            let name = "bantam_cache_blocks";
            let label = format!("state=\"{state}\"");
            sum(name, &[&model, &label]).ok_or_else(|| name.to_owned())
        };
        let of_process = |name: &str| sum(name, &[]).ok_or_else(|| name.to_owned());
        Ok(Self {
            accepted: of_model("bantam_requests_total")?,
            finished: of_model("bantam_requests_finished_total")?,
            cancelled: of_model("bantam_requests_cancelled_total")?,
            failed: of_model("bantam_requests_failed_total")?,
            failed_steps: of_model("bantam_failed_steps_total")?,
            rejected: of_model("bantam_requests_rejected_total")?,
            prompt_tokens: of_model("bantam_prompt_tokens_total")?,
            cached_tokens: of_model("bantam_cached_tokens_total")?,
            generated_tokens: of_model("bantam_generated_tokens_total")?,
            preemptions: of_model("bantam_preemptions_total")?,
            evictions: of_model("bantam_evictions_total")?,
            waiting: of_model("bantam_requests_waiting")?,
            running: of_model("bantam_requests_running")?,
            referenced: blocks("referenced")?,
            idle: blocks("idle")?,
            free: blocks("free")?,
            in_flight: of_process("bantam_http_requests_in_flight")?,
            vanished: of_process("bantam_http_clients_vanished_total")?,
            resident_bytes: sum("process_resident_memory_bytes", &[]),
        })
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting + self.running == 0 && self.in_flight <= 1
    }

    /// What happened since an earlier reading; what goes up and down is as it is now.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            accepted: self.accepted.saturating_sub(before.accepted),
            finished: self.finished.saturating_sub(before.finished),
            cancelled: self.cancelled.saturating_sub(before.cancelled),
            failed: self.failed.saturating_sub(before.failed),
            failed_steps: self.failed_steps.saturating_sub(before.failed_steps),
            rejected: self.rejected.saturating_sub(before.rejected),
            prompt_tokens: self.prompt_tokens.saturating_sub(before.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_sub(before.cached_tokens),
            generated_tokens: self.generated_tokens.saturating_sub(before.generated_tokens),
            preemptions: self.preemptions.saturating_sub(before.preemptions),
            evictions: self.evictions.saturating_sub(before.evictions),
            vanished: self.vanished.saturating_sub(before.vanished),
            ..*self
        }
    }
}

/// What is wrong with the health that a server reports.
pub(super) async fn health_problem(client: &Client) -> Option<String> {
    match client.get("/health").await {
        Err(failure) => Some(failure.to_string()),
        Ok(answer) if answer.status() == 200 => answer.bytes().await.err().map(|f| f.to_string()),
        Ok(answer) => {
            let status = answer.status();
            let body = answer.bytes().await.unwrap_or_default();
            Some(format!("status {status}: {}", String::from_utf8_lossy(&body)))
        }
    }
}

/// Reads the counters again until nothing is under way, or for `patience`.
pub(super) async fn when_idle(
    client: &Client,
    model: &str,
    patience: Duration,
) -> Result<Counters, Failure> {
    const PAUSE: Duration = Duration::from_millis(50);
    let begun = tokio::time::Instant::now();
    loop {
        let now = Counters::read(client, model).await?;
        // Blocks are given back at the step after the last.
        if (now.is_idle() && now.referenced == 0) || begun.elapsed() > patience {
            return Ok(now);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_model() {
        let mut page = String::from("# HELP bantam_requests_total Requests.\n");
        for model in ["a", "b"] {
            for (value, name) in [
                "requests_total",
                "requests_cancelled_total",
                "requests_failed_total",
                "failed_steps_total",
                "requests_rejected_total",
                "prompt_tokens_total",
                "cached_tokens_total",
                "generated_tokens_total",
                "preemptions_total",
                "evictions_total",
                "requests_waiting",
                "requests_running",
            ]
            .into_iter()
            .enumerate()
            {
                page += &format!("bantam_{name}{{model=\"{model}\"}} {value}\n");
            }
            page +=
                &format!("bantam_requests_finished_total{{model=\"{model}\",reason=\"stop\"}} 3\n");
            page += &format!(
                "bantam_requests_finished_total{{model=\"{model}\",reason=\"length\"}} 4\n"
            );
            for (state, count) in [("free", 5), ("idle", 6), ("referenced", 7)] {
                page += &format!(
                    "bantam_cache_blocks{{model=\"{model}\",state=\"{state}\"}} {count}\n"
                );
            }
        }
        let error = Counters::parse(&page, "a").unwrap_err();
        assert_eq!(error, "bantam_http_requests_in_flight");
        page += "bantam_http_requests_in_flight 1\nbantam_http_clients_vanished_total 2\n";
        let found = Counters::parse(&page, "a").unwrap();
        assert_eq!((found.accepted, found.finished, found.cancelled), (0, 7, 1));
        assert_eq!((found.free, found.idle, found.referenced), (5, 6, 7));
        assert_eq!((found.in_flight, found.vanished, found.resident_bytes), (1, 2, None));
        assert!(!found.is_idle());
        let later = Counters { accepted: 9, ..found };
        assert_eq!((later.since(&found).accepted, later.since(&found).idle), (9, 6));
        assert_eq!(Counters::parse(&page, "c").unwrap_err(), "bantam_requests_total");
    }
}
