//! Whole models through the pipeline: what is written runs, stays close to the original, and is the
//! same whether or not the run was stopped in between.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use bantam_backend::Batch;
use bantam_checkpoint::{Checkpoint, Dialect};
use bantam_model::{ArchSpec, Decoder, LoadOptions, Precision};
use bantam_optimize::{
    Calibration, GroupChoice, Job, Progress, QuantizationPlan, Recipe, Report, Stage, WeightKind,
    partial_folder,
};
use common::models::{cpu, output, sequences, tiny};

struct Run<'a> {
    checkpoint: &'a Checkpoint,
    recipe: Recipe,
    dialect: Dialect,
    folder: &'a Path,
    resume: bool,
}

impl Run<'_> {
    fn go(&self, progress: &mut dyn FnMut(Progress)) -> Result<Report, String> {
        let arch = ArchSpec::from_checkpoint(self.checkpoint).unwrap();
        let plan = QuantizationPlan::new(&self.recipe, &arch).map_err(|error| error.to_string())?;
        let sequences = sequences(arch.sizes.vocabulary, 12);
        let job = Job {
            checkpoint: self.checkpoint,
            arch: &arch,
            recipe: &self.recipe,
            plan: &plan,
            calibration: &Calibration { source: "a test".to_owned(), sequences },
            dialect: self.dialect,
            folder: self.folder,
            resume: self.resume,
            max_shard_bytes: 1 << 30,
            save_every: Duration::ZERO,
        };
        job.run(&cpu(), progress).map_err(|error| error.to_string())
    }
}

/// The logits of all tokens of a sequence that was not calibrated with.
fn logits(checkpoint: &Checkpoint, precision: Precision) -> Vec<f32> {
    let arch = ArchSpec::from_checkpoint(checkpoint).unwrap();
    let options = LoadOptions {
        precision,
        max_context: Some(64),
        max_batch_tokens: 64,
        max_logit_rows: 64,
        ..LoadOptions::default()
    };
    let mut decoder = Decoder::load(cpu(), checkpoint, &options, &|_| {}).unwrap();
    let tokens = sequences(arch.sizes.vocabulary, 20).pop().unwrap();
    let mut batch = Batch::default();
    let blocks: Vec<u32> = (0..decoder.num_blocks() as u32).collect();
    batch.push(&tokens, 0, &blocks).unwrap();
    batch.want_all_logits();
    decoder.forward(&batch).unwrap()
}

/// Root of the squared error as a share of the squared logits.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let error: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    (error / want.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

#[test]
fn every_recipe_makes_a_model_that_runs_like_the_original() {
    // Grouped and whole heads, biases of q, k and v, norms of heads.
    for name in ["llama-gqa", "qwen2", "qwen3"] {
        let checkpoint = tiny(name);
        let want = logits(&checkpoint, Precision::F32);
        let plain = |word: &str| distance(&logits(&checkpoint, word.parse().unwrap()), &want);
        let (fp8, int8, int4) = (plain("fp8"), plain("int8"), plain("int4-g16"));
        let recipes = Recipe::built_in_names().filter_map(Recipe::built_in);
        for mut recipe in recipes.filter(|recipe| recipe.auto.is_none()) {
            for rule in recipe.rules.iter_mut().filter(|r| r.weights == WeightKind::Int4) {
                rule.group = GroupChoice::Of(16);
            }
            // ModelOpt alone has INT4 weights with calibrated FP8 inputs.
            let (dialect, allowed) = match recipe.name.as_str() {
                "int8_wo" | "int8_sq" => (Dialect::CompressedTensors, 2.0 * int8),
                "fp8" | "fp8_pc_pt" | "fp8_block" => (Dialect::CompressedTensors, 1.5 * fp8),
                "w4a8_awq" => (Dialect::ModelOpt, 1.5 * int4),
                "kv_only" => (Dialect::ModelOpt, fp8),
                _ => (Dialect::CompressedTensors, 1.5 * int4),
            };
            let folder = output(&format!("{name}-{}", recipe.name));
            let run =
                Run { checkpoint: &checkpoint, recipe, dialect, folder: &folder, resume: false };
            let report = run.go(&mut |_| {}).unwrap_or_else(|error| panic!("{name}: {error}"));
            let got = logits(&Checkpoint::open(&folder).unwrap(), Precision::Bf16);
            let distance = distance(&got, &want);
            let case = format!("{name}, {}: {distance}, not {allowed}", run.recipe.name);
            assert!(distance > 0.0 && distance < allowed, "{case}");
            assert_eq!(report.kv_scales.len(), if run.recipe.kv.is_some() { 2 } else { 0 });
            assert!(!partial_folder(&folder).exists());
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}

#[test]
fn calibrated_recipes_miss_the_outputs_less_than_plain_rounding() {
    let checkpoint = tiny("llama-gqa");
    for name in ["int4_gptq", "int4_awq", "w4a8_int8"] {
        let folder = output(&format!("closer-{name}"));
        let recipe = Recipe::built_in(name).unwrap();
        let dialect = Dialect::CompressedTensors;
        let run = Run { checkpoint: &checkpoint, recipe, dialect, folder: &folder, resume: false };
        let report = run.go(&mut |_| {}).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(report.sites.len(), 8);
        for site in &report.sites {
            assert!(site.error < site.error_of_nearest, "{name}: {:?}", site.modules);
        }
    }
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let checkpoint = tiny("llama-gqa");
    let recipe = || Recipe::built_in("int4_awq").unwrap();
    let dialect = Dialect::CompressedTensors;
    let whole = output("whole");
    let run =
        Run { checkpoint: &checkpoint, recipe: recipe(), dialect, folder: &whole, resume: false };
    run.go(&mut |_| {}).unwrap();

    let stopped = output("stopped");
    let run = Run { folder: &stopped, recipe: recipe(), ..run };
    let mut blocks = Vec::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        run.go(&mut |progress| {
            blocks.push(progress.block);
            assert!(progress.block < 1 || progress.stage != Stage::Quantizing, "stop here");
        })
    }));
    assert!(result.is_err() && blocks.contains(&1));
    assert!(!stopped.exists(), "an unfinished model does not look like one");
    assert!(partial_folder(&stopped).exists());

    // Without being told to go on, and for another recipe, nothing is touched.
    let error = run.go(&mut |_| {}).unwrap_err();
    assert!(error.contains("--resume"), "{error}");
    let other = Recipe::built_in("int8_wo").unwrap();
    let other = Run { recipe: other, resume: true, ..run };
    let error = other.go(&mut |_| {}).unwrap_err();
    assert!(error.contains("another model, recipe or calibration"), "{error}");

    let run = Run { recipe: recipe(), ..other };
    let mut blocks = Vec::new();
    run.go(&mut |progress| blocks.push(progress.block)).unwrap();
    assert!(blocks.iter().all(|block| *block == 1), "{blocks:?}");
    let bits = |folder: &Path| logits(&Checkpoint::open(folder).unwrap(), Precision::Bf16);
    assert_eq!(bits(&stopped), bits(&whole));
    for folder in [&stopped, &whole] {
        let left = std::fs::read_dir(folder).unwrap().flatten();
        let left: Vec<_> = left.map(|file| file.file_name().into_string().unwrap()).collect();
        assert!(left.iter().all(|name| !name.starts_with("quantize-")), "{left:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let checkpoint = tiny("llama-gqa");
    let recipe = Recipe::built_in("int8_wo").unwrap();
    let dialect = Dialect::CompressedTensors;
    let folder = output("refused");
    let run = Run { checkpoint: &checkpoint, recipe, dialect, folder: &folder, resume: false };
    run.go(&mut |_| {}).unwrap();
    // It exists now, and what is in it is quantized already.
    let error = run.go(&mut |_| {}).unwrap_err();
    assert!(error.contains("exists"), "{error}");
    let again = output("again");
    let quantized = Checkpoint::open(&folder).unwrap();
    let run = Run { checkpoint: &quantized, folder: &again, ..run };
    let error = run.go(&mut |_| {}).unwrap_err();
    assert!(error.contains("already (compressed-tensors)"), "{error}");
    assert!(!again.exists() && !partial_folder(&again).exists());
    std::fs::remove_dir_all(&folder).unwrap();
}
