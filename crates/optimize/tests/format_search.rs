//! The choice of formats: scores are those of the model that would be written, sizes hold, and a run
//! that was stopped chooses the same.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use bantam_backend::Batch;
use bantam_checkpoint::{Checkpoint, Dialect};
use bantam_model::{ArchSpec, Decoder, LoadOptions, Precision};
use bantam_numerics::Softmax;
use bantam_optimize::{
    Calibration, FormatSearch, FoundFormats, Job, Progress, QuantizationPlan, Recipe,
};
use common::models::{cpu, output, sequences, tiny};

fn recipe(bits: f64, score: &str) -> Recipe {
    let text = format!(
        "about = \"x\"\n[auto]\nbits = {bits}\ncandidates = [\"int4_gptq\", \"int8_sq\"]\n\
         group = 16\nscore = \"{score}\"\ntokens = 80"
    );
    Recipe::from_toml("mixed", &text).unwrap()
}

/// The search of a recipe over two sequences, and what is to be done with its job.
fn with_job<T>(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    folder: &Path,
    resume: bool,
    run: impl FnOnce(&FormatSearch, &Job<'_>) -> T,
) -> T {
    let arch = ArchSpec::from_checkpoint(checkpoint).unwrap();
    let search = FormatSearch::new(recipe, &arch).unwrap().unwrap();
    let plan = search.plans().next().unwrap().clone();
    let sequences = sequences(arch.sizes.vocabulary, 2);
    let job = Job {
        checkpoint,
        arch: &arch,
        recipe,
        plan: &plan,
        calibration: &Calibration { source: "a test".to_owned(), sequences },
        dialect: Dialect::CompressedTensors,
        folder,
        resume,
        max_shard_bytes: 1 << 30,
        save_every: Duration::ZERO,
    };
    run(&search, &job)
}

fn search(
    recipe: &Recipe,
    folder: &Path,
    resume: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<FoundFormats, String> {
    with_job(&tiny("llama-gqa"), recipe, folder, resume, |search, job| {
        search.run(job, &cpu(), progress).map_err(|error| error.to_string())
    })
}

/// The predictions of a sequence, `[T, V]`.
fn logits(checkpoint: &Checkpoint, precision: Precision, tokens: &[u32]) -> Vec<f32> {
    let options = LoadOptions {
        precision,
        max_context: Some(64),
        max_batch_tokens: 64,
        max_logit_rows: 64,
        ..LoadOptions::default()
    };
    let mut decoder = Decoder::load(cpu(), checkpoint, &options, &|_| {}).unwrap();
    let mut batch = Batch::default();
    let blocks: Vec<u32> = (0..decoder.num_blocks() as u32).collect();
    batch.push(tokens, 0, &blocks).unwrap();
    batch.want_all_logits();
    decoder.forward(&batch).unwrap()
}

#[test]
fn scores_are_what_one_site_alone_costs_the_model() {
    let checkpoint = tiny("llama-gqa");
    let folder = output("one-site");
    let found = search(&recipe(16.0, "kl"), &folder, false, &mut |_| {}).unwrap();
    assert_eq!(found.report.sites.len(), 8);
    // INT4 of the second block's down projection, by hand.
    let site = &found.report.sites[7];
    assert_eq!(site.modules, ["model.layers.1.mlp.down_proj"]);
    let score = site.choices[1].score;
    let rule = format!(
        "about = \"x\"\n[[rules]]\nlayers = \"{}\"\nweights = \"int4\"\ngroup = 16\nround = \"gptq\"",
        site.modules[0]
    );
    let by_hand = Recipe::from_toml("by hand", &rule).unwrap();
    with_job(&checkpoint, &recipe(16.0, "kl"), &folder, false, |_, job| {
        let plan = QuantizationPlan::new(&by_hand, job.arch).unwrap();
        let job = Job { plan: &plan, recipe: &by_hand, ..*job };
        job.run(&cpu(), &mut |_| {}).unwrap();
        FormatSearch::forget(&job).unwrap();
    });
    let quantized = Checkpoint::open(&folder).unwrap();
    let vocabulary = ArchSpec::from_checkpoint(&checkpoint).unwrap().sizes.vocabulary;
    let (mut kl, mut tokens) = (0.0, 0);
    for sequence in sequences(vocabulary, 2) {
        let want = logits(&checkpoint, Precision::F32, &sequence);
        let got = logits(&quantized, Precision::F32, &sequence);
        for (p, q) in want.chunks_exact(vocabulary).zip(got.chunks_exact(vocabulary)) {
            kl += Softmax::new(p).unwrap().divergence(&Softmax::new(q).unwrap()).0;
            tokens += 1;
        }
    }
    let want = kl / f64::from(tokens);
    assert!(want > 0.0 && (score - want).abs() < 0.1 * want, "{score} {want}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_size_holds_and_the_rules_are_what_was_chosen() {
    let arch = ArchSpec::from_checkpoint(&tiny("llama-gqa")).unwrap();
    for score in ["kl", "sensitivity"] {
        let mut before = f64::INFINITY;
        for bits in [7.0, 9.0, 16.0] {
            let folder = output(&format!("size-{score}-{bits}"));
            let found = search(&recipe(bits, score), &folder, false, &mut |_| {}).unwrap();
            let report = &found.report;
            assert!(report.bits <= bits, "{} of {bits}", report.bits);
            let total: f64 = report.sites.iter().map(|s| s.choices[s.chosen].score).sum();
            assert!(total <= before, "{score}, {bits}: {total} after {before}");
            before = total;
            for site in &report.sites {
                let taken = &site.choices[site.chosen];
                for module in &site.modules {
                    let rule = found.recipe.rule_for(module);
                    assert_eq!(rule.is_some(), taken.recipe.is_some(), "{module}");
                }
            }
            if bits < 16.0 {
                // What users keep reads as a recipe that does the same.
                let again = Recipe::from_toml("mixed", &found.recipe.to_toml()).unwrap();
                let plan = QuantizationPlan::new(&again, &arch).unwrap();
                let schemes = plan.blocks.iter().flatten();
                for (treatment, site) in schemes.zip(&report.sites) {
                    let scheme = treatment.map_or("16 bits".to_owned(), |t| t.scheme.to_string());
                    assert_eq!(scheme, site.choices[site.chosen].scheme, "{:?}", site.modules);
                }
            } else {
                assert_eq!(before, 0.0, "16 bits for everything are the best");
            }
            with_job(&tiny("llama-gqa"), &recipe(bits, score), &folder, false, |_, job| {
                FormatSearch::forget(job).unwrap();
            });
        }
    }
    let error = search(&recipe(3.0, "sensitivity"), &output("few"), false, &mut |_| {});
    let error = error.unwrap_err();
    assert!(error.contains("3.000 bits a weight are too few"), "{error}");
}

#[test]
fn a_stopped_search_goes_on_and_chooses_the_same() {
    let (whole, stopped) = (output("search-whole"), output("search-stopped"));
    let auto = recipe(6.5, "kl");
    let want = search(&auto, &whole, false, &mut |_| {}).unwrap().recipe;
    let result = catch_unwind(AssertUnwindSafe(|| {
        search(&auto, &stopped, false, &mut |progress| assert!(progress.block < 1, "stop here"))
    }));
    assert!(result.is_err());
    let other = recipe(6.5, "sensitivity");
    let error = search(&other, &stopped, true, &mut |_| {}).unwrap_err();
    assert!(error.contains("another model, recipe or calibration"), "{error}");
    // Another size needs no new scores.
    let found = search(&auto, &stopped, true, &mut |_| {}).unwrap();
    assert_eq!(found.recipe, want);
    for folder in [&whole, &stopped] {
        with_job(&tiny("llama-gqa"), &auto, folder, false, |_, job| {
            FormatSearch::forget(job).unwrap();
        });
    }
}
