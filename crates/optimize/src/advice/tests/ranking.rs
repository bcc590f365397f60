//! What is recommended, and what is left out.

use proptest::prelude::*;

use crate::KvKind;
use crate::advice::{CalibrationTime, LossBasis, LossClass};
use crate::report::{Accuracy, Report};

use super::*;

const WEIGHT_ONLY: [&str; 4] = ["int8_wo", "int4_wo", "int4_awq", "int4_gptq"];
const EIGHT_BIT_ACTIVATIONS: [&str; 4] = ["fp8", "fp8_pc_pt", "fp8_block", "int8_sq"];

/// The guide: at four requests and fewer weight-only methods are faster, from sixteen on those that
/// round activations too. (Long prompts are a large batch by themselves: so the answers are compared
/// for few requests, and the whole for many.)
#[test]
fn the_guides_rule_of_batches_follows() {
    let h100 = Device::gpu("h100").unwrap();
    for shape in [Shape::LLAMA2_7B, Shape::LLAMA3_8B, Shape::LLAMA2_70B] {
        let arch = shape.arch();
        let best = |batch, recipes: [&str; 4], speed: fn(&Candidate) -> f64| {
            let advice = ask(&arch, &h100, workload(batch, 1024, 128));
            recipes.map(|recipe| speed(of(&advice, recipe))).into_iter().fold(0.0, f64::max)
        };
        for batch in [1, 2, 4] {
            let decode = |candidate: &Candidate| candidate.speed.unwrap().decode_tokens_per_second;
            let weights = best(batch, WEIGHT_ONLY, decode);
            let both = best(batch, EIGHT_BIT_ACTIVATIONS, decode);
            assert!(weights > both, "batch {batch}: {weights:.1} {both:.1}");
        }
        for batch in [16, 32, 64] {
            let whole = |candidate: &Candidate| candidate.speed_up.unwrap();
            let weights = best(batch, WEIGHT_ONLY, whole);
            let both = best(batch, EIGHT_BIT_ACTIVATIONS, whole);
            assert!(weights < both, "batch {batch}: {weights:.2} {both:.2}");
        }
    }
}

/// The guide: FP8 first from sixteen requests on; INT4 at few.
#[test]
fn recommendations_are_the_guides() {
    let (arch, h200) = (Shape::LLAMA2_70B.arch(), Device::gpu("h200").unwrap());
    let recommended = |batch| {
        let advice = ask(&arch, &h200, workload(batch, 1024, 128));
        advice.recommended().unwrap().recipe.clone()
    };
    for batch in [1, 4] {
        let recipe = recommended(batch);
        assert!(["int4_awq", "w4a8_awq"].contains(&recipe.as_str()), "{batch}: {recipe}");
    }
    for batch in [16, 32] {
        let recipe = recommended(batch);
        assert!(recipe.starts_with("fp8"), "{batch}: {recipe}");
    }
}

/// Losses of the models that the guide measured have the guide's classes.
#[test]
fn classes_are_the_guides() {
    let (arch, h100) = (Shape::LLAMA2_70B.arch(), Device::gpu("h100").unwrap());
    let advice = ask(&arch, &h100, workload(1, 1024, 128));
    let classes = [
        ("none", LossClass::VeryLow),
        ("fp8", LossClass::VeryLow),
        ("int8_sq", LossClass::Medium),
        ("int4_wo", LossClass::High),
        ("int4_awq", LossClass::Low),
        ("int4_gptq", LossClass::Low),
        ("w4a8_awq", LossClass::Low),
        ("kv_only", LossClass::VeryLow),
    ];
    for (recipe, class) in classes {
        assert_eq!(of(&advice, recipe).loss.class, class, "{recipe}");
    }
    use CalibrationTime::{Minutes, NotNeeded, TensOfMinutes};
    let times = [
        ("fp8", Minutes),
        ("int8_sq", Minutes),
        ("int8_wo", NotNeeded),
        ("int4_wo", NotNeeded),
        ("int4_awq", TensOfMinutes),
        ("int4_gptq", TensOfMinutes),
        ("w4a8_awq", TensOfMinutes),
    ];
    for (recipe, time) in times {
        assert_eq!(of(&advice, recipe).calibration, time, "{recipe}");
    }
}

#[test]
fn formats_that_a_device_lacks_are_said() {
    let (arch, a100) = (Shape::LLAMA2_7B.arch(), Device::gpu("a100").unwrap());
    let advice = ask(&arch, &a100, workload(16, 1024, 128));
    let speed = |recipe| of(&advice, recipe).speed;
    assert!(speed("fp8").unwrap().widened && !speed("int8_sq").unwrap().widened);
    let prefill = |recipe| speed(recipe).unwrap().first_token_seconds;
    assert!(prefill("fp8") > 0.99 * prefill("none") && prefill("int8_sq") < 0.7 * prefill("none"));
    for recipe in ["w4a8_awq", "w4a8_int8"] {
        let candidate = of(&advice, recipe);
        assert!(candidate.speed.is_none() && candidate.left_out.is_some(), "{recipe}");
    }
    let cpu = cpu();
    let on_cpu = ask(&arch, &cpu, workload(1, 64, 64));
    assert!(of(&on_cpu, "w4a8_int8").speed.is_some());
    assert!(of(&on_cpu, "fp8").speed.unwrap().widened);
}

#[test]
fn what_cannot_be_used_comes_last_with_the_reason() {
    let (arch, h100) = (Shape::LLAMA2_70B.arch(), Device::gpu("h100").unwrap());
    let workload = workload(16, 1024, 128);
    let all = Question { max_loss: Some(1.0), ..question(&arch, &h100, workload) };
    let advice = advise(&all).unwrap();
    let first_out = advice.candidates.iter().position(|c| c.left_out.is_some()).unwrap();
    assert!(advice.candidates[first_out..].iter().all(|candidate| candidate.left_out.is_some()));
    let why = |recipe| of(&advice, recipe).left_out.clone().unwrap();
    assert!(why("none").contains("needs") && why("none").contains("not even"), "{}", why("none"));
    assert!(why("int4_awq").contains("loses 2.1 %"), "{}", why("int4_awq"));
    assert!(why("int4_wo").contains("--report"), "{}", why("int4_wo"));
    assert!(why("w4a8_int8").contains("INT8"), "{}", why("w4a8_int8"));
    assert_eq!(advice.recommended(), advice.candidates.first().filter(|c| c.left_out.is_none()));
}

#[test]
fn a_batch_that_fits_is_named() {
    let (arch, h100) = (Shape::LLAMA2_7B.arch(), Device::gpu("h100").unwrap());
    let why = |batch| {
        let advice = ask(&arch, &h100, workload(batch, 4000, 96));
        of(&advice, "none").left_out.clone()
    };
    let text = why(64).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let at = words.iter().position(|word| *word == "--batch").unwrap();
    let fitting: usize = words[at + 1].parse().unwrap();
    assert_eq!(why(fitting), None, "{text}");
    assert!(why(fitting + 2).is_some(), "{text}");
}

#[test]
fn a_model_too_small_for_the_device_stays_as_it_is() {
    let (arch, h200) = (Shape::SMOLLM2.arch(), Device::gpu("h200").unwrap());
    let advice = ask(&arch, &h200, workload(1, 512, 128));
    assert_eq!(advice.recommended().unwrap().recipe, "none");
    assert!(advice.reason.contains("between kernels"), "{}", advice.reason);
}

#[test]
fn on_a_cpu_weights_of_eight_bits_beat_a_high_loss() {
    let (arch, cpu) = (Shape::SMOLLM2.arch(), cpu());
    let advice = ask(&arch, &cpu, workload(1, 128, 512));
    let best = advice.recommended().unwrap();
    assert!(best.recipe.starts_with("int8"), "{}", best.recipe);
    assert_eq!(best.loss.basis, LossBasis::Smollm2);
    let bearable =
        Question { max_loss: Some(50.0), ..question(&arch, &cpu, workload(1, 128, 512)) };
    let bearable = advise(&bearable).unwrap();
    assert!(bearable.recommended().unwrap().speed_up > best.speed_up);
}

fn report(recipe: &str) -> Report {
    Report {
        recipe: recipe.to_owned(),
        model: "model".to_owned(),
        dialect: "compressed-tensors".to_owned(),
        calibration: None,
        original_bytes: 1,
        quantized_bytes: 12345,
        seconds: 7.0,
        notes: Vec::new(),
        formats: None,
        sites: Vec::new(),
        kv_scales: Vec::new(),
        accuracy: Some(Accuracy {
            text: "a text".to_owned(),
            tokens: 100,
            original_perplexity: 20.0,
            quantized_perplexity: 20.5,
            kl: 0.01,
            top1_agreement: 0.9,
        }),
    }
}

#[test]
fn measurements_replace_expectations() {
    let (arch, cpu) = (Shape::SMOLLM2.arch(), cpu());
    let recipes = ["int4_awq", "mine.toml"];
    let measured = recipes.map(|recipe| Measured {
        folder: format!("./{recipe}"),
        arch: arch.clone(),
        report: report(recipe),
    });
    let asked = Question { measured: &measured, ..question(&arch, &cpu, workload(1, 64, 64)) };
    let advice = advise(&asked).unwrap();
    for recipe in recipes {
        let same = advice.candidates.iter().filter(|candidate| candidate.recipe == recipe);
        assert_eq!(same.count(), 1, "{recipe}");
        let candidate = of(&advice, recipe);
        assert_eq!(candidate.folder, Some(format!("./{recipe}")));
        assert_eq!(candidate.memory.weights_bytes, 12345);
        assert_eq!(candidate.calibration, CalibrationTime::Measured(7.0));
        assert_eq!(
            (candidate.loss.basis, candidate.loss.class),
            (LossBasis::Measured, LossClass::Low)
        );
        assert!((candidate.loss.most().unwrap() - 2.5).abs() < 1e-9);
    }
    // Without a comparison the loss stays what is expected.
    let mut unscored = measured.clone();
    for folder in &mut unscored {
        folder.report.accuracy = None;
    }
    let advice = advise(&Question { measured: &unscored, ..asked }).unwrap();
    assert_eq!(of(&advice, "int4_awq").loss.basis, LossBasis::Smollm2);
    assert_eq!(of(&advice, "mine.toml").loss.most(), None);
}

/// The figures of SmolLM2 are those of the documentation.
#[test]
fn figures_are_the_documented_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/accuracy.md");
    let page = std::fs::read_to_string(path).unwrap();
    let table = page.split("<!-- recipes -->").nth(1).unwrap();
    let (arch, cpu) = (Shape::SMOLLM2.arch(), cpu());
    let advice = ask(&arch, &cpu, workload(1, 64, 64));
    let mut seen = 0;
    for line in table.lines().take_while(|line| *line != "<!-- end -->") {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, recipe, _, _, percent, ..] = cells[..] else { continue };
        let Ok(percent) = percent.replace('−', "-").parse::<f64>() else { continue };
        let Some(candidate) = advice.candidates.iter().find(|c| c.recipe == recipe) else {
            continue;
        };
        assert_eq!(candidate.loss.most(), Some(percent), "{recipe}: loss.rs and {path} differ");
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} rows of {path} were found");
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let (arch, h100) = (Shape::LLAMA2_7B.arch(), Device::gpu("h100").unwrap());
    let refused = |batch, input, output| {
        let workload = workload(batch, input, output);
        advise(&question(&arch, &h100, workload)).unwrap_err().to_string()
    };
    assert!(refused(0, 1, 1).contains("--batch"));
    assert!(refused(1, 0, 1).contains("--isl"));
    assert!(refused(1, 1, 0).contains("--osl"));
    let long = refused(1, 8000, 500);
    assert!(long.contains("8500") && long.contains("8192"), "{long}");
    assert!(refused(usize::MAX, 1, 1).contains("--batch"));
    assert!(refused(1, usize::MAX, 1).contains("--isl plus --osl"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// More requests take longer and more memory, and never bring fewer tokens per second.
    #[test]
    fn more_requests_bring_more(
        batch in 1usize..200, more in 1usize..100, input in 1usize..1000, output in 1usize..500,
        device in 0usize..4, kv in any::<bool>(),
    ) {
        let arch = Shape::LLAMA3_8B.arch();
        let names: Vec<_> = Device::gpu_names().collect();
        let device = names.get(device).map_or_else(cpu, |name| Device::gpu(name).unwrap());
        let kv = kv.then_some(KvKind::Int8);
        let ask = |batch| {
            let question = Question { kv, ..question(&arch, &device, workload(batch, input, output)) };
            advise(&question).unwrap()
        };
        let (few, many) = (ask(batch), ask(batch + more));
        for few in &few.candidates {
            let many = of(&many, &few.recipe);
            prop_assert!(few.memory.total() < many.memory.total());
            let (Some(few), Some(many)) = (few.speed, many.speed) else { continue };
            prop_assert!(few.first_token_seconds <= many.first_token_seconds);
            prop_assert!(few.total.total() < many.total.total());
            let least = few.decode_tokens_per_second * (1.0 - 1e-9);
            prop_assert!(many.decode_tokens_per_second >= least);
        }
    }

    /// What is recommended fits, and loses no more than was asked for; nothing usable comes after
    /// something that is not.
    #[test]
    fn recommendations_keep_their_limits(
        batch in 1usize..300, gib in 1u64..200, max_loss in 0f64..50.0, limited in any::<bool>(),
    ) {
        let arch = Shape::LLAMA3_8B.arch();
        let mut device = cpu();
        device.usable_bytes = Some(gib << 30);
        let max_loss = limited.then_some(max_loss);
        let question = Question { max_loss, ..question(&arch, &device, workload(batch, 512, 128)) };
        let advice = advise(&question).unwrap();
        let out = advice.candidates.iter().map(|candidate| candidate.left_out.is_some());
        prop_assert!(out.clone().is_sorted());
        for candidate in advice.candidates.iter().filter(|c| c.left_out.is_none()) {
            prop_assert!(candidate.memory.total() <= gib << 30);
            if let Some(max_loss) = max_loss {
                prop_assert!(candidate.loss.most().unwrap() <= max_loss);
            }
        }
    }
}
