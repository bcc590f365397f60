//! `bantam bench soak --hostile`: a server under attack.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bantam_checkpoint::printable;
use bantam_eval::load::{
    Endpoint, HostileOptions, HostileProgress, HostileReport, Target, hostile,
};
use indicatif::ProgressBar;
use serde_json::json;

use super::{SoakArgs, cannot_write};
use crate::bench_serve::{connect, machine};
use crate::{interrupt, output};

pub(super) fn run(args: &SoakArgs) -> anyhow::Result<()> {
    let options = options(args);
    interrupt::install()?;
    // Attackers are many and busy; those who behave must not wait for them on this side.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(attack(args, &options))?;
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
        failed => bail!("does not hold: {}", failed.join("; ")),
    }
}

fn options(args: &SoakArgs) -> HostileOptions {
    let usual = HostileOptions::default();
    let seconds = |given: Option<f64>| given.map(Duration::from_secs_f64);
    let attack = seconds(args.duration).unwrap_or(usual.attack);
    let quiet = seconds(args.quiet).unwrap_or(usual.quiet);
    HostileOptions {
        clients: args.clients.unwrap_or(usual.clients),
        attack,
        quiet,
        max_growth: args
            .max_growth
            .map_or(usual.max_growth, |mebibytes| u64::from(mebibytes) << 20),
        any_host: args.any_host,
        seed: args.seed,
        ..usual
    }
}

async fn attack(args: &SoakArgs, options: &HostileOptions) -> anyhow::Result<HostileReport> {
    let client = connect(&args.url, args.api_key.as_deref())?;
    let target = Target::find(client, Endpoint::Chat, args.model.as_deref(), 0.0).await?;
    let length = options.attack + 2 * options.quiet;
    let bar = output::progress_bar(length.as_secs(), "those who behave are alone");
    let watch = interrupt::watch();
    let mut progress = |now: HostileProgress| show(&bar, now);
    let report = hostile(&target, options, &mut progress).await;
    drop(watch);
    bar.finish_and_clear();
    Ok(report?)
}

/// Shows how it goes, and stops after Ctrl-C.
fn show(bar: &ProgressBar, now: HostileProgress) -> ControlFlow<()> {
    let HostileProgress { phase, elapsed, answered, attacks } = now;
    bar.set_position(elapsed.as_secs());
    bar.set_message(format!("{}: {answered} answers, {attacks} attacks", phase.name()));
    if interrupt::happened() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn heading(args: &SoakArgs, report: &HostileReport) -> String {
    format!("{} at {}; client on {}", printable(&report.model), printable(&args.url), machine())
}

/// The report as a page.
fn page(args: &SoakArgs, report: &HostileReport) -> String {
    let failed = report.failed().count();
    let verdict = match failed {
        0 => "Everything holds.".to_owned(),
        1 => "**One check does not hold.**".to_owned(),
        _ => format!("**{failed} checks do not hold.**"),
    };
    let mut page = String::from("# A server under attack\n\n");
    write!(
        page,
        "{verdict} `bantam {}`, {}.\n\n\
         Made by `bantam bench soak --hostile --report {}` beside a `bantam serve` on the same \
         machine. Clients that behave ask for short answers at a steady pace: alone, beside attackers, \
         and alone again. Attackers send, again and again, what has hurt servers before.\n\n\
         ```text\n{report}```\n",
        env!("CARGO_PKG_VERSION"),
        heading(args, report),
        args.report.as_deref().unwrap_or(Path::new("hostile.md")).display(),
    )
    .expect("a string takes any text");
    page
}
