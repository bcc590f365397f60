//! The KServe v2 protocol over gRPC, through a real socket: every call, raw and typed tensors,
//! streams that say what whole answers say.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bantam_engine::HandleOptions;
use bantam_server::grpc::inference::infer_parameter::ParameterChoice;
use bantam_server::grpc::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use bantam_server::grpc::inference::*;
use bantam_server::{AppState, Server, ServerOptions, Stop};
use common::{LONG, Toy, quiet, served, settles};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// Bytes of a response that a client takes before it has read any.
const WINDOW: u32 = 4096;

struct Client {
    channel: Grpc<Channel>,
    key: Option<&'static str>,
    /// Where the same server speaks HTTP.
    http: SocketAddr,
    state: AppState,
    stop: watch::Sender<Stop>,
    running: JoinHandle<()>,
}

impl Client {
    async fn new() -> Self {
        Self::with(quiet()).await
    }

    async fn with(options: ServerOptions) -> Self {
        Self::of(Toy::new(common::limits()), options).await
    }

    async fn of(toy: Toy, options: ServerOptions) -> Self {
        let options = ServerOptions { grpc_port: Some(0), ..options };
        let server =
            Server::bind(options, vec![served(toy, HandleOptions::default())]).await.unwrap();
        let uri = format!("http://{}", server.grpc_address().unwrap());
        let (http, state) = (server.address(), server.state().clone());
        let (stop, stopped) = watch::channel(Stop::No);
        let running = tokio::spawn(server.run(stopped));
        let endpoint = Channel::from_shared(uri).unwrap().initial_stream_window_size(WINDOW);
        let channel = endpoint.connect().await.unwrap();
        Self { channel: Grpc::new(channel), key: None, http, state, stop, running }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(key) = self.key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    async fn call<Q, R>(&mut self, name: &str, question: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let request = self.request(question);
        self.channel.ready().await.unwrap();
        let answer = self.channel.unary(request, path(name), ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    async fn stream(
        &mut self,
        questions: Vec<ModelInferRequest>,
    ) -> Result<Vec<ModelStreamInferResponse>, Status> {
        let request = self.request(stream::iter(questions));
        self.channel.ready().await.unwrap();
        let codec = ProstCodec::<ModelInferRequest, ModelStreamInferResponse>::default();
        let answers = self.channel.streaming(request, path("ModelStreamInfer"), codec).await?;
        let answers: Vec<_> = answers.into_inner().collect().await;
        answers.into_iter().collect()
    }
}

fn path(name: &str) -> PathAndQuery {
    format!("/inference.GRPCInferenceService/{name}").parse().unwrap()
}

fn flag(value: bool) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}

fn integer(value: i64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) }
}

fn text(value: &str) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::StringParam(value.to_owned())) }
}

/// A request with its prompts as typed contents.
fn question(id: &str, prompts: &[&str]) -> ModelInferRequest {
    let contents = InferTensorContents {
        bytes_contents: prompts.iter().map(|prompt| prompt.as_bytes().to_vec()).collect(),
        ..InferTensorContents::default()
    };
    ModelInferRequest {
        model_name: "tiny".to_owned(),
        id: id.to_owned(),
        inputs: vec![InferInputTensor {
            name: "text_input".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![prompts.len() as i64],
            contents: Some(contents),
            ..InferInputTensor::default()
        }],
        parameters: HashMap::from([
            ("max_tokens".to_owned(), integer(12)),
            ("seed".to_owned(), integer(7)),
            // As clients of the vLLM back end write numbers.
            ("temperature".to_owned(), text("0.9")),
            ("exclude_input_in_output".to_owned(), flag(true)),
        ]),
        ..ModelInferRequest::default()
    }
}

/// The texts of an output.
fn texts(response: &ModelInferResponse, name: &str) -> Vec<String> {
    let place = response.outputs.iter().position(|output| output.name == name).unwrap();
    let mut bytes = &response.raw_output_contents[place][..];
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        bytes = rest;
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_models_are_described() {
    let mut client = Client::new().await;
    let live: ServerLiveResponse = client.call("ServerLive", ServerLiveRequest {}).await.unwrap();
    let ready: ServerReadyResponse =
        client.call("ServerReady", ServerReadyRequest {}).await.unwrap();
    assert!(live.live && ready.ready);
    let server: ServerMetadataResponse =
        client.call("ServerMetadata", ServerMetadataRequest {}).await.unwrap();
    assert_eq!(server.name, "bantam");
    let (name, version) = ("tiny".to_owned(), "1".to_owned());
    let asked = ModelReadyRequest { name: name.clone(), version: version.clone() };
    let ready: ModelReadyResponse = client.call("ModelReady", asked).await.unwrap();
    assert!(ready.ready);
    let asked = ModelMetadataRequest { name: name.clone(), version: String::new() };
    let model: ModelMetadataResponse = client.call("ModelMetadata", asked).await.unwrap();
    assert_eq!((&model.name, &model.versions), (&name, &vec![version]));
    assert_eq!(model.inputs[0].name, "text_input");
    assert_eq!(model.outputs[0].name, "text_output");
    let asked = ModelConfigRequest { name: name.clone(), version: String::new() };
    let config: ModelConfigResponse = client.call("ModelConfig", asked).await.unwrap();
    let config = config.config.unwrap();
    assert!(config.model_transaction_policy.unwrap().decoupled);
    assert_eq!(config.input[0].data_type(), DataType::TypeString);
    let index: RepositoryIndexResponse =
        client.call("RepositoryIndex", RepositoryIndexRequest::default()).await.unwrap();
    assert_eq!((&index.models[0].name, &index.models[0].state[..]), (&name, "READY"));
    let _: ModelInferResponse = client.call("ModelInfer", question("", &["a"])).await.unwrap();
    let stats: ModelStatisticsResponse =
        client.call("ModelStatistics", ModelStatisticsRequest::default()).await.unwrap();
    assert_eq!(stats.model_stats[0].inference_count, 1);
    let asked = ModelReadyRequest { name: "huge".to_owned(), version: String::new() };
    let missing = client.call::<_, ModelReadyResponse>("ModelReady", asked).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_and_typed_tensors_say_the_same() {
    let mut client = Client::new().await;
    let typed: ModelInferResponse =
        client.call("ModelInfer", question("7", &["Hello", "you"])).await.unwrap();
    assert_eq!((&typed.id[..], &typed.model_version[..]), ("7", "1"));
    assert_eq!(typed.outputs[0].shape, [2]);

    let mut raw = question("7", &["Hello", "you"]);
    let contents = raw.inputs[0].contents.take().unwrap().bytes_contents;
    let pack = |text: &Vec<u8>| [&(text.len() as u32).to_le_bytes()[..], text].concat();
    raw.raw_input_contents = vec![contents.iter().flat_map(pack).collect()];
    raw.outputs = ["finish_reason", "text_output"]
        .map(|name| InferRequestedOutputTensor { name: name.to_owned(), ..Default::default() })
        .to_vec();
    let raw: ModelInferResponse = client.call("ModelInfer", raw).await.unwrap();
    assert_eq!(texts(&raw, "text_output"), texts(&typed, "text_output"));
    assert_eq!(texts(&raw, "finish_reason"), ["length", "length"]);
    assert_eq!(raw.outputs[0].name, "finish_reason");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_say_what_whole_answers_say() {
    let mut client = Client::new().await;
    let mut questions = Vec::new();
    for (id, stream) in [("a", true), ("b", true), ("c", false)] {
        let mut question = question(id, &[id]);
        question.parameters.insert("stream".to_owned(), flag(stream));
        questions.push(question);
    }
    let mut bad = question("bad", &["x"]);
    bad.parameters.insert("temperature".to_owned(), text("hot"));
    questions.push(bad);
    let responses = client.stream(questions.clone()).await.unwrap();
    for mut question in questions {
        let of_it: Vec<&ModelStreamInferResponse> = responses
            .iter()
            .filter(|response| response.infer_response.as_ref().unwrap().id == question.id)
            .collect();
        if question.id == "bad" {
            assert_eq!(of_it.len(), 1);
            assert!(of_it[0].error_message.contains("temperature"), "{}", of_it[0].error_message);
            continue;
        }
        assert!(of_it.iter().all(|response| response.error_message.is_empty()));
        let chunks: Vec<&ModelInferResponse> =
            of_it.iter().map(|response| response.infer_response.as_ref().unwrap()).collect();
        let streamed: String =
            chunks.iter().map(|chunk| texts(chunk, "text_output").concat()).collect();
        let is_last =
            |chunk: &&ModelInferResponse| chunk.parameters["triton_final_response"] == flag(true);
        assert_eq!(chunks.iter().filter(|chunk| is_last(chunk)).count(), 1);
        assert!(is_last(chunks.last().unwrap()));
        let stream = question.parameters.insert("stream".to_owned(), flag(false)).unwrap();
        assert_eq!(chunks.len() > 1, stream == flag(true));
        let whole: ModelInferResponse = client.call("ModelInfer", question).await.unwrap();
        assert_eq!([streamed], texts(&whole, "text_output")[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_honoured_is_refused() {
    let mut client = Client::new().await;
    let mut streaming = question("", &["a"]);
    streaming.parameters.insert("stream".to_owned(), flag(true));
    let mut empty = question("", &["a"]);
    empty.parameters.insert("top_k".to_owned(), InferParameter::default());
    let mut twice = question("", &["a"]);
    twice.raw_input_contents = vec![vec![]];
    let mut more = question("", &["a"]);
    more.raw_input_contents = vec![vec![], vec![]];
    let mut shared = question("", &["a"]);
    shared.inputs[0].parameters.insert("shared_memory_region".to_owned(), text("x"));
    let mut output = question("", &["a"]);
    output.outputs.push(InferRequestedOutputTensor { name: "x".to_owned(), ..Default::default() });
    let mut many = question("", &["a"]);
    many.inputs.resize(1000, many.inputs[0].clone());
    for (request, expected) in [
        (many, "1000 inputs, expected at most 256"),
        (streaming, "call ModelStreamInfer"),
        (empty, "top_k has no value"),
        (twice, "beside raw_input_contents"),
        (more, "2 entries"),
        (shared, "shared memory is not read"),
        (output, "no output x"),
        (question("", &[]), "text_input is missing"),
    ] {
        let status = client.call::<_, ModelInferResponse>("ModelInfer", request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_guard_all_but_health() {
    let options = ServerOptions { api_keys: vec!["secret".to_owned()], ..quiet() };
    let mut client = Client::with(options).await;
    let _: ServerReadyResponse = client.call("ServerReady", ServerReadyRequest {}).await.unwrap();
    let infer = client.call::<_, ModelInferResponse>("ModelInfer", question("", &["a"]));
    assert_eq!(infer.await.unwrap_err().code(), Code::Unauthenticated);
    let stream = client.stream(vec![question("", &["a"])]).await;
    assert_eq!(stream.unwrap_err().code(), Code::Unauthenticated);
    client.key = Some("secret");
    let _: ModelInferResponse = client.call("ModelInfer", question("", &["a"])).await.unwrap();
    assert_eq!(client.stream(vec![question("", &["a"])]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_completes_its_calls() {
    let mut client = Client::new().await;
    let _: ServerLiveResponse = client.call("ServerLive", ServerLiveRequest {}).await.unwrap();
    client.stop.send_replace(Stop::Drain);
    time::timeout(Duration::from_secs(20), client.running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_over_both_ports() {
    let mut client = Client::with(ServerOptions { max_connections: 1, ..quiet() }).await;
    let _: ServerLiveResponse = client.call("ServerLive", ServerLiveRequest {}).await.unwrap();
    let mut http = TcpStream::connect(client.http).await.unwrap();
    http.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    // The connection for gRPC is idle and gives way.
    let mut answer = Vec::new();
    time::timeout(LONG, http.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    // Its next calls are made on another, once it has noticed.
    let begun = Instant::now();
    while client.call::<_, ServerLiveResponse>("ServerLive", ServerLiveRequest {}).await.is_err() {
        assert!(begun.elapsed() < LONG);
        time::sleep(Duration::from_millis(5)).await;
    }
    drop(client.stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_cut_off() {
    // More is said in these steps than the client takes unread; then the model waits.
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let toy = Toy::failing(move |step| {
        if step == 200 {
            let _ = gate.recv();
        }
        None
    });
    let options = ServerOptions { write_timeout: Duration::from_millis(50), ..quiet() };
    let mut client = Client::of(toy, options).await;
    let mut endless = question("a", &["nobody"]);
    endless.parameters.insert("max_tokens".to_owned(), integer(1000));
    endless.parameters.insert("ignore_eos".to_owned(), flag(true));
    endless.parameters.insert("stream".to_owned(), flag(true));
    let request = client.request(stream::iter(vec![endless]));
    client.channel.ready().await.unwrap();
    let codec = ProstCodec::<ModelInferRequest, ModelStreamInferResponse>::default();
    let unread = client.channel.streaming(request, path("ModelStreamInfer"), codec).await.unwrap();
    settles(&client.state, |metrics| metrics.requests == 1).await;
    // Then only the request for metrics is left.
    let begun = Instant::now();
    while !metrics(client.http).await.contains("bantam_http_requests_in_flight 1\n") {
        assert!(begun.elapsed() < LONG);
        time::sleep(Duration::from_millis(5)).await;
    }
    drop(open);
    let counted = settles(&client.state, |metrics| metrics.cancelled == 1).await;
    assert_eq!((counted.running, counted.blocks.referenced), (0, 0));
    let read: Vec<_> = unread.into_inner().collect().await;
    let (last, before) = read.split_last().unwrap();
    assert!(before.len() > 1 && before.iter().all(Result::is_ok));
    assert_eq!(last.as_ref().unwrap_err().code(), Code::DeadlineExceeded);
}

/// What a server counts.
async fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
