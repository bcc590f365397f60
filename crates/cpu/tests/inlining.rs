//! Kernels are inlined whole into the one function that enables their instructions.
//!
//! An intrinsic can only be inlined where its instructions are enabled. So whatever code below that
//! function stays a function of its own (a closure that is called twice is enough) has to call the
//! intrinsics, and its inner loops run thirty times slower, with the right results. The program's
//! symbols tell this exactly, on a busy machine too, where a measured time would not.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use bantam_backend::conformance;
use bantam_cpu::Cpu;
use bantam_numerics::ActivationFormat;

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// The names in the symbol table of an ELF-64 file; none where it is stripped.
fn symbols(elf: &[u8]) -> Vec<String> {
    const SYMBOL_TABLE: usize = 2;
    let (headers, header, count) = (number(elf, 40, 8), number(elf, 58, 2), number(elf, 60, 2));
    let section = |index: usize| &elf[headers + index * header..][..header];
    let Some(table) = (0..count).map(section).find(|s| number(s, 4, 4) == SYMBOL_TABLE) else {
        return Vec::new();
    };
    let names = section(number(table, 40, 4));
    let names = &elf[number(names, 24, 8)..][..number(names, 32, 8)];
    names.split(|&byte| byte == 0).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn no_intrinsic_is_called() {
    // What these call is linked: all kernels.
    std::hint::black_box(conformance::check::<Cpu> as fn(&Cpu));
    std::hint::black_box(bantam_cpu::ceilings::peak_ops as fn(&Cpu, ActivationFormat) -> f64);
    let program = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
    let symbols = symbols(&program);
    if symbols.is_empty() && !cfg!(debug_assertions) {
        return; // A release build, stripped.
    }
    let kernels = symbols.iter().filter(|name| name.contains("avx512") && name.contains("3run"));
    assert!(kernels.count() > 10, "no kernels among {} symbols", symbols.len());
    // Debug assertions check the pointers of a load: too much to inline, and no loss of ours.
    let load = |name: &str| cfg!(debug_assertions) && name.contains("loadu");
    let intrinsic =
        |name: &&String| name.contains("core_arch") && name.contains("_mm") && !load(name);
    let called: Vec<_> = symbols.iter().filter(intrinsic).collect();
    assert!(called.is_empty(), "called instead of inlined: {called:#?}");
}
