//! The default model, fetched into the user's cache by the product's own code.

use std::time::{Duration, Instant};

use bantam_checkpoint::{Checkpoint, RowOrder, fetch};
use bantam_numerics::{BlockType, DType, Encoding};
use bantam_text::{EncodeOptions, Tokenizer, TokenizerSource};

fn open() -> Checkpoint {
    let path = fetch::resolve("smollm2", &mut |event| eprintln!("{event}")).expect("resolvable");
    Checkpoint::open(&path).expect("a sound model")
}

#[test]
fn tensors_and_configuration_are_those_of_the_model() {
    let checkpoint = open();
    assert_eq!(checkpoint.tensors().count(), 272);
    assert_eq!(checkpoint.parameters(), 134_515_008);
    let config = checkpoint.config();
    for (key, value) in [
        ("num_hidden_layers", 30),
        ("hidden_size", 576),
        ("intermediate_size", 1536),
        ("num_attention_heads", 9),
        ("num_key_value_heads", 3),
        ("head_dim", 64),
        ("max_position_embeddings", 8192),
        ("vocab_size", 49152),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["rope_theta"], 100_000.0);
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["tie_word_embeddings"], true);
    assert!(!checkpoint.has_tensor("lm_head.weight"));
    for layer in 0..30 {
        for (module, rows, cols) in [
            ("self_attn.q_proj", 576, 576),
            ("self_attn.k_proj", 192, 576),
            ("self_attn.v_proj", 192, 576),
            ("self_attn.o_proj", 576, 576),
            ("mlp.gate_proj", 1536, 576),
            ("mlp.up_proj", 1536, 576),
            ("mlp.down_proj", 576, 1536),
        ] {
            let name = format!("model.layers.{layer}.{module}.weight");
            let tensor = checkpoint.tensor(&name).expect("a linear layer");
            assert_eq!(tensor.shape, [rows, cols], "{name}");
            assert_eq!(tensor.encoding, Encoding::Block(BlockType::Q4_1));
            let heads = match module {
                "self_attn.q_proj" => Some(9),
                "self_attn.k_proj" => Some(3),
                _ => None,
            };
            let order = heads
                .map_or(RowOrder::Plain, |heads| RowOrder::RopeInterleaved { heads, head_dim: 64 });
            assert_eq!(tensor.row_order, order, "{name}");
        }
    }
}

#[test]
fn values_are_plausible_weights() {
    let checkpoint = open();
    let norm = checkpoint.tensor("model.norm.weight").expect("the last norm");
    assert_eq!(norm.encoding, Encoding::Scalar(DType::F32));
    let embedding = checkpoint.tensor("model.embed_tokens.weight").expect("the embedding");
    assert_eq!(embedding.encoding, Encoding::Block(BlockType::Q8_0));
    let mut rows = vec![0.0; 64 * embedding.cols()];
    embedding.read_rows(500..564, &mut rows).expect("64 rows");
    let variance = rows.iter().map(|x| x * x).sum::<f32>() / rows.len() as f32;
    assert!((0.01..1.0).contains(&variance.sqrt()), "standard deviation {}", variance.sqrt());
    assert!(norm.to_f32().expect("one row").iter().all(|x| x.is_finite()));
}

#[test]
fn the_vocabulary_is_complete() {
    let source = open().tokenizer_source().expect("a vocabulary");
    let TokenizerSource::Vocabulary(vocabulary) = source else { panic!("{source:?}") };
    assert_eq!((vocabulary.tokens.len(), vocabulary.merges.len()), (49152, 48900));
    assert_eq!(vocabulary.pre.as_deref(), Some("smollm"));
    assert_eq!(vocabulary.tokens[..3], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
    assert!(!vocabulary.add_bos && !vocabulary.add_space_prefix);
    assert!(vocabulary.chat_template.is_some_and(|template| template.contains("<|im_start|>")));
}

#[test]
fn opening_takes_a_moment() {
    let path = fetch::resolve("smollm2", &mut |_| ()).expect("resolvable");
    // The fastest of three: the first may wait for the disk.
    let fastest = (0..3)
        .map(|_| {
            let start = Instant::now();
            Checkpoint::open(&path).expect("a sound model");
            start.elapsed()
        })
        .min()
        .expect("three tries");
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
    eprintln!("opened in {fastest:?}");
}

#[test]
fn its_tokenizer_gives_the_ids_of_the_reference_library() {
    let tokenizer = Tokenizer::load(&open().tokenizer_source().unwrap()).unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/smollm2_tokens.json");
    let rows: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden).unwrap()).expect("the golden file is JSON");
    let rows = rows.as_array().expect("a list of texts");
    assert!(rows.len() > 20, "{} texts", rows.len());
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let options = EncodeOptions { add_special: false, parse_special: true };
        let ids = tokenizer.encode(text, options).unwrap();
        let want: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        assert_eq!(ids, want, "{text:?}");
    }
}
