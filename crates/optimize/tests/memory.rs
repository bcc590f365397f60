//! The memory and the disk that a run states are what it takes: one block's memory, however many there
//! are. The one test of this file has the process for itself.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bantam_checkpoint::write::write_json;
use bantam_checkpoint::{Checkpoint, Dialect, ShardWriter};
use bantam_cpu::{Cpu, CpuOptions};
use bantam_model::ArchSpec;
use bantam_numerics::DType;
use bantam_optimize::{Calibration, Job, QuantizationPlan, Recipe};
use serde_json::json;

const MIB: u64 = 1 << 20;
const HIDDEN: usize = 256;
const INNER: usize = 1024;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("bantam-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// Writes a Llama of random bf16 weights, the same in every block.
fn write_model(folder: &Path, blocks: usize) {
    let config = json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": blocks, "num_attention_heads": HIDDEN / 64,
        "num_key_value_heads": HIDDEN / 64, "vocab_size": 512, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    let arch = ArchSpec::from_config(&config).unwrap();
    let noise = noise(HIDDEN * INNER);
    let mut writer = ShardWriter::create(folder, 1 << 40).unwrap();
    for tensor in arch.needed_tensors() {
        let bytes = 2 * tensor.shape.iter().product::<usize>();
        writer.push(&tensor.name, DType::BF16, &tensor.shape, &noise[..bytes]).unwrap();
    }
    write_json(&folder.join("config.json"), &config).unwrap();
    writer.finish().unwrap();
}

/// So many bf16 numbers of either sign from 1/128 to 1/16, by xorshift.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let number = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bits = (state >> 40) as u16;
        ((0x3c00 + bits % 0x180) | (bits & 0x8000)).to_le_bytes()
    };
    (0..count).flat_map(number).collect()
}

/// Memory that the process has for itself: what is mapped from files is not counted.
fn private_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
}

/// Does the work, and returns the most memory that the process had meanwhile.
fn watched(work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = private_bytes().max(most);
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

/// Bytes of the files of a run, those of one that is not finished included.
fn written_bytes(out: &Path) -> u64 {
    let name = out.file_name().unwrap().to_string_lossy().into_owned();
    let beside = fs::read_dir(out.parent().unwrap()).unwrap().flatten();
    let own = beside.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
    let files = own.flat_map(|entry| match fs::read_dir(entry.path()) {
        Ok(inside) => inside.flatten().collect(),
        Err(_) => vec![entry],
    });
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[test]
fn a_run_takes_no_more_memory_and_disk_than_it_states() {
    let cpu = Cpu::new(CpuOptions { threads: Some(1), isa: None }).unwrap();
    let recipes =
        [("int8_wo", 64), ("fp8", 26), ("int8_sq", 30), ("int4_awq", 32), ("int4_gptq", 40)];
    for (name, blocks) in recipes {
        let (model, out) = (folder("memory-model"), folder("memory-out"));
        write_model(&model, blocks);
        let checkpoint = Checkpoint::open(&model).unwrap();
        let arch = ArchSpec::from_checkpoint(&checkpoint).unwrap();
        let recipe = Recipe::built_in(name).unwrap();
        let plan = QuantizationPlan::new(&recipe, &arch).unwrap();
        let sequences = (0..4).map(|s| (0..64).map(|t| (t * t * 7 + s * 13) % 512).collect());
        let job = Job {
            checkpoint: &checkpoint,
            arch: &arch,
            recipe: &recipe,
            plan: &plan,
            calibration: &Calibration { source: name.to_owned(), sequences: sequences.collect() },
            dialect: Dialect::CompressedTensors,
            folder: &out,
            resume: false,
            max_shard_bytes: 1 << 40,
            save_every: Duration::ZERO,
        };
        let stated = job.peak_bytes();
        let mut written = 0;
        let taken = watched(|| {
            drop(job.run(&cpu, &mut |_| written = written_bytes(&out).max(written)).unwrap());
        });
        let (written, room) = (written.max(written_bytes(&out)), job.disk_bytes(256));
        let all = 4 * (blocks * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER)) as u64;
        println!("{name}: {} MiB taken, {} stated", taken / MIB, stated / MIB);
        // A run that kept its blocks would be found out.
        assert!(
            all > stated,
            "{name}: the model is too small for {stated} bytes to mean something"
        );
        assert!(taken <= stated, "{name}: {taken} bytes taken, {stated} stated");
        // Sixteen MiB are for configuration and reports, which are small here; some for headers.
        assert!(written <= room, "{name}: {written} bytes written, {room} stated");
        assert!(room - written <= 20 * MIB, "{name}: {room} bytes stated, {written} written");
        fs::remove_dir_all(&model).unwrap();
        fs::remove_dir_all(&out).unwrap();
    }
}
