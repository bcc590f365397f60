//! A `bantam serve` of a tiny model, for tests of the real binary.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its own part; helpers are tests too

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bantam_eval::load::{Client, EventStream};
use serde_json::{Value, json};

use super::common::{bantam, folder};

/// Time after which a test gives up waiting, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Tokens of the tokenizer that goes with the tiny model.
const VOCAB: usize = 833;
/// The longest sequence of the tiny model.
pub(crate) const CONTEXT: usize = 2048;
const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 128;
const HEAD: usize = 16;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const LAYERS: usize = 2;

/// A random Llama with the byte-level tokenizer of the text crate's tests, in a folder called `name`.
/// Equal seeds make equal models.
pub(crate) fn tiny_model(name: &str, seed: u32) -> PathBuf {
    let folder = folder(name);
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/data/byte_level");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizer.join(file), folder.join(file)).unwrap();
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("model.safetensors"), weights(seed)).unwrap();
    folder
}

/// All tensors in the safetensors format.
fn weights(seed: u32) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let parts: [(&str, &[usize]); 9] = [
            ("input_layernorm", &[HIDDEN]),
            ("self_attn.q_proj", &[HEADS * HEAD, HIDDEN]),
            ("self_attn.k_proj", &[KV_HEADS * HEAD, HIDDEN]),
            ("self_attn.v_proj", &[KV_HEADS * HEAD, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HEADS * HEAD]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("mlp.gate_proj", &[FEED_FORWARD, HIDDEN]),
            ("mlp.up_proj", &[FEED_FORWARD, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, FEED_FORWARD]),
        ];
        for (part, shape) in parts {
            tensors.push((format!("model.layers.{layer}.{part}.weight"), shape.to_vec()));
        }
    }
    let mut random = seed;
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, shape) in tensors {
        let begin = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            // A linear congruential generator: its upper bits are random enough.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (random >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
            let value = if shape.len() == 1 { 1.0 + 0.2 * uniform } else { 0.6 * uniform };
            data.extend(value.to_le_bytes());
        }
        let offsets = [begin, data.len()];
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [length.as_slice(), header.as_bytes(), &data].concat()
}

/// A running server; dropping it kills it.
pub(crate) struct Served {
    child: Child,
    pub(crate) url: String,
    /// What it wrote to standard error.
    said: Arc<Mutex<String>>,
}

/// Starts a server of these models with these options, on a port that is free unless they say.
pub(crate) fn serve(models: &[&str], options: &[&str]) -> Served {
    let port: &[&str] = if options.contains(&"--port") { &[] } else { &["--port", "0"] };
    let mut child = bantam(&[&["serve"], models, port, options].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = Arc::new(Mutex::new(String::new()));
    let url = loop {
        let Some(line) = lines.next() else {
            panic!("it ended with {:?}: {}", child.wait(), said.lock().unwrap())
        };
        let line = line.unwrap();
        *said.lock().unwrap() += &format!("{line}\n");
        if let Some((_, address)) = line.split_once("listening at ") {
            break address.trim().to_owned();
        }
    };
    let more = Arc::clone(&said);
    // Reads on, for a full pipe would stop the server.
    std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| *more.lock().unwrap() += &format!("{line}\n"));
    });
    Served { child, url, said }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }

    /// Waits for its end; the exit code, and the time that it took.
    pub(crate) fn end(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), begun.elapsed());
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends a signal such as `-TERM`.
pub(crate) fn send_signal(process: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Runs one client's part of a test.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = async { tokio::time::timeout(PATIENCE, work).await };
    runtime.block_on(work).expect("the test takes too long")
}

/// Posts JSON; the status and the JSON of the answer.
pub(crate) async fn post(client: &Client, path: &str, body: &Value) -> (u16, Value) {
    let answer = client.post(path, body.to_string()).await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The likeliest text of so many tokens after a prompt.
pub(crate) async fn complete(client: &Client, model: &str, prompt: &str, tokens: usize) -> String {
    let body = json!({
        "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true,
    });
    let (status, answer) = post(client, "/v1/completions", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], tokens);
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// A stream of `n` answers that takes a while, of which some events have come.
pub(crate) async fn long_stream(client: &Client, prompt: &str, n: usize) -> EventStream {
    let body = json!({
        "model": "tiny", "prompt": prompt, "n": n, "max_tokens": CONTEXT - 100,
        "ignore_eos": true, "stream": true,
    });
    let mut events = client.post_stream("/v1/completions", body.to_string()).await.unwrap();
    for _ in 0..3 * n {
        events.next().await.unwrap().unwrap();
    }
    events
}

/// The data of the events that are left, and whether the connection broke.
pub(crate) async fn rest(mut events: EventStream) -> (Vec<String>, bool) {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => all.push(event.data),
            Err(_) => return (all, true),
        }
    }
    (all, false)
}

/// A number of `/metrics`: the sample that begins with these words.
pub(crate) async fn metric(client: &Client, sample: &str) -> u64 {
    let page = client.get("/metrics").await.unwrap().bytes().await.unwrap();
    let page = String::from_utf8(page).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {page}")).parse().unwrap()
}

/// Waits until a sample of `/metrics` has this value.
pub(crate) async fn wait_for(client: &Client, sample: &str, value: u64) {
    let begun = Instant::now();
    loop {
        let found = metric(client, sample).await;
        if found == value {
            return;
        }
        assert!(begun.elapsed() < PATIENCE / 2, "{sample} is {found}, expected {value}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
