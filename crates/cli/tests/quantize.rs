//! `bantam quantize` beside others, on a full disk, killed, and with calibration files as people have
//! them.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::fs::{self, File};
use std::path::Path;

use common::{Finished, bantam, folder, run, tiny_checkpoint};

/// Quantizes the tiny checkpoint by rounding to nearest.
fn quantize(out: &Path, options: &[&str]) -> Finished {
    run(&[&arguments(out)[..], options].concat())
}

fn arguments(out: &Path) -> [&str; 7] {
    let model = Box::leak(tiny_checkpoint().into_boxed_path()).to_str().unwrap();
    let out = Box::leak(out.to_path_buf().into_boxed_path()).to_str().unwrap();
    ["quantize", model, "--recipe", "int8_wo", "--no-eval", "--output", out]
}

#[test]
fn a_folder_that_another_process_writes_is_left_to_it() {
    let folder = folder("quantize-busy");
    let (out, partial) = (folder.join("out"), folder.join("out.partial"));
    fs::create_dir(&partial).unwrap();
    let lock = partial.join("quantize.lock");
    fs::write(&lock, "4711").unwrap();
    let held = File::open(&lock).unwrap();
    held.lock().unwrap();
    for options in [&[][..], &["--resume"]] {
        let finished = quantize(&out, options);
        let message = finished.refusal();
        assert!(message.contains("written by a run, process 4711"), "{message}");
        assert!(message.contains("wait") && !message.contains("remove"), "{message}");
    }
    // Its process has ended.
    drop(held);
    assert!(quantize(&out, &[]).refusal().contains("add --resume"));
    let finished = quantize(&out, &["--resume"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("quantize")), "{names:?}");
    for name in ["report.json", "report.html", "config.json", "model.safetensors"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    assert!(quantize(&out, &["--resume"]).refusal().contains("exists"));
}

/// A disk that is full shows as a write that fails; here it is the largest file that a process may write.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_gets_full_leaves_nothing_that_looks_whole() {
    use std::process::{Command, Stdio};
    let folder = folder("quantize-full");
    let out = folder.join("out");
    let script = "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"";
    for blocks in ["8", "300"] {
        let mut command = Command::new("sh");
        command.args(["-c", script, blocks, env!("CARGO_BIN_EXE_bantam")]).args(arguments(&out));
        let finished = command.stdin(Stdio::null()).output().unwrap();
        let finished = Finished::from(finished);
        assert_eq!(finished.code, Some(1), "{}{}", finished.stdout, finished.stderr);
        assert!(finished.stderr.contains("File too large"), "{}", finished.stderr);
        assert!(!out.exists());
    }
    let resume: &[&str] = if folder.join("out.partial").exists() { &["--resume"] } else { &[] };
    let finished = quantize(&out, resume);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!folder.join("out.partial").exists());
}

#[test]
#[cfg(unix)]
fn a_run_that_is_interrupted_can_go_on() {
    // Wherever the signal meets it, what is there afterwards is a whole model or none.
    let folder = folder("quantize-interrupted");
    let whole = folder.join("whole");
    assert_eq!(quantize(&whole, &[]).code, Some(0));
    let weights = |out: &Path| fs::read(out.join("model.safetensors")).unwrap();
    for delay in [0, 10, 30, 60, 100, 200] {
        let out = folder.join(format!("out-{delay}"));
        let mut child = bantam(&arguments(&out)).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        let id = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        child.wait().unwrap();
        if !out.exists() {
            let partial = out.with_extension("partial");
            let resume: &[&str] = if partial.exists() { &["--resume"] } else { &[] };
            let finished = quantize(&out, resume);
            assert_eq!(finished.code, Some(0), "{delay} ms: {}", finished.stderr);
        }
        assert!(weights(&out) == weights(&whole), "{delay} ms");
    }
}

#[test]
fn calibration_files_are_read_as_people_have_them() {
    let folder = folder("quantize-calibration");
    // It has a tokenizer.
    let model = tiny_checkpoint().with_file_name("llama-gqa.gguf");
    let text =
        "the cat and the dog ran in there, and then the other one sat on the mat. ".repeat(4);
    let record = format!("{{\"text\": \"{text}\"}}");
    let files = [
        ("a.jsonl", format!("\u{feff}{record}\r\n{record}\r\n")),
        (
            "b.json",
            format!(
                "[{record}, {{\"instruction\": \"{text}\", \"input\": \"\", \"output\": \"x\"}}]"
            ),
        ),
        ("c.txt", format!("\u{feff}{text}\r\n\r\n{text}")),
    ];
    for (name, content) in files {
        let (file, out) = (folder.join(name), folder.join(format!("{name}-out")));
        fs::write(&file, content).unwrap();
        let [model, file, out] = [&model, &file, &out].map(|path| path.to_str().unwrap());
        let finished = run(&[
            "quantize",
            model,
            "--recipe",
            "int8_sq",
            "--no-eval",
            "--output",
            out,
            "--calibration",
            file,
            "--samples",
            "4",
            "--seq-len",
            "16",
        ]);
        assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
    }
    let refused = [
        (
            "d.jsonl",
            "{\"text\": \"a\"}\n{\"body\": \"b\"}\n",
            "d.jsonl, line 2: its fields are `body`",
        ),
        ("e.json", "[{\"text\": \"a\"}, {\"text\": 7}]", "e.json, element 2: `text` is a number"),
        ("f.csv", "text\na\n", "separated by commas"),
    ];
    for (name, content, expected) in refused {
        let (file, out) = (folder.join(name), folder.join(format!("{name}-out")));
        fs::write(&file, content).unwrap();
        let [model, file, out] = [&model, &file, &out].map(|path| path.to_str().unwrap());
        let finished = run(&[
            "quantize",
            model,
            "--recipe",
            "int8_sq",
            "--output",
            out,
            "--calibration",
            file,
            "--seq-len",
            "16",
        ]);
        assert!(finished.refusal().contains(expected), "{name}: {}", finished.stderr);
        assert!(!Path::new(&format!("{out}.partial")).exists());
    }
}
