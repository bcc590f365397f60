//! Writing results, errors and progress.

use std::io::{self, Write};
use std::time::Duration;

use bantam_checkpoint::printable;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Whether the reader of standard output has gone away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(io_error)
}

/// A message with its line breaks as spaces and other control characters escaped: errors are one
/// line, whatever a file name holds.
pub(crate) fn one_line(message: &str) -> String {
    printable(message.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}

/// Writes text to standard output at once. Unlike `print!` this reports a reader that has gone away
/// instead of panicking.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// [`print()`] with a line break.
pub(crate) fn print_line(text: impl std::fmt::Display) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes one JSON document and a line break.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print_line(serde_json::to_string(value)?)?)
}

/// Tells people something on standard error; that nobody reads there is no error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A progress bar with the time left, on standard error; invisible unless that is a terminal.
pub(crate) fn progress_bar(steps: u64, what: &str) -> ProgressBar {
    let template = "{msg} {wide_bar} {percent:>3} %, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = ProgressBar::new(steps).with_style(style).with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Bytes in MiB, one decimal.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1u64 << 20) as f64)
}

/// Which of several forms a float is printed in: enough digits to see differences, no more.
pub(crate) fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        x if x >= 100.0 => format!("{value:.1}"),
        x if x >= 1.0 => format!("{value:.3}"),
        x if x >= 1e-4 => format!("{value:.5}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(one_line("a\n b \x1b]0;t\u{9c}"), "a b \\u{1b}]0;t\\u{9c}");
    }
}
