//! What is written can be read: here, and by the reference implementation of safetensors.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bantam_checkpoint::write::{LayerScheme, OwnedTensor, is_in_configuration, write_companions};
use bantam_checkpoint::{Checkpoint, Dialect, ShardWriter};
use bantam_numerics::DType;
use proptest::prelude::*;
use safetensors::SafeTensors;
use support::{Folder, Gguf, Tensor, Value};

/// Types of one, two, four and eight bytes.
const DTYPES: [DType; 4] = [DType::U8, DType::BF16, DType::F32, DType::I64];

/// Tensors of all sorts of sizes, whose bytes are their number.
fn tensors() -> impl Strategy<Value = Vec<OwnedTensor>> {
    let tensor = (0usize..4, prop::collection::vec(0usize..5, 0..4));
    prop::collection::vec(tensor, 1..30).prop_map(|tensors| {
        let of = |(number, (dtype, shape)): (usize, (usize, Vec<usize>))| {
            let dtype = DTYPES[dtype];
            let bytes = vec![number as u8; shape.iter().product::<usize>() * dtype.bytes()];
            OwnedTensor { name: format!("model.layers.{number}.w"), dtype, shape, bytes }
        };
        tensors.into_iter().enumerate().map(of).collect()
    })
}

/// The files of a folder by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("readable"))
    });
    files.collect()
}

fn out_path(folder: &Folder) -> PathBuf {
    folder.path().join("out")
}

proptest! {
    // Each case writes files through to the disk.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read_again(
        tensors in tensors(),
        max_shard_bytes in 1u64..200,
        (cut, lost, finished) in (0usize..30, 0usize..30, any::<bool>()),
    ) {
        let plain = Folder::new();
        let plain_out = out_path(&plain);
        let mut writer = ShardWriter::create(&plain_out, max_shard_bytes).expect("a new folder");
        tensors.iter().for_each(|tensor| writer.push_owned(tensor).expect("a sound tensor"));
        writer.finish().expect("finished");

        let folder = Folder::new();
        let out = out_path(&folder);
        let mut writer = ShardWriter::create(&out, max_shard_bytes).expect("a new folder");
        for (number, tensor) in tensors.iter().enumerate() {
            if number == cut {
                // Killed later: what was saved stays, the rest is written again.
                let saved = writer.save().expect("saved");
                for tensor in tensors[cut..].iter().take(lost) {
                    writer.push_owned(tensor).expect("a sound tensor");
                }
                if finished && tensors.len() > cut + lost {
                    writer.finish().expect("finished");
                } else {
                    drop(writer);
                }
                let text = serde_json::to_string(&saved).expect("JSON");
                let saved = serde_json::from_str(&text).expect("JSON of our own");
                writer = ShardWriter::resume(&out, max_shard_bytes, &saved).expect("unfinished");
                let held = tensors.iter().filter(|tensor| writer.holds(&tensor.name)).count();
                prop_assert_eq!(held, cut);
            }
            writer.push_owned(tensor).expect("a sound tensor");
        }
        prop_assert!(Checkpoint::open(&out).is_err(), "an unfinished folder is no model");
        let config = out.join("config.json");
        std::fs::write(config, "{}").expect("writable");
        let total = writer.finish().expect("finished");
        let checkpoint = Checkpoint::open(&out).expect("a model");
        prop_assert_eq!(checkpoint.total_bytes(), total);
        prop_assert_eq!(checkpoint.tensors().count(), tensors.len());
        for tensor in &tensors {
            let read = checkpoint.tensor(&tensor.name).expect("written");
            prop_assert_eq!(read.shape, &tensor.shape[..]);
            prop_assert_eq!(&read.read_stored().expect("as opened"), &tensor.bytes);
        }
        // Neither a kill nor where it was changes a byte.
        let mut files = contents(&out);
        files.remove("config.json");
        prop_assert_eq!(files, contents(&plain_out));
        for entry in std::fs::read_dir(&out).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                let bytes = std::fs::read(&path).expect("a shard");
                let shard = SafeTensors::deserialize(&bytes).expect("the reference reads it");
                prop_assert!(bytes.len() as u64 > 0 && !shard.names().is_empty());
                for (name, view) in shard.tensors() {
                    let offset = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
                    let size = tensors.iter().find(|t| t.name == name).expect("one of them");
                    prop_assert!(offset.is_multiple_of(size.dtype.bytes()), "{name} at {offset}");
                }
            }
        }
    }
}

#[test]
fn bad_writes_are_refused() {
    let folder = Folder::new();
    let out = out_path(&folder);
    let mut writer = ShardWriter::create(&out, 1 << 20).expect("a new folder");
    writer.push("a", DType::F32, &[1], &[0; 4]).expect("sound");
    let error = ShardWriter::create(&out, 1 << 20).expect_err("in use").to_string();
    assert!(error.contains("exists; choose another output folder"), "{error}");
    let error = writer.push("a", DType::F32, &[1], &[0; 4]).expect_err("twice").to_string();
    assert!(error.contains("tensor `a`: written before"), "{error}");
    let error = writer.push("b", DType::F32, &[2], &[0; 4]).expect_err("too short").to_string();
    assert!(error.contains("4 bytes to write, [2] of f32 takes 8"), "{error}");
    writer.finish().expect("one tensor");
    let error = ShardWriter::create(&out, 1 << 20).expect_err("finished").to_string();
    assert!(error.contains("exists"), "{error}");
    let empty = ShardWriter::create(&folder.path().join("empty"), 1).expect("a new folder");
    assert!(empty.finish().is_err());
}

#[test]
fn companions_of_a_folder_are_copied() {
    let folder = Folder::new();
    folder.write("config.json", r#"{"model_type": "llama", "quantization_config": {"a": 1}}"#);
    folder.write("model.safetensors", support::safetensors("{}", &[]));
    folder.write("tokenizer.json", "{}");
    folder.write("quantize_config.json", "{}");
    folder.write("chat_template.jinja", "hello");
    let source = folder.open().expect("a sound folder");
    let out = out_path(&folder);
    std::fs::create_dir(&out).expect("writable");
    let files = Dialect::ModelOpt.files(&[], &["lm_head".to_owned()], None).expect("no layers");
    write_companions(&source, &out, Some(&files)).expect("copied");
    let mut names: Vec<_> = std::fs::read_dir(&out)
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    let expected = ["chat_template.jinja", "config.json", "hf_quant_config.json", "tokenizer.json"];
    assert_eq!(names, expected);
    let config = std::fs::read(out.join("config.json")).expect("written");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["quantization_config"]["ignore"][0], "lm_head");
}

#[test]
fn companions_of_a_gguf_file_are_made() {
    let folder = Folder::new();
    let path = folder.write("tiny.gguf", Gguf::tiny("llama").bytes());
    let source = Checkpoint::open(&path).expect("a sound file");
    let out = out_path(&folder);
    let mut writer = ShardWriter::create(&out, 1 << 20).expect("a new folder");
    for tensor in source.tensors() {
        writer.copy(&tensor).expect("copied");
    }
    write_companions(&source, &out, None).expect("made");
    writer.finish().expect("finished");
    let copy = Checkpoint::open(&out).expect("a model");
    assert_eq!(copy.config()["model_type"], source.config()["model_type"]);
    for tensor in source.tensors() {
        let values = copy.tensor(tensor.name).expect("copied").to_f32().expect("decoded");
        assert_eq!(values, tensor.to_f32().expect("decoded"), "{}", tensor.name);
    }
    let tokenizers = [&source, &copy].map(|checkpoint| {
        let source = checkpoint.tokenizer_source().expect("a tokenizer");
        bantam_text::Tokenizer::load(&source).expect("a tokenizer")
    });
    let ids = tokenizers.each_ref().map(|t| t.encode("abba", Default::default()).expect("ids"));
    assert_eq!(ids[0], ids[1]);
    assert_eq!(tokenizers[0].bos(), tokenizers[1].bos());
}

/// The `rope_scaling` that is written for a GGUF file with these divisors.
fn written_rope(file: Gguf, divisors: &[f32]) -> Result<serde_json::Value, String> {
    let folder = Folder::new();
    let count = divisors.len() as u64;
    let tensor = Tensor::f32("rope_freqs.weight", &[count], divisors.iter().copied());
    let path = folder.write("tiny.gguf", file.with(tensor).bytes());
    let source = Checkpoint::open(&path).expect("a sound file");
    assert!(is_in_configuration("rope_freqs.weight"));
    let out = out_path(&folder);
    std::fs::create_dir(&out).expect("writable");
    write_companions(&source, &out, None).map_err(|error| error.to_string())?;
    let config = std::fs::read(out.join("config.json")).expect("written");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    Ok(config["rope_scaling"].clone())
}

/// Equal, numbers but for rounding.
fn alike(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    match (a.as_f64(), b.as_f64(), a.as_array(), b.as_array(), a.as_object(), b.as_object()) {
        (Some(a), Some(b), ..) => (a / b - 1.0).abs() < 1e-5,
        (_, _, Some(a), Some(b), ..) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (.., Some(a), Some(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn frequency_divisors_become_a_rule_that_others_compute() {
    // The rows hold what transformers computes from the configuration; crates/model holds that
    // against the divisors.
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/data/rope.json");
    let rows = std::fs::read(golden).expect("beside the other golden data");
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows).expect("JSON");
    let file = || {
        Gguf::tiny("llama")
            .set("llama.context_length", Value::U32(128))
            .set("llama.rope.freq_base", Value::F32(10_000.0))
            .set("llama.attention.key_length", Value::U32(16))
            .set("llama.attention.value_length", Value::U32(16))
            .set("llama.attention.head_count", Value::U32(1))
            .without_layers()
    };
    let linear = || {
        file()
            .set("llama.rope.scaling.type", Value::Text("linear"))
            .set("llama.rope.scaling.factor", Value::F32(2.0))
    };
    let mut compared = 0;
    for row in rows.iter().filter(|row| !row["divisors"].is_null()) {
        let divisors: Vec<f32> = serde_json::from_value(row["divisors"].clone()).expect("numbers");
        let with_linear = row["name"] == "written longrope with linear";
        let file = if with_linear { linear() } else { file() };
        let written = written_rope(file, &divisors).expect("written");
        let expected = &row["config"]["rope_scaling"];
        assert!(alike(&written, expected), "{}: {written}, expected {expected}", row["name"]);
        compared += 1;
    }
    assert_eq!(compared, 3);
    assert_eq!(written_rope(file(), &[1.0; 8]).expect("none"), serde_json::Value::Null);
    let yarn = file()
        .set("llama.rope.scaling.type", Value::Text("yarn"))
        .set("llama.rope.scaling.factor", Value::F32(2.0));
    let message = written_rope(yarn, &[2.0; 8]).expect_err("two rules");
    assert!(message.contains("stands beside a rule of its own"), "{message}");
    let message = written_rope(file(), &[0.0; 8]).expect_err("no divisor");
    assert!(message.contains("numbers that are not positive"), "{message}");
}

#[test]
fn layer_schemes_say_what_they_cannot_hold() {
    use bantam_numerics::{ActivationFormat, QuantScheme};
    let layer = |scheme, static_input, channel_factors| LayerScheme {
        module: "mlp.up_proj".to_owned(),
        scheme,
        static_input,
        channel_factors,
    };
    let (ct, modelopt) = (Dialect::CompressedTensors, Dialect::ModelOpt);
    let asymmetric = QuantScheme::int4(64, false);
    assert!(ct.check(&layer(asymmetric, false, false)).is_ok());
    let error = modelopt.check(&layer(asymmetric, false, false)).expect_err("offsets").to_string();
    assert!(error.starts_with("mlp.up_proj: modelopt checkpoints cannot hold int4-g64; use"));
    let awq = layer(QuantScheme::int4(64, true), false, true);
    assert!(modelopt.check(&awq).is_ok());
    let error = ct.check(&awq).expect_err("factors").to_string();
    assert!(error.contains("int4-g64-sym and factors on the channels"), "{error}");
    let dynamic = layer(QuantScheme::INT8.with(ActivationFormat::Int8), false, false);
    assert!(ct.check(&dynamic).is_ok());
    let error = modelopt.check(&dynamic).expect_err("dynamic").to_string();
    assert!(error.contains("int8/int8 with a scale for each token"), "{error}");
}
