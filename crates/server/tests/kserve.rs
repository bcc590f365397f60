//! The KServe v2 protocol over a real socket: every route, tensors as JSON and as bytes, streams that
//! say what whole answers say.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bantam_engine::HandleOptions;
use bantam_server::{Server, ServerOptions, Stop};
use common::{Fault, Toy, quiet, served};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task;

/// A server that listens.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<Stop>,
    state: bantam_server::AppState,
}

/// What came back.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    /// The events of a stream.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let text = str::from_utf8(&self.body).unwrap();
        let event = |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap());
        text.split_terminator("\n\n").map(|text| event(text).unwrap()).collect()
    }
}

impl Running {
    async fn new() -> Self {
        Self::with(quiet(), Toy::new(common::limits())).await
    }

    async fn with(options: ServerOptions, toy: Toy) -> Self {
        let server =
            Server::bind(options, vec![served(toy, HandleOptions::default())]).await.unwrap();
        let (stop, stopped) = watch::channel(Stop::No);
        let running = Self { address: server.address(), stop, state: Arc::clone(server.state()) };
        tokio::spawn(server.run(stopped));
        running
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {length}\r\n{headers}\r\n"
        );
        let (address, request) = (self.address, [head.as_bytes(), body].concat());
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&request).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        };
        let bytes = task::spawn_blocking(exchange).await.unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().replace("\r\n", "\n");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = &bytes[end + 4..];
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { dechunked(body) } else { body.to_vec() };
        Reply { status, head, body }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", b"").await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        let json = "content-type: application/json\r\n";
        self.send("POST", path, json, body.to_string().as_bytes()).await
    }

    /// Posts and expects success.
    async fn ok(&self, path: &str, body: Value) -> Value {
        let reply = self.post(path, body).await;
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }

    /// Posts and expects a refusal: its status and text.
    async fn refused(&self, path: &str, body: Value) -> (u16, String) {
        let reply = self.post(path, body).await;
        let json = reply.json();
        assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
        (reply.status, json["error"].as_str().unwrap().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
    }
}

fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 4 + size..];
    }
}

/// Texts as a tensor's bytes.
fn packed(texts: &[&str]) -> Vec<u8> {
    let pack = |text: &&str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    texts.iter().flat_map(pack).collect()
}

fn unpacked(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        bytes = rest;
    }
    texts
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap();
    outputs.iter().find(|output| output["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_models_are_described() {
    let server = Running::new().await;
    let about = server.get("/v2").await.json();
    assert_eq!(about["name"], "bantam");
    assert!(about["extensions"].as_array().unwrap().contains(&"binary_tensor_data".into()));
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    for prefix in ["/v2/models/tiny", "/v2/models/tiny/versions/1"] {
        let model = server.get(prefix).await.json();
        let tensor = |tensors: &Value, name: &str| {
            let all = tensors.as_array().unwrap();
            all.iter().find(|tensor| tensor["name"] == name).unwrap().clone()
        };
        assert_eq!((&model["name"], &model["versions"]), (&json!("tiny"), &json!(["1"])));
        let text = json!({ "name": "text_input", "datatype": "BYTES", "shape": [-1] });
        assert_eq!(tensor(&model["inputs"], "text_input"), text);
        assert_eq!(tensor(&model["inputs"], "temperature")["datatype"], "FP32");
        let text = json!({ "name": "text_output", "datatype": "BYTES", "shape": [-1] });
        assert_eq!(tensor(&model["outputs"], "text_output"), text);
        let config = server.get(&format!("{prefix}/config")).await.json();
        assert_eq!(config["model_transaction_policy"]["decoupled"], true);
        assert_eq!(tensor(&config["input"], "text_input")["data_type"], "TYPE_STRING");
        assert_eq!(tensor(&config["input"], "text_input")["optional"], false);
        let ready = server.get(&format!("{prefix}/ready")).await;
        assert_eq!(ready.json(), json!({ "name": "tiny", "ready": true }));
    }
    let index = json!([{ "name": "tiny", "version": "1", "state": "READY", "reason": "" }]);
    assert_eq!(server.post("/v2/repository/index", json!({})).await.json(), index);
    assert_eq!(server.ok("/v2/repository/index", json!({ "ready": true })).await, index);
    let (status, error) = server.refused("/v2/repository/models/tiny/load", json!({})).await;
    assert_eq!((status, error.contains("when the server starts")), (400, true));
    let missing = server.get("/v2/models/tiny/versions/2").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].as_str().unwrap().contains("version 1 only"));
    assert_eq!(server.get("/v2/models/huge/ready").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_not_ready() {
    let server = Running::new().await;
    server.state.drain();
    assert_eq!(server.get("/v2/health/live").await.status, 200);
    for path in ["/v2/health/ready", "/v2/models/tiny/ready"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 503);
        assert!(reply.json()["error"].as_str().unwrap().contains("tiny is not ready"));
    }
    let index = server.ok("/v2/repository/index", json!({})).await;
    assert_eq!(index[0]["state"], "UNAVAILABLE");
    assert_eq!(server.ok("/v2/repository/index", json!({ "ready": true })).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_as_json_and_as_bytes_say_the_same() {
    let server = Running::new().await;
    let completion = json!({ "model": "tiny", "prompt": "Hello", "max_tokens": 9, "seed": 7 });
    let json = "content-type: application/json\r\n";
    let completion = completion.to_string().into_bytes();
    let completion = server.send("POST", "/v1/completions", json, &completion).await.json();
    let expected = format!("Hello{}", completion["choices"][0]["text"].as_str().unwrap());

    let infer = "/v2/models/tiny/infer";
    let answer = server.ok(
        infer,
        json!({
            "id": "a-7",
            "inputs": [
                { "name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hello"] },
                { "name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [[9]] },
                { "name": "seed", "shape": [1], "datatype": "UINT64", "data": [7] },
            ],
        }),
    );
    let answer = answer.await;
    let said = json!({
        "id": "a-7", "model_name": "tiny", "model_version": "1",
        "outputs": [
            { "name": "text_output", "datatype": "BYTES", "shape": [1], "data": [expected] },
        ],
    });
    assert_eq!(answer, said);

    // As tritonclient sends it: everything as bytes, and everything as bytes back.
    let text = packed(&["Hello"]);
    let head = json!({
        "id": "b",
        "inputs": [
            { "name": "text_input", "shape": [1], "datatype": "BYTES",
              "parameters": { "binary_data_size": text.len() } },
            { "name": "max_tokens", "shape": [1], "datatype": "INT32",
              "parameters": { "binary_data_size": 4 } },
        ],
        "parameters": { "binary_data_output": true, "seed": 7, "return_num_output_tokens": true },
    });
    let head = head.to_string().into_bytes();
    let headers = format!("inference-header-content-length: {}\r\n", head.len());
    let body = [&head[..], &text, &9i32.to_le_bytes()].concat();
    let reply = server.send("POST", infer, &headers, &body).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let length = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, bytes) = reply.body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["id"], "b");
    let size = output(&json, "text_output")["parameters"]["binary_data_size"].as_u64().unwrap();
    let (text, count) = bytes.split_at(size as usize);
    assert_eq!(unpacked(text), [expected]);
    assert_eq!(output(&json, "num_output_tokens")["datatype"], "UINT32");
    assert_eq!(count, 9u32.to_le_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_come_in_batches_and_outputs_as_asked() {
    let server = Running::new().await;
    let ask = |prompts: Value, shape: Value| {
        json!({
            "inputs": [
                { "name": "text_input", "shape": shape, "datatype": "BYTES", "data": prompts },
                { "name": "exclude_input_in_output", "shape": [1], "datatype": "BOOL", "data": [true] },
                { "name": "sampling_parameters", "shape": [1], "datatype": "BYTES",
                  "data": ["{\"max_tokens\": \"5\", \"temperature\": \"0\", \"ignore_eos\": true}"] },
            ],
        })
    };
    let mut alone = Vec::new();
    for prompt in ["One", "Two"] {
        let answer = server.ok("/v2/models/tiny/infer", ask(json!([prompt]), json!([1]))).await;
        alone.push(output(&answer, "text_output")["data"][0].clone());
    }
    assert_ne!(alone[0], alone[1]);
    let mut both = ask(json!([["One"], ["Two"]]), json!([2, 1]));
    both["parameters"] = json!({ "n": 2, "logprobs": 1 });
    let names = [
        "text_output",
        "finish_reason",
        "num_input_tokens",
        "output_log_probs",
        "logprobs",
        "cumulative_logprob",
    ];
    let outputs: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    both["outputs"] = outputs.into();
    both["outputs"][1]["parameters"] = json!({ "binary_data": false, "classification": 0 });
    let answer = server.ok("/v2/models/tiny/infer", both).await;
    let said: Vec<&Value> =
        answer["outputs"].as_array().unwrap().iter().map(|output| &output["name"]).collect();
    assert_eq!(said, names);
    let text = output(&answer, "text_output");
    assert_eq!(text["shape"], json!([2, 2]));
    assert_eq!(text["data"], json!([alone[0], alone[0], alone[1], alone[1]]));
    assert_eq!(output(&answer, "finish_reason")["data"], json!(vec!["length"; 4]));
    let logprobs = output(&answer, "output_log_probs");
    assert_eq!(logprobs["shape"], json!([2, 2, 5]));
    let floats = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let sum: f64 = floats(&logprobs["data"])[..5].iter().sum();
    let total = floats(&output(&answer, "cumulative_logprob")["data"])[0];
    assert!((sum - total).abs() < 1e-3 && total < 0.0, "{sum} {total}");
    let tokens: Value =
        serde_json::from_str(output(&answer, "logprobs")["data"][0].as_str().unwrap()).unwrap();
    assert_eq!(tokens.as_array().unwrap().len(), 5);
    // The most probable token was chosen.
    assert!(tokens[0].as_object().unwrap().values().all(|token| token["rank"] == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_streams_say_what_whole_answers_say() {
    let server = Running::new().await;
    for (more, echo) in [
        (json!({ "temperature": 0 }), false),
        (json!({ "seed": 3, "parameters": { "stop_words": ["e"], "top_k": 40 } }), true),
        (json!({ "seed": 5, "return_log_probs": true, "end_id": 70 }), false),
    ] {
        let mut body = json!({
            "id": "x", "text_input": "A tale", "max_tokens": 40, "bad_words": "",
            "exclude_input_in_output": !echo,
            "return_num_output_tokens": true, "return_finish_reason": true,
            "return_cumulative_logprob": true,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = server.ok("/v2/models/tiny/generate", body.clone()).await;
        let reply = server.post("/v2/models/tiny/versions/1/generate_stream", body.clone()).await;
        let events = reply.events();
        let texts = events.iter().map(|event| event["text_output"].as_str().unwrap());
        assert_eq!(texts.collect::<String>(), whole["text_output"]);
        assert_eq!(whole["text_output"].as_str().unwrap().starts_with("A tale"), echo);
        let tokens: u64 =
            events.iter().map(|event| event["num_output_tokens"].as_u64().unwrap()).sum();
        assert_eq!(tokens, whole["num_output_tokens"]);
        let last = events.last().unwrap();
        for name in ["finish_reason", "cumulative_logprob", "id", "model_name", "model_version"] {
            assert_eq!(last[name], whole[name], "{name}");
        }
        assert!(events.len() > 2 || whole["num_output_tokens"].as_u64().unwrap() < 4);
        body["stream"] = false.into();
        let single = server.post("/v2/models/tiny/generate_stream", body).await;
        assert_eq!(single.events(), [whole]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_and_beams_work_here_too() {
    let server = Running::new().await;
    let guided = json!({
        "text_input": "Say", "exclude_input_in_output": true, "max_tokens": 30,
        "guided_decoding_guide_type": "regex", "guided_decoding_guide": "[0-9]{3}",
    });
    let answer = server.ok("/v2/models/tiny/generate", guided).await;
    let text = answer["text_output"].as_str().unwrap();
    assert!(text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    let beams = json!({
        "text_input": "Say", "beam_width": 3, "max_tokens": 4, "ignore_eos": true,
        "return_cumulative_logprob": true,
    });
    let answer = server.ok("/v2/models/tiny/generate", beams).await;
    assert_eq!(answer["text_output"].as_array().unwrap().len(), 3);
    let logprobs = answer["cumulative_logprob"].as_array().unwrap();
    let logprobs: Vec<f64> = logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).collect();
    assert!(logprobs.is_sorted_by(|a, b| a >= b) && logprobs[0] < 0.0, "{logprobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_honoured_is_refused() {
    let server = Running::new().await;
    let cases = [
        (json!({ "text_input": "a", "stream": true }), "ask /generate_stream"),
        (json!({ "text_input": "a", "stop_words": vec!["x"; 17] }), "stop_words: stop has 17"),
        (json!({ "text_input": "a", "runtime_top_p": 2 }), "top_p"),
        (json!({ "text_input": "a", "logprobs": 2 }), "no output shows any"),
        (json!({ "text_input": "a", "max_tokens": -1 }), "max_tokens is -1"),
        (json!({ "text_input": "a", "end_id": -2 }), "end_id is -2"),
        (json!({ "text_input": "a", "tempature": 0 }), "nearest known one is temperature"),
        (json!({ "text_input": "a", "parameters": 1 }), "parameters is not an object"),
        (json!({ "text_input": "a", "beam_width": 2, "return_logprobs": true }), "beam search"),
        (json!({ "max_tokens": 1 }), "text_input is missing"),
        (json!([1]), "not a JSON object"),
    ];
    for (body, expected) in cases {
        let (status, error) = server.refused("/v2/models/tiny/generate", body.clone()).await;
        assert_eq!(status, 400, "{body}");
        assert!(error.contains(expected), "{error}");
    }
    let several = json!({ "text_input": ["a", "b"] });
    let (_, error) = server.refused("/v2/models/tiny/generate_stream", several).await;
    assert!(error.contains("a stream has one answer"), "{error}");

    let text = |data: Value| json!({ "name": "text_input", "shape": [1], "datatype": "BYTES", "data": data });
    let with = |field: &str, value: Value| {
        let mut tensor = text(json!(["a"]));
        tensor[field] = value;
        json!({ "inputs": [tensor] })
    };
    let cases = [
        (with("shape", json!([2])), "[2] but 1 elements"),
        (with("shape", json!([-1])), "sizes of 0 or more"),
        (with("datatype", json!("TEXT")), "datatype \"TEXT\""),
        (with("data", json!([7])), "not BYTES"),
        (with("data", json!(null)), "no data"),
        (with("parameters", json!({ "binary_data_size": 3 })), "data twice"),
        (with("parameters", json!({ "shared_memory_region": "x" })), "shared_memory_region"),
        (json!({ "inputs": [text(json!(["a"]))], "outputs": [{ "name": "x" }] }), "no output x"),
        (json!({ "inputs": [text(json!(["a"]))], "model_name": "b" }), "model_name is not"),
        (json!({ "inputs": [text(json!(["a"]))], "parameters": { "sequence_id": 3 } }), "no state"),
        (json!({ "inputs": [text(json!(["a"])), text(json!(["b"]))] }), "text_input is set twice"),
        (json!({ "inputs": [] }), "text_input is missing"),
        (json!({}), "missing field `inputs`"),
    ];
    for (body, expected) in cases {
        let (status, error) = server.refused("/v2/models/tiny/infer", body.clone()).await;
        assert_eq!(status, 400, "{body}");
        assert!(error.contains(expected), "{error} does not contain {expected}");
    }
    let infer = "/v2/models/tiny/infer";
    let body = br#"{"inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}abc"#;
    for (headers, expected) in [
        ("inference-header-content-length: 1000\r\n".to_owned(), "but the body"),
        ("inference-header-content-length: x\r\n".to_owned(), "expected bytes of JSON"),
        (format!("inference-header-content-length: {}\r\n", body.len() - 3), "but 3 bytes left"),
        ("content-encoding: gzip\r\n".to_owned(), "do not compress"),
    ] {
        let reply = server.send("POST", infer, &headers, body).await;
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(matches!(reply.status, 400 | 415) && error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_what_was_done() {
    let server = Running::new().await;
    for _ in 0..3 {
        let body = json!({ "text_input": "a", "max_tokens": 2, "ignore_eos": true });
        server.ok("/v2/models/tiny/generate", body).await;
    }
    for path in ["/v2/models/stats", "/v2/models/tiny/stats", "/v2/models/tiny/versions/1/stats"] {
        let stats = server.get(path).await.json()["model_stats"][0].clone();
        assert_eq!(stats["inference_count"], 3);
        assert_eq!(stats["inference_stats"]["success"]["count"], 3);
        assert_eq!(stats["inference_stats"]["queue"]["count"], 3);
        assert!(stats["execution_count"].as_u64().unwrap() >= 6);
        assert!(stats["inference_stats"]["success"]["ns"].as_u64().unwrap() > 0);
        assert!(stats["last_inference"].as_u64().unwrap() > 1_700_000_000_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_guard_all_but_health() {
    let options = ServerOptions { api_keys: vec!["secret".to_owned()], ..quiet() };
    let server = Running::with(options, Toy::new(common::limits())).await;
    assert_eq!(server.get("/v2/health/ready").await.status, 200);
    for path in ["/v2", "/v2/models/tiny", "/v2/models/tiny/ready"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 401, "{path}");
        assert!(reply.json()["error"].as_str().unwrap().contains("API key"));
        let reply = server.send("GET", path, "authorization: Bearer secret\r\n", b"").await;
        assert_eq!(reply.status, 200, "{path}");
    }
    let (status, _) =
        server.refused("/v2/models/tiny/generate", json!({ "text_input": "a" })).await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_a_stream_is_its_last_event() {
    let toy = Toy::failing(|step| (step == 4).then_some(Fault::Error));
    let server = Running::with(quiet(), toy).await;
    let body = json!({ "text_input": "a", "max_tokens": 20, "ignore_eos": true });
    let reply = server.post("/v2/models/tiny/generate_stream", body).await;
    let events = reply.events();
    let last = events.last().unwrap();
    assert!(last["error"].as_str().unwrap().contains("injected"), "{last}");
    assert!(events[..events.len() - 1].iter().all(|event| event["text_output"].is_string()));
}
