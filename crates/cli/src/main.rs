//! `bantam`: runs language models, makes them small, and shows what that cost.
//!
//! Thin on purpose: each command is a file that turns arguments into calls of the library crates and
//! results into text or JSON. Results go to standard output, everything else to standard error.

mod advise;
mod architecture;
mod bench;
mod bench_serve;
mod bench_soak;
mod chat;
mod demo;
mod device;
mod eval;
mod fetching;
mod format;
mod input;
mod inspect;
mod interrupt;
mod memory;
mod model_arg;
mod model_text;
mod output;
mod quantize;
#[cfg(test)]
mod reference;
mod run;
mod scoring;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs language models, makes them small, and shows what that cost.
#[derive(Debug, Parser)]
#[command(name = "bantam", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
MODEL is an alias (smollm2), a Hugging Face folder, a .gguf file, or a hub name (org/model).

Examples:
  bantam demo
  bantam run smollm2
  bantam run smollm2 --prompt 'Name three rivers.' --dtype int4
  bantam serve smollm2
  bantam advise smollm2 --batch 16
  bantam quantize smollm2 --recipe int8_sq --output smollm2-int8
  bantam eval smollm2@int8 smollm2@int4 --against smollm2

Environment:
  BANTAM_CACHE              folder for fetched models
  HF_HOME, HF_TOKEN, HF_ENDPOINT
                            cache, token and address of the Hugging Face hub";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Run(run::RunArgs),
    Serve(serve::ServeArgs),
    Inspect(inspect::InspectArgs),
    Advise(advise::AdviseArgs),
    Quantize(quantize::QuantizeArgs),
    Eval(eval::EvalArgs),
    Bench(bench::BenchArgs),
}

/// The exit code of a run that Ctrl-C ended: 128 + SIGINT, as shells expect.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = match &command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Advise(args) => advise::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) if interrupt::happened() => ExitCode::from(INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        // The reader, `head` for instance, has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::one_line(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
