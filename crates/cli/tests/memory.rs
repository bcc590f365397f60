//! The memory of a server: taken at its start or refused there, and no more under load.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;
mod serving;

use std::process::{Command, Stdio};

use common::Finished;
use serving::{block_on, complete, metric, serve, tiny_model};

const MIB: u64 = 1 << 20;

#[test]
fn the_cache_is_taken_at_start_unless_it_is_to_grow() {
    let model = format!("tiny={}", tiny_model("memory-taken", 1).display());
    let (mut planned, mut own) = (0, Vec::new());
    for (option, says) in
        [(&[][..], "MiB of cache taken in"), (&["--lazy-cache"], "grow as they fill")]
    {
        let server = serve(&[&model], option);
        assert!(server.said().contains(says), "{}", server.said());
        let client = server.client();
        own.push(block_on(async {
            planned =
                metric(&client, "bantam_memory_planned_bytes{model=\"tiny\",part=\"cache\"}").await;
            metric(&client, "bantam_memory_resident_bytes{kind=\"own\"}").await
        }));
    }
    assert!(planned > 30 * MIB, "{planned} bytes are too few to be seen");
    let taken = own[0].saturating_sub(own[1]);
    assert!(taken.abs_diff(planned) < 8 * MIB, "{taken} bytes were taken of {planned} planned");
}

#[test]
fn requests_do_not_make_the_server_grow() {
    let model = format!("tiny={}", tiny_model("memory-flat", 1).display());
    let server = serve(&[&model], &["--max-num-seqs", "16"]);
    let client = server.client();
    block_on(async {
        let resident = "bantam_memory_resident_bytes{kind=\"own\"}";
        complete(&client, "tiny", "warm", 8).await;
        let before = metric(&client, resident).await;
        // Different beginnings, so that the prefix cache keeps them all: more than it has blocks.
        for n in 0..40 {
            complete(&client, "tiny", &format!("{n} and {n} and on to the end of {n}"), 900).await;
        }
        let after = metric(&client, resident).await;
        assert!(after < before + 8 * MIB, "{before} bytes became {after}");
    });
}

/// Runs a server under a limit on its address space, in KiB.
fn served_within(kibibytes: u64, model: &str, options: &str) -> Finished {
    let binary = env!("CARGO_BIN_EXE_bantam");
    let script = format!("ulimit -v {kibibytes}; exec {binary} serve {model} --port 0 {options}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null());
    shell.output().unwrap().into()
}

#[test]
fn what_the_limits_of_the_process_do_not_leave_is_refused_at_start() {
    let model = tiny_model("memory-refused", 1).display().to_string();
    let large = "--max-num-seqs 4096 --memory 6GiB";
    let refused = served_within(2 << 20, &model, large);
    let message = refused.refusal();
    assert!(message.contains("address space limit (ulimit -v)"), "{message}");
    assert!(message.contains("MiB; use a smaller --memory"), "{message}");
    // Not taken, but not to be had either: the system itself refuses.
    let lazy = served_within(2 << 20, &model, &format!("{large} --lazy-cache"));
    let message = lazy.stderr.lines().last().unwrap_or_default();
    assert!(lazy.code == Some(1) && message.contains("the system gives no"), "{}", lazy.stderr);
}
