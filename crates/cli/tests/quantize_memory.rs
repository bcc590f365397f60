//! The memory that `bantam quantize` states before it starts is the memory that it takes: one block's,
//! however many there are.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Finished, bantam, folder};
use serde_json::{Map, Value, json};

const MIB: u64 = 1 << 20;
const VOCABULARY: usize = 512;

/// The sizes of a Llama of heads of 64.
struct Sizes {
    hidden: usize,
    inner: usize,
    blocks: usize,
}

impl Sizes {
    /// Weights of all blocks.
    fn weights(&self) -> u64 {
        (self.blocks * (4 * self.hidden * self.hidden + 3 * self.hidden * self.inner)) as u64
    }

    /// Writes a checkpoint of random bf16 weights, the same in every block, with a tokenizer.
    fn write(&self, folder: &Path) {
        let (hidden, inner) = (self.hidden, self.inner);
        let config = json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16",
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": self.blocks,
            "num_attention_heads": hidden / 64, "num_key_value_heads": hidden / 64,
            "vocab_size": VOCABULARY, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
            "rope_theta": 1e4, "tie_word_embeddings": true, "hidden_act": "silu",
        });
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
        let mut tensors = vec![
            ("model.embed_tokens".to_owned(), VOCABULARY, hidden),
            ("model.norm".to_owned(), 0, hidden),
        ];
        for block in 0..self.blocks {
            let parts = [
                ("input_layernorm", 0, hidden),
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", hidden, hidden),
                ("self_attn.v_proj", hidden, hidden),
                ("self_attn.o_proj", hidden, hidden),
                ("post_attention_layernorm", 0, hidden),
                ("mlp.gate_proj", inner, hidden),
                ("mlp.up_proj", inner, hidden),
                ("mlp.down_proj", hidden, inner),
            ];
            let named = |(name, n, k)| (format!("model.layers.{block}.{name}"), n, k);
            tensors.extend(parts.map(named));
        }
        let (mut header, mut end) = (Map::new(), 0);
        for (name, n, k) in &tensors {
            let shape = if *n == 0 { json!([k]) } else { json!([n, k]) };
            let start = end;
            end += 2 * (*n).max(1) * k;
            let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
            header.insert(format!("{name}.weight"), entry);
        }
        let header = Value::Object(header).to_string();
        let noise = noise(hidden * inner.max(VOCABULARY));
        let ones = 0x3f80u16.to_le_bytes().repeat(hidden);
        let mut file = fs::File::create(folder.join("model.safetensors")).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        for (_, n, k) in &tensors {
            file.write_all(if *n == 0 { &ones } else { &noise[..2 * n * k] }).unwrap();
        }
    }
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

/// Words `0`, `1`, … between spaces.
fn tokenizer() -> Value {
    let words = (0..VOCABULARY).map(|id| (id.to_string(), json!(id)));
    json!({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words.collect::<Map<_, _>>(), "unk_token": "0"},
    })
}

/// A text of so many tokens.
fn text(path: &Path, tokens: usize) {
    let mut text = String::new();
    for at in 0..tokens {
        write!(text, "{} ", at * at * 7 % VOCABULARY).unwrap();
    }
    fs::write(path, text).unwrap();
}

/// Runs to the end, and returns with what it left the most memory that it had for itself: what is
/// mapped from files is not counted.
fn run_watched(arguments: &[&str]) -> (Finished, u64) {
    let child = bantam(arguments).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        // The status of a process that ended no longer speaks of memory.
        while let Some(now) = private_bytes(&status) {
            most = now.max(most);
            std::thread::sleep(Duration::from_millis(1));
        }
        most
    });
    let finished = child.wait_with_output().unwrap().into();
    (finished, watch.join().unwrap())
}

fn private_bytes(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().unwrap())
}

/// Quantizes a model and holds what was taken against what was stated.
fn check(recipe: &str, sizes: &Sizes, calibrated: bool) {
    let folder = folder(&format!("memory-{recipe}"));
    let (model, out) = (folder.join("model"), folder.join("out"));
    fs::create_dir(&model).unwrap();
    sizes.write(&model);
    let sample = folder.join("sample.txt");
    text(&sample, 4 * 128 + 1);
    let paths = [&model, &out, &sample].map(|path| path.to_str().unwrap());
    let mut arguments = vec!["quantize", paths[0], "--recipe", recipe, "--output", paths[1]];
    arguments.extend(["--no-eval", "--threads", "2"]);
    if calibrated {
        arguments.extend(["--calibration", paths[2], "--samples", "4", "--seq-len", "128"]);
    }
    let (finished, taken) = run_watched(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let stated = finished.stderr.lines().find_map(|line| line.split_once("takes up to "));
    let stated = stated.unwrap_or_else(|| panic!("{}", finished.stderr)).1;
    let stated = stated.split_once(" MiB").unwrap().0.parse::<f64>().unwrap() as u64 * MIB;
    println!("{recipe}: {} MiB taken, {} stated", taken / MIB, stated / MIB);
    // A run that kept its blocks would be found out.
    assert!(4 * sizes.weights() > stated, "the model is too small: {stated}");
    assert!(taken <= stated, "{recipe}: {taken} bytes taken, {stated} stated");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_run_takes_no_more_memory_than_it_states() {
    let sizes = Sizes { hidden: 512, inner: 2048, blocks: 48 };
    check("int8_wo", &sizes, false);
}

#[test]
fn a_calibrated_run_takes_no_more_memory_than_it_states() {
    let sizes = Sizes { hidden: 512, inner: 1536, blocks: 24 };
    for recipe in ["int4_awq", "int4_gptq", "int8_sq", "fp8"] {
        check(recipe, &sizes, true);
    }
}
