//! The CPU back end against the suite of the seam: every instruction set that this machine has, with
//! one thread and with several.

use bantam_backend::conformance;
use bantam_cpu::{Cpu, CpuOptions, Isa};

#[test]
fn every_isa_conforms() {
    for isa in Isa::available() {
        for threads in [1, 3] {
            let options = CpuOptions { threads: Some(threads), isa: Some(isa) };
            conformance::check(&Cpu::new(options).expect("an available set"));
        }
    }
}
