//! The metrics of all engines and of the server, as Prometheus reads them.

use std::fmt::{Display, Write};
use std::fs;

use bantam_engine::{Histogram, Metrics};

use crate::state::ServerState;

/// A number of an engine: its name, what it says, and how it is read.
type Field<T> = (&'static str, &'static str, fn(&Metrics) -> T);

/// What only grows. Names end in `_total`.
const COUNTERS: [Field<u64>; 11] = [
    ("requests", "Requests accepted.", |m| m.requests),
    ("requests_cancelled", "Requests whose reader left before the answer was complete.", |m| {
        m.cancelled
    }),
    ("requests_failed", "Requests that failed, those past their deadline included.", |m| m.failed),
    ("prompt_tokens", "Tokens of the prompts of started requests.", |m| m.prompt_tokens),
    ("scored_tokens", "Prompt tokens whose probability was reported.", |m| m.scored_tokens),
    ("cached_tokens", "Prompt tokens that were in the cache already.", |m| m.cached_tokens),
    ("generated_tokens", "Tokens chosen.", |m| m.generated_tokens),
    ("computed_tokens", "Tokens computed, again after preemptions included.", |m| {
        m.computed_tokens
    }),
    ("preemptions", "Times that a running request went back to the queue.", |m| m.preemptions),
    ("evictions", "Cached blocks that were overwritten.", |m| m.evictions),
    ("failed_steps", "Steps that failed.", |m| m.failed_steps),
];

/// What goes up and down.
const GAUGES: [Field<usize>; 2] = [
    ("requests_waiting", "Requests in the queue.", |m| m.waiting),
    ("requests_running", "Requests that hold blocks.", |m| m.running),
];

type HistogramField = (&'static str, &'static str, fn(&Metrics) -> &Histogram);

const HISTOGRAMS: [HistogramField; 7] = [
    ("queue_seconds", "From submission to the first step.", |m| &m.queue_seconds),
    ("first_token_seconds", "From submission to the first token.", |m| &m.first_token_seconds),
    ("inter_token_seconds", "From one token of a request to its next.", |m| &m.inter_token_seconds),
    ("request_seconds", "From submission to the end.", |m| &m.request_seconds),
    ("forward_seconds", "The model's part of a step.", |m| &m.forward_seconds),
    ("batch_tokens", "Tokens of a step.", |m| &m.batch_tokens),
    ("batch_sequences", "Sequences of a step.", |m| &m.batch_sequences),
];

/// Everything, in the text format of Prometheus.
pub(crate) fn exposition(state: &ServerState) -> String {
    let mut page = Page::default();
    let models: Vec<(String, Metrics)> = state
        .models
        .iter()
        .map(|model| (format!("model=\"{}\"", escaped(model.name())), model.engine().metrics()))
        .collect();
    for (name, help, read) in COUNTERS {
        let name = format!("bantam_{name}_total");
        page.family(&name, "counter", help);
        models.iter().for_each(|(model, metrics)| page.sample(&name, model, read(metrics)));
    }
    let name = "bantam_requests_finished_total";
    page.family(name, "counter", "Requests that the engine completed, by reason.");
    for (model, metrics) in &models {
        page.sample(name, &format!("{model},reason=\"stop\""), metrics.finished_stop);
        page.sample(name, &format!("{model},reason=\"length\""), metrics.finished_length);
    }
    let name = "bantam_requests_rejected_total";
    page.family(name, "counter", "Requests refused because too many waited.");
    for (served, (model, _)) in state.models.iter().zip(&models) {
        page.sample(name, model, served.engine().num_rejected());
    }
    for (name, help, read) in GAUGES {
        let name = format!("bantam_{name}");
        page.family(&name, "gauge", help);
        models.iter().for_each(|(model, metrics)| page.sample(&name, model, read(metrics)));
    }
    let name = "bantam_cache_blocks";
    page.family(name, "gauge", "Blocks of the key/value cache, by state.");
    for (model, Metrics { blocks, .. }) in &models {
        for (state, count) in
            [("free", blocks.free), ("idle", blocks.idle), ("referenced", blocks.referenced)]
        {
            page.sample(name, &format!("{model},state=\"{state}\""), count);
        }
    }
    let name = "bantam_memory_planned_bytes";
    page.family(name, "gauge", "Memory that a model was planned to hold, by part.");
    for (served, (model, _)) in state.models.iter().zip(&models) {
        for (part, bytes) in served.planned_memory() {
            page.sample(name, &format!("{model},part=\"{part}\""), bytes);
        }
    }
    let name = "bantam_model_ready";
    page.family(name, "gauge", "1 if the model accepts requests.");
    for (served, (model, _)) in state.models.iter().zip(&models) {
        page.sample(name, model, u8::from(served.engine().health().is_ready()));
    }
    for (name, help, read) in HISTOGRAMS {
        let name = format!("bantam_{name}");
        page.family(&name, "histogram", help);
        models.iter().for_each(|(model, metrics)| page.histogram(&name, model, read(metrics)));
    }
    let name = "bantam_step_seconds";
    page.family(name, "histogram", "A whole step of the engine, by what it does.");
    for (model, metrics) in &models {
        for (phase, histogram) in metrics.step_seconds.phases() {
            page.histogram(name, &format!("{model},phase=\"{phase}\""), histogram);
        }
    }
    server(state, &mut page);
    page.0
}

/// What is counted outside of engines.
fn server(state: &ServerState, page: &mut Page) {
    let http = &state.observer.http;
    let name = "bantam_http_requests_total";
    page.family(name, "counter", "HTTP requests that ended, by route and status.");
    for ((route, status), count) in http.requests() {
        let labels = format!("route=\"{}\",status=\"{status}\"", escaped(&route));
        page.sample(name, &labels, count);
    }
    let mut single = |name: &str, kind, help, value: u64| {
        page.family(name, kind, help);
        page.sample(name, "", value);
    };
    let vanished = "HTTP requests whose client went away before the end.";
    single("bantam_http_clients_vanished_total", "counter", vanished, http.vanished());
    let in_flight = "HTTP requests under way, this one included.";
    single("bantam_http_requests_in_flight", "gauge", in_flight, http.in_flight() as u64);
    let connections = &state.connections;
    let open = "Connections that are open.";
    single("bantam_connections_open", "gauge", open, connections.num_open() as u64);
    let closed = "Connections that said nothing and were closed for others.";
    single("bantam_connections_closed_total", "counter", closed, connections.num_closed());
    let refused = "Connections that were refused because all others were being answered.";
    single("bantam_connections_refused_total", "counter", refused, connections.num_refused());
    let lost = "Lines that could not be written to the log.";
    single("bantam_log_failures_total", "counter", lost, state.observer.log.num_failures());
    if let Some(bytes) = resident_bytes("VmRSS:") {
        single("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    let name = "bantam_memory_resident_bytes";
    let kinds = [("own", "RssAnon:"), ("file", "RssFile:")];
    let kinds = kinds.map(|(kind, line)| (kind, resident_bytes(line)));
    if kinds.iter().any(|(_, bytes)| bytes.is_some()) {
        let help = "Resident memory: the process's own, which plans are for, and pages of files, which \
                    the system can take back.";
        page.family(name, "gauge", help);
        for (kind, bytes) in kinds {
            bytes.iter().for_each(|bytes| page.sample(name, &format!("kind=\"{kind}\""), bytes));
        }
    }
}

/// Memory of this process that is in RAM, by its line in `/proc/self/status`, where there is one.
fn resident_bytes(kind: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes any text");
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        for (bound, count) in histogram.cumulative() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), count);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum());
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }
}

/// A text inside the quotes of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
