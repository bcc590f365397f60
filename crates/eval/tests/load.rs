//! The load generator against a server whose behaviour is known.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod sse_server;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bantam_eval::load::{
    AnswerLength, Arrivals, Client, Endpoint, Failure, LoadRequest, Point, Prompt, Rate, Record,
    Run, RunOptions, Target, parse_requests, run, warm_up,
};
use serde_json::json;
use sse_server::{Asked, Reply, Server, chat, start};

const NOW: Duration = Duration::ZERO;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn texts(texts: &[&str]) -> Arc<[LoadRequest]> {
    let request = |text: &&str| LoadRequest {
        prompt: Prompt::Text((*text).to_owned()),
        reference: Some((*text).to_owned()),
        length: AnswerLength::AtMost(9),
    };
    texts.iter().map(request).collect()
}

fn options() -> RunOptions {
    RunOptions { seed: 0, timeout: ms(20_000), retry: false, tag: String::new() }
}

async fn target(server: &Server) -> Arc<Target> {
    let client = Client::new(&server.url).unwrap();
    Arc::new(Target::find(client, Endpoint::Chat, None, 0.0).await.unwrap())
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Sends requests to a server and returns what came back.
fn measure(
    server: &Server,
    requests: &Arc<[LoadRequest]>,
    arrivals: Arrivals,
    options: &RunOptions,
) -> Run {
    block_on(async { run(&target(server).await, requests, arrivals, options, &mut go_on).await })
}

fn record(run: &Run, request: usize) -> &Record {
    run.records.iter().find(|record| record.request == request).unwrap()
}

fn failure(record: &Record) -> String {
    record.outcome.as_ref().unwrap_err().to_string()
}

/// What the user says in a chat.
fn said(asked: &Asked) -> String {
    asked.json()["messages"][0]["content"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn times_are_those_that_the_server_takes() {
    let server = start(&["m"], |_| chat(ms(60), ms(20), 4, 6));
    let run = measure(&server, &texts(&["a"]), Arrivals::Concurrency(size(1)), &options());
    let answer = record(&run, 0).outcome.clone().unwrap();
    let close = |found: Duration, least: u64| {
        // The server pauses that long; a crowded machine adds to it.
        assert!(found >= ms(least) && found < ms(least) + ms(500), "{found:?}, not {least} ms");
    };
    close(answer.time_to_first_token(), 60);
    close(answer.end, 120);
    close(run.duration, 120);
    assert_eq!(answer.chunks.len(), 4);
    assert_eq!(answer.inter_token_latencies().count(), 3);
    // Six tokens, so five gaps in the 60 ms of three pauses.
    let spread = *answer.chunks.last().unwrap() - answer.chunks[0];
    assert_eq!(answer.time_per_output_token().unwrap(), spread / 5);
    assert_eq!((answer.input_tokens, answer.cached_tokens, answer.output_tokens), (7, 3, 6));
    assert!(answer.counted);
    assert_eq!(answer.finish_reason, "stop");
}

#[test]
fn a_static_batch_waits_for_its_slowest_answer_and_a_closed_loop_does_not() {
    let slow = |asked: &Asked| chat(ms(if said(asked) == "slow" { 150 } else { 5 }), NOW, 1, 1);
    let server = start(&["m"], slow);
    let requests = texts(&["slow", "b", "c", "d", "e"]);
    let fixed = measure(&server, &requests, Arrivals::StaticBatch(size(2)), &options());
    for (batch, next) in [([0, 1], 2), ([2, 3], 4)] {
        for member in batch {
            assert!(record(&fixed, next).sent >= record(&fixed, member).ended);
        }
    }
    let flowing = measure(&server, &requests, Arrivals::Concurrency(size(2)), &options());
    assert!(record(&flowing, 4).ended < record(&flowing, 0).ended);
    assert!(flowing.duration < fixed.duration);
    assert_eq!(Point::of(&[fixed]).unwrap().complete, 5);
}

#[test]
fn concurrency_is_kept_on_as_many_connections() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let largest = Arc::clone(&most);
    let server = start(&["m"], move |_| {
        largest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(ms(20));
        now.fetch_sub(1, Ordering::SeqCst);
        chat(NOW, NOW, 2, 2)
    });
    let requests = texts(&["a"; 24]);
    measure(&server, &requests, Arrivals::Concurrency(size(4)), &options());
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let connections = server.seen.connections.load(Ordering::SeqCst);
    assert!(connections <= 5, "{connections} connections for 4 requests at a time");
}

#[test]
fn a_rate_does_not_wait_for_answers() {
    let server = start(&["m"], |_| chat(ms(200), NOW, 1, 1));
    let rate: Rate = "100".parse().unwrap();
    let run = measure(&server, &texts(&["a"; 10]), Arrivals::Rate(rate), &options());
    let due = rate.schedule(10, 0);
    for (request, due) in due.iter().enumerate() {
        let record = record(&run, request);
        assert!(record.sent >= *due && record.delay == record.sent - *due);
    }
    // One after the other it would take two seconds.
    assert!(run.duration < ms(1500), "{:?}", run.duration);
}

#[test]
fn failures_are_told_apart() {
    let server = start(&["m"], |asked| match said(asked).as_str() {
        "full" => Reply::Whole {
            status: 429,
            headers: "retry-after: 0.05\r\n",
            body: json!({ "error": { "message": "come back later" } }),
        },
        "cut" => Reply::Cut(vec![(NOW, "{\"choices\": []}".into())]),
        "error" => Reply::Stream(vec![(NOW, "{\"error\": {\"message\": \"oh\"}}".into())]),
        "short" => Reply::Stream(vec![(NOW, "[DONE]".into())]),
        "noise" => Reply::Stream(vec![(NOW, "noise".into())]),
        "slow" => chat(ms(2_000), NOW, 1, 1),
        _ => chat(NOW, NOW, 1, 1),
    });
    let prompts = ["full", "cut", "error", "short", "noise", "slow", "fine"];
    let options = RunOptions { timeout: ms(500), ..options() };
    let run = measure(&server, &texts(&prompts), Arrivals::Rate(Rate::INFINITE), &options);
    assert_eq!(failure(record(&run, 0)), "the server answered 429: come back later");
    assert!(failure(record(&run, 1)).starts_with("the connection broke: "));
    assert_eq!(failure(record(&run, 2)), "the server ended the stream with an error: oh");
    assert!(failure(record(&run, 3)).ends_with("without a finish_reason"));
    assert!(failure(record(&run, 4)).starts_with("the answer is not understood: a chunk"));
    assert!(failure(record(&run, 5)).starts_with("no complete answer after 0.5 s"));
    assert!(record(&run, 6).outcome.is_ok());
    let point = Point::of(&[run]).unwrap();
    assert_eq!((point.complete, point.failed()), (1, 6));
    assert_eq!(point.failures["429"], 1);
    assert_eq!(point.failures["connection broke"], 2);
}

#[test]
fn who_is_turned_away_comes_back_if_asked_to() {
    let refused = AtomicUsize::new(0);
    let server = start(&["m"], move |_| {
        if refused.fetch_add(1, Ordering::SeqCst) < 2 {
            let headers = "retry-after: 0.05\r\n";
            return Reply::Whole { status: 503, headers, body: json!({}) };
        }
        chat(NOW, NOW, 1, 1)
    });
    let options = RunOptions { retry: true, ..options() };
    let run = measure(&server, &texts(&["a"]), Arrivals::Concurrency(size(1)), &options);
    let record = record(&run, 0);
    assert_eq!(record.retries, 2);
    assert!(record.outcome.clone().unwrap().time_to_first_token() >= ms(100));
}

#[test]
fn a_dropped_stream_closes_its_connection() {
    let server = start(&["m"], |_| chat(NOW, ms(10), 500, 500));
    block_on(async {
        let client = Client::new(&server.url).unwrap();
        let mut events = client.post_stream("/v1/chat/completions", "{}").await.unwrap();
        events.next().await.unwrap().unwrap();
        drop(events);
        for _ in 0..200 {
            tokio::time::sleep(ms(10)).await;
            if server.seen.vanished.load(Ordering::SeqCst) == 1 {
                return;
            }
        }
        panic!("the server goes on writing");
    });
}

#[test]
fn anything_can_be_sent() {
    let server = start(&["m"], |_| Reply::Whole {
        status: 400,
        headers: "x-request-id: 5\r\n",
        body: json!({ "error": { "message": "not JSON" } }),
    });
    block_on(async {
        let client = Client::new(&server.url).unwrap().with_key("secret").unwrap();
        let answer = client.post("/v1/completions", "{nonsense").await.unwrap();
        assert_eq!((answer.status(), answer.header("x-request-id")), (400, Some("5")));
        let refusal = answer.success().await.unwrap_err();
        let message = "not JSON".to_owned();
        assert_eq!(refusal, Failure::Status { status: 400, message, retry_after: None });
    });
    let asked = server.seen.asked.lock().unwrap();
    assert_eq!(asked[0].body, "{nonsense");
    assert!(asked[0].head.contains("authorization: bearer secret"));
}

#[test]
fn the_model_is_the_only_one_or_the_one_asked_for() {
    let find = |models: &[&str], asked: Option<&str>| {
        let server = start(models, |_| chat(NOW, NOW, 1, 1));
        let client = Client::new(&server.url).unwrap();
        block_on(Target::find(client, Endpoint::Chat, asked, 0.0))
            .map(|target| target.model().to_owned())
            .map_err(|error| error.to_string())
    };
    assert_eq!(find(&["a"], None), Ok("a".to_owned()));
    assert_eq!(find(&["a", "b"], Some("b")), Ok("b".to_owned()));
    let several = find(&["a", "b"], None).unwrap_err();
    assert_eq!(several, "the server has several models; choose one with --model: a, b");
    let unknown = find(&["a", "b"], Some("c")).unwrap_err();
    assert_eq!(unknown, "the server has no model \"c\"; it has a, b");
    assert!(find(&[], None).unwrap_err().contains("the list is empty"));
}

#[test]
fn lengths_may_be_those_of_reference_answers() {
    let server = start(&["m"], |asked| match asked.path.as_str() {
        "/tokenize" => {
            let count = asked.json()["prompt"].as_str().unwrap().chars().count();
            Reply::Whole { status: 200, headers: "", body: json!({ "count": count }) }
        }
        _ => chat(NOW, NOW, 1, 1),
    });
    let mut requests = texts(&["four", "twelve chars"]).to_vec();
    block_on(async {
        let target = target(&server).await;
        target.use_reference_lengths(&mut requests, &mut || {}).await.unwrap();
        let lengths: Vec<AnswerLength> = requests.iter().map(|request| request.length).collect();
        assert_eq!(lengths, [AnswerLength::Exactly(4), AnswerLength::Exactly(12)]);
        let options = RunOptions { tag: "(1) ".into(), ..options() };
        warm_up(&target, &requests, 1, &options).await.unwrap();
        requests[1].reference = None;
        let error = target.use_reference_lengths(&mut requests, &mut || {}).await.unwrap_err();
        assert!(error.to_string().starts_with("request 2 has no reference answer"));
    });
    let asked = server.seen.asked.lock().unwrap();
    let sent = asked.iter().find(|asked| asked.path == "/v1/chat/completions").unwrap();
    assert_eq!(said(sent), "(1) four");
    let body = sent.json();
    assert_eq!((&body["max_tokens"], &body["ignore_eos"]), (&json!(4), &json!(true)));
    assert_eq!(body["stream_options"]["include_usage"], json!(true));
}

#[test]
fn conversations_need_a_chat() {
    let server = start(&["m"], |_| chat(NOW, NOW, 1, 1));
    let line = r#"{"messages": [{"role": "user", "content": "x"}]}"#;
    let requests = parse_requests(line, "x", 1).unwrap();
    block_on(async {
        let client = Client::new(&server.url).unwrap();
        let plain = Target::find(client, Endpoint::Completions, None, 0.0).await.unwrap();
        let error = plain.check(&requests).unwrap_err().to_string();
        assert_eq!(error, "request 1 is a conversation, which needs --endpoint chat");
        target(&server).await.check(&requests).unwrap();
    });
}

#[test]
fn answers_that_the_server_does_not_count_are_counted_in_pieces() {
    let server = start(&["m"], |_| {
        let Reply::Stream(mut events) = chat(NOW, NOW, 3, 99) else { unreachable!() };
        events.retain(|(_, data)| !data.contains("completion_tokens"));
        Reply::Stream(events)
    });
    let run = measure(&server, &texts(&["a"]), Arrivals::Concurrency(size(1)), &options());
    let point = Point::of(&[run]).unwrap();
    assert_eq!((point.output_tokens, point.uncounted), (3, 1));
}

#[test]
fn a_run_that_is_stopped_keeps_what_is_complete() {
    let slow = |asked: &Asked| chat(ms(if said(asked) == "slow" { 5_000 } else { 1 }), NOW, 1, 1);
    let server = start(&["m"], slow);
    let requests = texts(&["a", "slow", "c", "d"]);
    let stopped = block_on(async {
        let target = target(&server).await;
        let mut stop = |ended| match ended {
            0..3 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        run(&target, &requests, Arrivals::Concurrency(size(2)), &options(), &mut stop).await
    });
    assert!(stopped.interrupted && stopped.duration < ms(4_000));
    assert_eq!(stopped.records.len(), 3);
}
