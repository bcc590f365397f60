//! A server over a model without weights, and a client inside the process.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses its own part

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use bantam_backend::Batch;
use bantam_engine::{EngineHandle, Executor, HandleOptions, Limits, Metrics};
use bantam_model::ModelError;
use bantam_server::{AppState, LogTarget, ServedModel, ServerOptions, ServerState, router};
use bantam_text::{EncodeOptions, Tokenizer, TokenizerSource};
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt;

pub const VOCAB: usize = 833;

/// Time after which something hangs.
pub const LONG: Duration = Duration::from_secs(20);

pub fn limits() -> Limits {
    Limits {
        vocab_size: VOCAB,
        context: 2048,
        max_batch_tokens: 64,
        max_sequences: 8,
        max_logit_rows: 8,
        num_blocks: 256,
        block_tokens: 8,
    }
}

/// The byte-level tokenizer of the text crate's tests: its tokens end in the middle of characters.
pub fn tokenizer() -> Arc<Tokenizer> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../text/tests/data/byte_level");
    Arc::new(Tokenizer::load(&TokenizerSource::Folder(folder)).unwrap())
}

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error,
    Panic,
    Nan,
}

/// What the model says.
pub enum Mind {
    /// Something that depends on every token before.
    Hash,
    /// These tokens, after the last beginning of an assistant's turn.
    Script(Vec<u32>),
}

/// Keeps tokens in the slots of its cache, and makes logits from those of a sequence.
pub struct Toy {
    pub limits: Limits,
    slots: Vec<u32>,
    mind: Mind,
    /// `<|im_start|>assistant\n`.
    turn: Vec<u32>,
    num_steps: usize,
    /// Called before each step with its number.
    pub before: Box<dyn FnMut(usize) -> Option<Fault> + Send>,
}

impl Toy {
    pub fn new(limits: Limits) -> Self {
        let options = EncodeOptions { add_special: false, parse_special: true };
        Self {
            limits,
            slots: vec![0; limits.num_blocks * limits.block_tokens],
            mind: Mind::Hash,
            turn: tokenizer().encode("<|im_start|>assistant\n", options).unwrap(),
            num_steps: 0,
            before: Box::new(|_| None),
        }
    }

    /// Says `text` and ends its turn.
    pub fn saying(text: &str) -> Self {
        let options = EncodeOptions { add_special: false, parse_special: true };
        let script = tokenizer().encode(&format!("{text}<|im_end|>"), options).unwrap();
        Self { mind: Mind::Script(script), ..Self::new(limits()) }
    }

    pub fn failing(before: impl FnMut(usize) -> Option<Fault> + Send + 'static) -> Self {
        Self { before: Box::new(before), ..Self::new(limits()) }
    }

    fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        match &self.mind {
            Mind::Hash => {
                let hash = tokens.iter().fold(7, |hash, &token| mix(hash, u64::from(token) + 1));
                let logit = |token| (mix(hash, token) >> 40) as f32 / (1u64 << 24) as f32 * 12.0;
                (0..VOCAB as u64).map(logit).collect()
            }
            Mind::Script(script) => {
                let turn = tokens.windows(self.turn.len()).rposition(|window| window == self.turn);
                let said = turn.map_or(0, |at| tokens.len() - at - self.turn.len());
                let next = script.get(said).copied().unwrap_or(2);
                (0..VOCAB as u32).map(|token| if token == next { 20.0 } else { 0.0 }).collect()
            }
        }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 32)
}

impl Executor for Toy {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.num_steps += 1;
        let fault = (self.before)(self.num_steps);
        let block_tokens = self.limits.block_tokens;
        let mut out = Vec::new();
        for span in &batch.spans {
            for (row, position) in span.rows.clone().zip(span.start..) {
                self.slots[batch.slot(span, position, block_tokens)] = batch.tokens[row];
            }
            for (row, position) in span.rows.clone().zip(span.start..) {
                if batch.logit_rows.contains(&(row as u32)) {
                    let slots = (0..=position).map(|p| batch.slot(span, p, block_tokens));
                    let tokens: Vec<u32> = slots.map(|slot| self.slots[slot]).collect();
                    out.extend(self.logits(&tokens));
                }
            }
        }
        match fault {
            Some(Fault::Panic) => panic!("injected"),
            Some(Fault::Error) => Err(ModelError::BadOption {
                option: "--fault".to_owned(),
                got: "injected".to_owned(),
                expected: "none".to_owned(),
            }),
            Some(Fault::Nan) => {
                out[..VOCAB].fill(f32::NAN);
                Ok(out)
            }
            None => Ok(out),
        }
    }
}

/// A model called `tiny`.
pub fn served(toy: Toy, options: HandleOptions) -> ServedModel {
    let engine = EngineHandle::spawn(options, move || Ok(toy)).unwrap();
    ServedModel::new("tiny", engine, tokenizer()).with_description("a model without weights")
}

pub fn quiet() -> ServerOptions {
    ServerOptions { log_target: LogTarget::Off, port: 0, ..ServerOptions::default() }
}

/// A server in this process.
#[derive(Clone)]
pub struct Client {
    pub state: AppState,
    pub router: Router,
}

impl Client {
    pub fn new(toy: Toy) -> Self {
        Self::with(quiet(), vec![served(toy, HandleOptions::default())])
    }

    pub fn with(options: ServerOptions, models: Vec<ServedModel>) -> Self {
        let state = ServerState::new(options, models).unwrap();
        Self { router: router(state.clone()), state }
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Bytes) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, bytes)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let (status, _, bytes) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Posts JSON and reads JSON.
    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, _, bytes) = self.send(json_request(path, &body)).await;
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    /// Posts JSON and expects success.
    pub async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Posts JSON and reads events; whether the last was `[DONE]`.
    pub async fn events(&self, path: &str, mut body: Value) -> (Vec<Value>, bool) {
        body["stream"] = true.into();
        let (status, headers, bytes) = self.send(json_request(path, &body)).await;
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        assert_eq!(headers["content-type"], "text/event-stream");
        parse_events(&text)
    }
}

pub fn parse_events(text: &str) -> (Vec<Value>, bool) {
    let mut events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let done = events.last() == Some(&"[DONE]");
    events.truncate(events.len() - usize::from(done));
    (events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect(), done)
}

impl Client {
    /// Posts JSON and reads events that have names, which must be their types.
    pub async fn named_events(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = true.into();
        let (status, headers, bytes) = self.send(json_request(path, &body)).await;
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        assert_eq!(headers["content-type"], "text/event-stream");
        let events = text.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(event["type"], name.strip_prefix("event: ").unwrap());
            event
        });
        events.collect()
    }
}

/// A body with more fields, or other values of them.
pub fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub fn json_request(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// Waits until the engine's metrics are as they should be.
pub async fn settles(state: &AppState, settled: impl Fn(&Metrics) -> bool) -> Metrics {
    let begun = Instant::now();
    loop {
        let metrics = state.models[0].engine().metrics();
        if settled(&metrics) {
            return metrics;
        }
        assert!(begun.elapsed() < LONG, "{metrics:?}");
        sleep(Duration::from_millis(2)).await;
    }
}
