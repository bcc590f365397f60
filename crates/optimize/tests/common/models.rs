//! Miniature models, and folders to write.

use std::path::{Path, PathBuf};

use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_optimize::partial_folder;

pub(crate) const TOKENS: usize = 40;

pub(crate) fn tiny(name: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/data/tiny").join(name);
    Checkpoint::open(&folder).expect("a fixture")
}

pub(crate) fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: Some(1), isa: None }).expect("this processor")
}

/// A folder that does not exist, of this test and this run.
pub(crate) fn output(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("bantam-{}-{name}", std::process::id()));
    for folder in [&folder, &partial_folder(&folder)] {
        let _ = std::fs::remove_dir_all(folder);
    }
    folder
}

/// Sequences that repeat within the vocabulary, none like another.
pub(crate) fn sequences(vocabulary: usize, count: usize) -> Vec<Vec<u32>> {
    let token = |s: usize, t: usize| ((t * t * 7 + t * (3 + s) + 11 * s) % vocabulary) as u32;
    (0..count).map(|s| (0..TOKENS).map(|t| token(s, t)).collect()).collect()
}
