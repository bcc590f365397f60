//! Checks of the house that no compiler makes: `cargo xtask check`.
//!
//! They also run as tests of this crate, so `cargo test` fails where they do.

mod house;
#[cfg(feature = "proto")]
mod proto;

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
        #[cfg(feature = "proto")]
        Some("proto") => match proto::write() {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("{fault}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo xtask check    layers, file sizes, unsafe code");
            eprintln!("       cargo xtask-proto    the code of the gRPC protocol, after a change");
            ExitCode::from(2)
        }
    }
}
