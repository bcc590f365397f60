//! `bantam bench soak`: a server under clients of every kind.

mod hostile;

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bantam_checkpoint::printable;
use bantam_eval::load::{Endpoint, SoakOptions, SoakProgress, SoakReport, Target, soak};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use crate::bench_serve::{connect, machine, seconds};
use crate::{interrupt, output};

/// Prove a running server: clients of every kind for minutes, then its accounts
///
/// Clients ask chats and completions of random lengths, streamed or not, some with two answers, some
/// as JSON of a schema, some the same again and again. A share of them breaks off at random moments, a
/// share sends what must be refused. Turned away with 429, they come back when told to.
///
/// What must hold afterwards: every token that the server counts has come, once; equal requests have
/// equal answers, streamed or not, alone or under load; nothing fails; malformed requests get one line
/// that says why; and once all clients have left, every request is accounted for, every block of the
/// cache is given back, and memory has not grown since half time. If something does not hold, the exit
/// code is 1.
///
/// The server must be a `bantam serve` with no other clients: its /metrics are compared with what
/// these clients see.
///
/// With --hostile, clients that behave ask for short answers alone, then beside attackers, then alone
/// again. Attackers send numbers, schemas, grammars, bodies and half-open connections that have hurt
/// servers before. What must hold: those who behave wait at most three times as long, all of them are
/// answered, memory comes back, and every attack is refused or ends. Only a server of this machine is
/// attacked.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SoakArgs {
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: String,

    /// Name of the model on the server [default: the only one]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Key that the server asks for [default: the environment's BANTAM_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// Attack the server, beside clients that behave
    #[arg(long, conflicts_with_all = ["cancel", "malformed", "repeat", "prompt_words", "max_tokens", "timeout"])]
    hostile: bool,

    /// Seconds without attackers before and after the attack; with --hostile [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "hostile")]
    quiet: Option<f64>,

    /// Attack a server of another machine too, which must be yours; with --hostile
    #[arg(long, requires = "hostile")]
    any_host: bool,

    /// Clients side by side; each sends one request after the other [default: 200; 50 with --hostile]
    #[arg(long, value_name = "N")]
    clients: Option<NonZeroUsize>,

    /// Seconds during which requests, or attacks, are sent; requests under way then are waited for
    /// [default: 300; 120 with --hostile]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<f64>,

    /// Share of the requests that break off at a random moment
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    cancel: f64,

    /// Share of the requests that are malformed
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    malformed: f64,

    /// Share of the requests that are asked again and again
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, value_parser = share)]
    repeat: f64,

    /// Longest prompt in words, about as many tokens; most are shorter
    #[arg(long, value_name = "N", default_value = "256")]
    prompt_words: NonZeroUsize,

    /// Longest answer in tokens; most are shorter
    #[arg(long, value_name = "N", default_value = "128")]
    max_tokens: NonZeroUsize,

    /// Seconds until an answer must be complete, waiting to come again included
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    timeout: f64,

    /// MiB that the server's memory may grow by in the second half [default: 32], or that it may be
    /// larger after the attack than before [default: 50]
    #[arg(long, value_name = "MIB")]
    max_growth: Option<u32>,

    /// Decides everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// File to write the report to as well, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Memory counts from half time on, since a server with --lazy-cache takes memory as its cache is first
used: give that one a --memory whose cache is used up by then. Fewer places to wait than clients
(--max-waiting) make it turn some away.

Examples:
  bantam serve smollm2 --memory 600MiB --max-waiting 100
  bantam bench soak --report soak.md
  bantam bench soak --clients 40 --duration 10 --json
  bantam bench soak --hostile --report hostile.md";

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1, such as 0.1".to_owned()),
    }
}

pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<()> {
    if args.cancel + args.malformed > 1.0 {
        bail!(
            "--cancel {} and --malformed {} are more than all requests; use at most 1 together",
            args.cancel,
            args.malformed
        );
    }
    if let Some(path) = &args.report {
        // Five minutes later would be too late.
        std::fs::write(path, "").with_context(|| cannot_write(path))?;
    }
    if args.hostile {
        return hostile::run(args);
    }
    interrupt::install()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(prove(args))?;
    if let Some(path) = &args.report {
        std::fs::write(path, page(args, &report)).with_context(|| cannot_write(path))?;
    }
    if args.json {
        output::print_json(&json!({ "url": args.url, "client": machine(), "report": report }))?;
    } else {
        output::print(&format!("{}\n{report}", heading(args, &report)))?;
    }
    let failed: Vec<&str> = report.failed().map(|check| check.name()).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [one] => bail!("does not hold: {one}"),
        several => bail!("{} checks do not hold: {}", several.len(), several.join("; ")),
    }
}

fn cannot_write(path: &Path) -> String {
    format!("--report: cannot write {}", path.display())
}

async fn prove(args: &SoakArgs) -> anyhow::Result<SoakReport> {
    let client = connect(&args.url, args.api_key.as_deref())?;
    let target = Target::find(client, Endpoint::Chat, args.model.as_deref(), 0.0).await?;
    let options = args.options();
    let seconds = options.duration.as_secs_f64().ceil() as u64;
    let bar = output::progress_bar(seconds, "asking one by one");
    let watch = interrupt::watch();
    let mut progress = |now: SoakProgress| show(&bar, now);
    let report = soak(&target, &options, &mut progress).await;
    drop(watch);
    bar.finish_and_clear();
    Ok(report?)
}

/// Shows how it goes, and stops after Ctrl-C.
fn show(bar: &ProgressBar, now: SoakProgress) -> ControlFlow<()> {
    let SoakProgress { elapsed, answered, wrong, clients } = now;
    bar.set_position(elapsed.as_secs());
    bar.set_message(format!("{clients} clients, {answered} answers, {wrong} wrong"));
    if interrupt::happened() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl SoakArgs {
    fn options(&self) -> SoakOptions {
        let usual = SoakOptions::default();
        let growth = self.max_growth.map(|mebibytes| u64::from(mebibytes) << 20);
        SoakOptions {
            clients: self.clients.unwrap_or(usual.clients),
            duration: self.duration.map_or(usual.duration, Duration::from_secs_f64),
            cancel: self.cancel,
            malformed: self.malformed,
            repeat: self.repeat,
            prompt_words: self.prompt_words,
            answer_tokens: self.max_tokens,
            timeout: Duration::from_secs_f64(self.timeout),
            max_growth: growth.unwrap_or(usual.max_growth),
            seed: self.seed,
        }
    }
}

fn heading(args: &SoakArgs, report: &SoakReport) -> String {
    let (model, url) = (printable(&report.sizing.model), printable(&args.url));
    format!("{model} at {url}; client on {}", machine())
}

/// The report as a page.
fn page(args: &SoakArgs, report: &SoakReport) -> String {
    let mut page = String::from("# A soak\n\n");
    let failed = report.failed().count();
    let verdict = match failed {
        0 => "Everything holds.".to_owned(),
        1 => "**One check does not hold.**".to_owned(),
        _ => format!("**{failed} checks do not hold.**"),
    };
    write!(
        page,
        "{verdict} `bantam {}`, {}.\n\n```text\n{report}```\n",
        env!("CARGO_PKG_VERSION"),
        heading(args, report)
    )
    .expect("a string takes any text");
    page
}
