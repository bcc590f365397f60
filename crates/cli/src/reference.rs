//! Keeps `docs/reference/cli.md` equal to what the program says about itself.

use std::fmt::Write;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::Cli;

/// The reference page: the help of every command.
fn page() -> String {
    let mut page = String::from(
        "# Command line\n\n\
         Made from the program's own help by `UPDATE_DOCS=1 cargo test -p bantam-cli --bin bantam`.\n",
    );
    let mut command = Cli::command().term_width(100);
    command.build();
    describe(&command, &mut page);
    page
}

fn describe(command: &clap::Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let help = command.clone().render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end())
        .expect("a string takes any text");
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .for_each(|sub| describe(sub, page));
}

#[test]
fn the_reference_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/reference/cli.md is out of date; UPDATE_DOCS=1 cargo test -p bantam-cli --bin bantam"
    );
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}
