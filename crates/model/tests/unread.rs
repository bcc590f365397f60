//! Tensors that a network does not read: left out with a word where nothing is lost, else refused with
//! one.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_backend::reference::Reference;
use bantam_checkpoint::Checkpoint;
use bantam_model::{ArchSpec, Decoder, IgnoredTensors, LoadOptions, Precision};
use common::{Files, data, ids, logits_in_chunks, read_json};
use serde_json::{Value, json};

fn check(files: &Files, name: &str, allowed: &[&str]) -> Result<Vec<IgnoredTensors>, String> {
    let checkpoint = Checkpoint::open(&files.write(name)).unwrap().allow_unread(allowed);
    let arch = ArchSpec::from_checkpoint(&checkpoint).map_err(|error| error.to_string())?;
    arch.check_tensors(&checkpoint).map_err(|error| error.to_string())
}

fn with(name: &str, values: &[f32]) -> Files {
    let mut files = Files::read(&data("tiny/llama-gqa"));
    files.tensors.push((name.to_owned(), vec![values.len()], values.to_vec()));
    files
}

#[test]
fn what_changes_nothing_is_left_out_with_a_word() {
    let layer = "model.layers.0.self_attn";
    let cases: [(&str, &[f32], &str); 26] = [
        ("q_proj.bias", &[0.0; 4], "biases that are zero"),
        ("rotary_emb.inv_freq", &[1.0, 0.5], "rotary frequencies"),
        ("rotary_emb.cos_cached", &[1.0], "cached rotary tables"),
        ("masked_bias", &[-1e4], "attention masks"),
        ("kv_scale", &[0.5], "scales of a quantized cache"),
        ("attn.k_scale", &[0.5], "scales of a quantized cache"),
        ("attn.v_scale", &[0.5], "scales of a quantized cache"),
        ("k_proj.output_scale", &[0.5], "scales of a quantized cache"),
        ("v_proj.output_scale", &[0.5], "scales of a quantized cache"),
        ("kv_cache_scaling_factor", &[0.5], "scales of a quantized cache"),
        ("q_scale", &[0.5], "scales of quantized attention"),
        ("prob_scale", &[0.5], "scales of quantized attention"),
        ("prob_output_scale", &[0.5], "scales of quantized attention"),
        ("q_proj.output_scale", &[0.5], "scales of quantized attention"),
        ("o_proj.output_scale", &[0.5], "scales of outputs"),
        ("q_proj.input_scale", &[0.5], "scales of inputs"),
        ("q_proj.input_zero_point", &[0.0], "zero points that are zero"),
        ("q_proj.weight_zero_point", &[0.0], "zero points that are zero"),
        ("q_proj.weight_zero_point", &[3.0], "scales of layers that are not quantized"),
        ("q_proj.weight_scale", &[0.5], "scales of layers that are not quantized"),
        ("q_proj.weight_scale_inv", &[0.5], "scales of layers that are not quantized"),
        ("q_proj.weight_shape", &[32.0, 32.0], "shapes of packed weights"),
        ("q_proj.g_idx", &[0.0, 0.0, 1.0, 1.0], "groups of input features, in order"),
        ("q_proj.weight_g_idx", &[0.0, 1.0], "groups of input features, in order"),
        ("q_proj.weight_amax", &[1.0], "scales of layers that are not quantized"),
        ("rope.freqs", &[1.0], "rotary frequencies"),
    ];
    for (name, values, what) in cases {
        let name = format!("{layer}.{name}");
        let ignored = check(&with(&name, values), "unread_harmless", &[]).unwrap();
        let [IgnoredTensors { what: said, names }] = ignored.as_slice() else {
            panic!("{name}: {ignored:?}")
        };
        assert!(said.contains(what) && *names == [name.clone()], "{name}: {ignored:?}");
        assert!(ignored[0].to_string().contains(&name), "{}", ignored[0]);
    }
    let ignored = check(&with("mtp.layers.0.norm.weight", &[1.0]), "unread_harmless", &[]).unwrap();
    assert!(ignored[0].what.contains("predict several tokens"), "{ignored:?}");
}

#[test]
fn what_may_count_is_refused_by_its_name() {
    let layer = |name: &str| format!("model.layers.0.{name}");
    let cases = [
        (layer("self_attn.q_proj.bias"), "running without them would give wrong results"),
        (layer("self_attn.q_proj.g_idx"), "running without them would give wrong results"),
        (layer("self_attn.q_proj.pre_quant_scale"), "no configuration says how"),
        (layer("mlp.up_proj.qweight"), "no configuration says how"),
        (layer("mlp.up_proj.weight_packed"), "no configuration says how"),
        (layer("mlp.up_proj.weight.absmax"), "bitsandbytes"),
        (layer("mlp.up_proj.weight.quant_map"), "bitsandbytes"),
        (layer("mlp.up_proj.weight.quant_state.bitsandbytes__nf4"), "bitsandbytes"),
        (layer("mlp.up_proj.SCB"), "bitsandbytes"),
        (layer("mlp.up_proj.lora_A.default.weight"), "merge_and_unload()"),
        (layer("mlp.experts.3.up_proj.weight"), "mixtures of experts are not supported"),
        (layer("block_sparse_moe.gate.weight"), "mixtures of experts are not supported"),
        (layer("mlp.gate.weight"), "mixtures of experts are not supported"),
        ("model.layers.2.input_layernorm.weight".to_owned(), "beyond `num_hidden_layers`"),
        ("vision_tower.patch.weight".to_owned(), "sees images"),
        ("model.visual.patch.weight".to_owned(), "sees images"),
        ("audio_tower.conv.weight".to_owned(), "hears"),
        ("v_head.summary.weight".to_owned(), "a head for values"),
        ("score.weight".to_owned(), "a head for classes"),
        ("something.weight".to_owned(), "running without them would give wrong results"),
    ];
    for (name, words) in cases {
        // Groups that are out of order.
        let files = with(&name, &[2.0, 0.5, 1.0]);
        let message = check(&files, "unread_refused", &[]).unwrap_err();
        assert!(message.contains(&name) && message.contains(words), "{words:?}: {message}");
        assert!(message.contains(&format!("--allow-unread '{name}'")), "{message}");
        let ignored = check(&files, "unread_refused", &["nothing", &name]).unwrap();
        assert_eq!(ignored[0].what, "allowed by --allow-unread", "{name}");
    }
    let files = with("v_head.summary.weight", &[1.0]);
    assert!(check(&files, "unread_refused", &["v_head.*"]).is_ok());
    assert!(check(&files, "unread_refused", &["v_head"]).is_err());
}

/// The logits of all positions of the golden prompt.
fn logits(checkpoint: Result<Checkpoint, bantam_checkpoint::CheckpointError>) -> Vec<Vec<f32>> {
    let options = LoadOptions {
        precision: Precision::F32,
        max_batch_tokens: 64,
        max_logit_rows: 64,
        ..LoadOptions::default()
    };
    let mut decoder = Decoder::load(Reference, &checkpoint.unwrap(), &options, &|_| {}).unwrap();
    let prompt = ids(&read_json(&data("tiny/llama-gqa/golden.json"))["prompt"]);
    logits_in_chunks(&mut decoder, &prompt, &[0, 1, 2], &[prompt.len()])
}

#[test]
fn a_tied_pair_may_be_stored_under_either_name() {
    let base = data("tiny/llama-gqa");
    let expected = logits(Checkpoint::open(&base));
    let mut files = Files::read(&base);
    assert_eq!(files.config["tie_word_embeddings"], json!(true));
    files.tensor("model.embed_tokens.weight").0 = "lm_head.weight".to_owned();
    assert_eq!(logits(Checkpoint::open(&files.write("only_the_head"))), expected);

    files.config["tie_word_embeddings"] = Value::Bool(false);
    let message = check(&files, "only_an_untied_head", &[]).unwrap_err();
    assert!(message.contains("no tensor `model.embed_tokens.weight`"), "{message}");
}

#[test]
fn a_tied_head_that_differs_can_be_left_out() {
    let base = data("tiny/llama-gqa");
    let mut files = Files::read(&base);
    let (_, shape, mut values) = files.tensor("model.embed_tokens.weight").clone();
    values[5 * 32] += 1.0;
    files.tensors.push(("lm_head.weight".to_owned(), shape, values));
    let folder = files.write("a_head_that_differs");
    let load = |checkpoint: &Checkpoint| {
        Decoder::load(Reference, checkpoint, &LoadOptions::default(), &|_| {}).map(drop)
    };
    let message = load(&Checkpoint::open(&folder).unwrap()).unwrap_err().to_string();
    assert!(message.contains("--allow-unread 'lm_head.weight'"), "{message}");
    let allowed = Checkpoint::open(&folder).map(|c| c.allow_unread(&["lm_head.*"]));
    assert_eq!(logits(allowed), logits(Checkpoint::open(&base)));
}

#[test]
fn names_of_wrappers_load() {
    let base = data("tiny/llama-gqa");
    let expected = logits(Checkpoint::open(&base));
    for prefix in ["", "language_model.model.", "module.model.", "model.language_model."] {
        let mut files = Files::read(&base);
        for (name, ..) in &mut files.tensors {
            *name = name.replacen("model.", prefix, 1);
        }
        assert_eq!(logits(Checkpoint::open(&files.write("wrapped"))), expected, "{prefix:?}");
    }
}
