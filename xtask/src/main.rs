//! Checks of the house that no compiler makes: `cargo xtask check`.
//!
//! They also run as tests of this crate, so `cargo test` fails where they do.

mod house;

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => match house::check() {
            Ok(()) => {
                println!("layers, file sizes and unsafe code are in order");
                ExitCode::SUCCESS
            }
            Err(faults) => {
                eprintln!("{faults}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo xtask check    layers, file sizes, unsafe code");
            ExitCode::from(2)
        }
    }
}
