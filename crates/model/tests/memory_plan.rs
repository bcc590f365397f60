//! The plan is what is really held, and what it says can be read.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_backend::reference::Reference;
use bantam_backend::{Backend, KvFormat};
use bantam_model::{CacheSize, LoadOptions, OptionNames, Precision};
use common::{data, load};

#[test]
fn planned_bytes_are_held_bytes() {
    let words = ["f32", "bf16", "int8", "int4", "int4-g4", "fp8-wo", "fp8", "w8a8", "w4a8-sym"];
    let precisions = words.map(|word| word.parse::<Precision>().unwrap());
    for name in ["llama-attention-bias", "llama-odd-dimensions", "qwen2", "qwen3", "mistral"] {
        for precision in precisions {
            let kv_format = (precision == Precision::Int8).then_some(KvFormat::F32);
            let options =
                LoadOptions { precision, max_sequences: 3, kv_format, ..Default::default() };
            let decoder = load(Reference, &data(&format!("tiny/{name}")), &options).unwrap();
            let plan = decoder.plan();
            assert_eq!(plan.weights_bytes, decoder.weight_bytes(), "{name} {precision}");
            assert_eq!(plan.kv_bytes, decoder.kv_layout().bytes() as u64, "{name} {precision}");
            let context = decoder.arch().sizes.max_positions;
            assert_eq!(plan.num_blocks, 3 * context.div_ceil(Reference.block_tokens()));
            let want = match (precision, kv_format) {
                (_, Some(format)) => format,
                (Precision::F32, None) => KvFormat::F32,
                _ => KvFormat::BF16,
            };
            assert_eq!(decoder.kv_layout().format, want, "{name} {precision}");
        }
    }
}

#[test]
fn a_budget_of_the_total_is_enough_and_one_byte_less_is_not() {
    let path = data("tiny/llama-gqa");
    let names = OptionNames { step_tokens: Some("--step-tokens"), ..Default::default() };
    let mut options = LoadOptions { max_sequences: 4, names, ..Default::default() };
    let total = load(Reference, &path, &options).unwrap().plan().total();
    options.memory_budget = Some(total);
    assert!(load(Reference, &path, &options).is_ok());
    options.memory_budget = Some(total - 1);
    let message = load(Reference, &path, &options).err().unwrap().to_string();
    // Every way out that the message names must work, and one more than it must not.
    let number_after = |flag: &str| -> usize {
        let rest = message.split(flag).nth(1).unwrap_or_else(|| panic!("no {flag} in {message}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    type Set = fn(&mut LoadOptions, usize);
    let ways: [(&str, Set); 3] = [
        ("--context ", |options, value| {
            options.max_context = Some(value);
        }),
        ("--batch ", |options, value| {
            options.max_sequences = value;
        }),
        ("--step-tokens ", |options, value| {
            options.max_batch_tokens = value;
        }),
    ];
    for (flag, set) in ways {
        for (more, fits) in [(0, true), (1, false)] {
            let mut changed = options.clone();
            set(&mut changed, number_after(flag) + more);
            assert_eq!(
                load(Reference, &path, &changed).is_ok(),
                fits,
                "{flag} + {more}: {message}"
            );
        }
    }
}

#[test]
fn a_batch_beyond_the_machine_is_refused_with_one_that_fits() {
    // As `bench` makes its options from --batch: nothing is allocated, in no time.
    let path = data("tiny/llama-gqa");
    let with_batch = |batch: usize| LoadOptions {
        max_sequences: batch,
        max_batch_tokens: batch.max(LoadOptions::default().max_batch_tokens),
        max_logit_rows: batch,
        memory_budget: Some(64 << 20),
        ..Default::default()
    };
    let message = load(Reference, &path, &with_batch(1_000_000)).err().unwrap().to_string();
    assert!(message.contains("of a step needs") && !message.contains("--max"), "{message}");
    let number: usize = message
        .split("--batch ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(load(Reference, &path, &with_batch(number)).is_ok(), "{message}");
    assert!(load(Reference, &path, &with_batch(number + 1)).is_err(), "{message}");
}

#[test]
fn options_that_fit_only_together_are_named_together() {
    let path = data("tiny/llama-gqa");
    let number_after = |message: &str, flag: &str| -> usize {
        let rest = message.split(flag).nth(1).unwrap_or_else(|| panic!("no {flag} in {message}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let smallest = LoadOptions { max_context: Some(20), ..Default::default() };
    let budget = load(Reference, &path, &smallest).unwrap().plan().total();
    let options = LoadOptions {
        max_sequences: 1000,
        max_batch_tokens: 1000,
        max_logit_rows: 1000,
        memory_budget: Some(budget),
        ..Default::default()
    };
    let message = load(Reference, &path, &options).err().unwrap().to_string();
    assert!(message.contains("--dtype bf16 with --batch 1 and --context"), "{message}");
    let together = |context| LoadOptions {
        max_context: Some(context),
        memory_budget: Some(budget),
        ..Default::default()
    };
    let context = number_after(&message, "--context ");
    assert!(load(Reference, &path, &together(context)).is_ok(), "{message}");
    assert!(load(Reference, &path, &together(context + 1)).is_err(), "{message}");
}

#[test]
fn a_cache_that_takes_what_is_left_holds_one_sequence_at_least_and_all_at_most() {
    let path = data("tiny/llama-gqa");
    let names = OptionNames { memory: Some("--memory"), ..Default::default() };
    let options = |memory_budget| LoadOptions {
        max_sequences: 8,
        cache: CacheSize::Budget,
        memory_budget: Some(memory_budget),
        names,
        ..Default::default()
    };
    let one = LoadOptions { max_sequences: 1, ..Default::default() };
    let one = load(Reference, &path, &one).unwrap().plan().clone();
    let all = load(Reference, &path, &options(u64::MAX)).unwrap().plan().clone();
    assert_eq!(all.num_blocks, 8 * one.num_blocks);
    let block_bytes = all.kv_bytes / all.num_blocks as u64;
    for blocks in [one.num_blocks, one.num_blocks + 1, all.num_blocks - 1] {
        let budget = one.total() + (blocks - one.num_blocks) as u64 * block_bytes;
        for spare in [0, block_bytes - 1] {
            let decoder = load(Reference, &path, &options(budget + spare)).unwrap();
            assert_eq!((decoder.plan().num_blocks, decoder.num_blocks()), (blocks, blocks));
            assert!(decoder.plan().total() <= budget + spare);
        }
    }
    let message = load(Reference, &path, &options(one.total() - 1)).err().unwrap().to_string();
    assert!(message.contains("the KV cache needs") && !message.contains("--batch"), "{message}");
    let mebibytes = message.split("--memory ").nth(1).unwrap().split("MiB").next().unwrap();
    let enough = mebibytes.parse::<u64>().unwrap() << 20;
    assert!(load(Reference, &path, &options(enough)).is_ok(), "{message}");
}

#[test]
fn one_loading_thread_is_the_calling_one() {
    use std::collections::HashSet;
    use std::sync::Mutex;
    let checkpoint = bantam_checkpoint::Checkpoint::open(&data("tiny/llama-gqa")).unwrap();
    let options = LoadOptions { load_threads: Some(1), ..Default::default() };
    let threads = Mutex::new(HashSet::new());
    bantam_model::Decoder::load(Reference, &checkpoint, &options, &|_| {
        threads.lock().unwrap().insert(std::thread::current().id());
    })
    .unwrap();
    assert_eq!(threads.into_inner().unwrap(), HashSet::from([std::thread::current().id()]));
}

#[test]
fn the_table_lines_up_and_adds_up() {
    let options = LoadOptions { precision: Precision::INT4, ..Default::default() };
    let decoder = load(Reference, &data("tiny/llama-odd-dimensions"), &options).unwrap();
    let table = decoder.plan().to_string();
    // K = 36 and 52 fit no group size: all layers are INT8, and the plan says so.
    assert!(table.lines().next().unwrap().ends_with("9 × int8"), "{table}");
    let units: Vec<usize> = table.lines().map(|line| line.find("iB").unwrap()).collect();
    assert!(units.iter().all(|&at| at == units[0]), "{table}");
    assert!(table.lines().last().unwrap().starts_with("total"), "{table}");
}

#[test]
fn progress_reaches_the_total() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let checkpoint = bantam_checkpoint::Checkpoint::open(&data("tiny/llama-gqa")).unwrap();
    let (highest, calls) = (AtomicU64::new(0), AtomicU64::new(0));
    let options = LoadOptions::default();
    let decoder = bantam_model::Decoder::load(Reference, &checkpoint, &options, &|progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        highest.fetch_max(progress.done_bytes, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(highest.into_inner(), decoder.plan().weights_bytes);
    assert_eq!(calls.into_inner(), 1 + 2 * 6 + 1); // embedding, layers, last norm
}
