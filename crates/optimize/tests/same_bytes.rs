//! What is written is a function of the input and the settings: not of when a run saved, where it was
//! stopped, or how many threads it had; and a source that changes meanwhile is an error.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bantam_checkpoint::{Checkpoint, Dialect};
use bantam_cpu::{Cpu, CpuOptions};
use bantam_model::ArchSpec;
use bantam_optimize::{
    Calibration, Job, OptimizeError, Progress, QuantizationPlan, Recipe, Report, Stage,
    partial_folder,
};
use common::models::{output, sequences, tiny};

/// One run of SmoothQuant on a tiny model, into several shards.
struct Run<'a> {
    checkpoint: &'a Checkpoint,
    folder: &'a Path,
    resume: bool,
    threads: usize,
    save_every: Duration,
}

impl Run<'_> {
    fn go(&self, progress: &mut dyn FnMut(Progress)) -> Result<Report, OptimizeError> {
        let arch = ArchSpec::from_checkpoint(self.checkpoint).unwrap();
        let recipe = Recipe::built_in("int8_sq").unwrap();
        let plan = QuantizationPlan::new(&recipe, &arch).unwrap();
        let sequences = sequences(arch.sizes.vocabulary, 6);
        let job = Job {
            checkpoint: self.checkpoint,
            arch: &arch,
            recipe: &recipe,
            plan: &plan,
            calibration: &Calibration { source: "a test".to_owned(), sequences },
            dialect: Dialect::CompressedTensors,
            folder: self.folder,
            resume: self.resume,
            max_shard_bytes: 20_000,
            save_every: self.save_every,
        };
        let options = CpuOptions { threads: Some(self.threads), isa: None };
        job.run(&Cpu::new(options).unwrap(), progress)
    }
}

/// The files of a folder, which goes, and the report without its times.
fn taken(folder: &Path, mut report: Report) -> BTreeMap<String, Vec<u8>> {
    report.seconds = 0.0;
    let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.insert("the report".to_owned(), serde_json::to_vec(&report).unwrap());
    fs::remove_dir_all(folder).unwrap();
    files
}

#[test]
fn saving_stopping_and_threads_change_no_byte() {
    const NEVER: Duration = Duration::MAX;
    let checkpoint = tiny("llama-gqa");
    let folder = output("same-bytes");
    let plain = Run {
        checkpoint: &checkpoint,
        folder: &folder,
        resume: false,
        threads: 1,
        save_every: NEVER,
    };
    let mut steps = 0;
    let report = plain.go(&mut |_| steps += 1).unwrap();
    let expected = taken(&folder, report);
    let shards = expected.keys().filter(|name| name.ends_with(".safetensors")).count();
    assert!(shards > 1 && steps > 10, "{shards} shards, {steps} steps");
    assert!(expected.contains_key("model.safetensors.index.json"));

    for (threads, save_every) in [(1, Duration::ZERO), (3, NEVER), (2, Duration::ZERO)] {
        let run = Run { threads, save_every, ..plain };
        let report = run.go(&mut |_| {}).unwrap();
        assert!(
            taken(&folder, report) == expected,
            "{threads} threads, saved every {save_every:?}"
        );
    }
    for stop in (1..steps).step_by(3) {
        let run = Run { save_every: Duration::ZERO, ..plain };
        let mut step = 0;
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            run.go(&mut |_| {
                step += 1;
                assert!(step < stop, "stop here");
            })
        }));
        assert!(stopped.is_err() && !folder.exists());
        let run = Run { resume: partial_folder(&folder).exists(), threads: 2, ..run };
        let report = run.go(&mut |_| {}).unwrap();
        assert!(taken(&folder, report) == expected, "stopped at step {stop} of {steps}");
    }
}

/// A copy of a tiny model that may be spoiled.
fn copy(name: &str) -> PathBuf {
    let folder = output(name);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(tiny("llama-gqa").path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn a_source_that_changes_is_an_error_and_leaves_no_model() {
    let truncated = |file: &File| file.set_len(2000).unwrap();
    let written_over = |mut file: &File| {
        file.write_all(&[0; 64]).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    for name in ["truncated", "written-over"] {
        let source = copy(name);
        let weights = source.join("model.safetensors");
        let checkpoint = Checkpoint::open(&source).unwrap();
        let folder = output(&format!("{name}-out"));
        let run = Run {
            checkpoint: &checkpoint,
            folder: &folder,
            resume: false,
            threads: 1,
            save_every: Duration::MAX,
        };
        let mut spoiled = false;
        let error = run.go(&mut |progress| {
            if !spoiled && progress.stage == Stage::Quantizing {
                let file = File::options().write(true).open(&weights).unwrap();
                if name == "truncated" {
                    truncated(&file);
                } else {
                    written_over(&file);
                }
                spoiled = true;
            }
        });
        let error = error.expect_err(name).to_string();
        assert!(spoiled && error.contains("written to while it was being read"), "{name}: {error}");
        assert!(error.contains("model.safetensors"), "{error}");
        assert!(!folder.exists() && !partial_folder(&folder).exists());
        fs::remove_dir_all(&source).unwrap();
    }
}

#[test]
fn a_source_that_is_replaced_by_another_file_is_read_to_its_end() {
    let source = copy("replaced");
    let weights = source.join("model.safetensors");
    let checkpoint = Checkpoint::open(&source).unwrap();
    let folder = output("replaced-out");
    let run = Run {
        checkpoint: &checkpoint,
        folder: &folder,
        resume: false,
        threads: 1,
        save_every: Duration::MAX,
    };
    let report = run
        .go(&mut |_| {
            let next = source.join("next");
            fs::write(&next, "another").unwrap();
            fs::rename(&next, &weights).unwrap();
        })
        .unwrap();
    let mut files = taken(&folder, report);
    let whole = tiny("llama-gqa");
    let run = Run { checkpoint: &whole, ..run };
    let mut expected = taken(&folder, run.go(&mut |_| {}).unwrap());
    for files in [&mut files, &mut expected] {
        files.remove("the report"); // it names the source
    }
    assert!(files == expected);
    fs::remove_dir_all(&source).unwrap();
}

#[test]
fn a_working_folder_that_is_taken_away_is_an_error() {
    let checkpoint = tiny("llama-gqa");
    let folder = output("taken-away");
    let run = Run {
        checkpoint: &checkpoint,
        folder: &folder,
        resume: false,
        threads: 1,
        save_every: Duration::ZERO,
    };
    let error = run.go(&mut |progress| {
        if progress.block == 1 {
            let _ = fs::remove_dir_all(partial_folder(&folder));
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains(".partial") && !folder.exists(), "{error}");
}
