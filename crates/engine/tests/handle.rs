//! The engine on its own thread: from many threads, overloaded, told to stop, and dying.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::sync::mpsc::{self, Receiver, Sender};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bantam_engine::{
    EngineHandle, Event, EventReceiver, HandleOptions, Health, Request, RequestFailure,
    SamplingParams, SpawnError, SubmitError,
};
use common::{Fault, Hashing, alone, collect, limits};

const LONG: Duration = Duration::from_secs(30);

fn request(token: u32, max_tokens: usize) -> Request {
    let sampling = SamplingParams { seed: u64::from(token), ..SamplingParams::default() };
    Request { sampling, max_tokens: Some(max_tokens), ..Request::new(vec![token, 1, 2]) }
}

fn spawn(options: HandleOptions, model: Hashing) -> EngineHandle {
    EngineHandle::spawn(options, move || Ok(model)).unwrap()
}

/// An engine whose steps begin when they are told to.
fn gated(options: HandleOptions) -> (EngineHandle, Sender<()>) {
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let model = Hashing::failing(limits(), move |_| {
        // Once the other end is gone, steps run freely.
        let _ = gate.recv();
        None
    });
    (spawn(options, model), open)
}

/// The next event, which must come.
fn next(events: &mut EventReceiver) -> Option<Event> {
    match events.recv_within(LONG) {
        Poll::Ready(event) => event,
        Poll::Pending => panic!("a waiting client hangs"),
    }
}

fn last(events: &mut EventReceiver) -> Event {
    let mut last = None;
    while let Some(event) = next(events) {
        last = Some(event);
    }
    last.unwrap()
}

#[test]
fn clients_on_many_threads_get_their_own_answers() {
    let engine = spawn(HandleOptions::default(), Hashing::new(limits()));
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let engine = engine.clone();
            thread::spawn(move || {
                for round in 0..10 {
                    let request = request((n + round) % 32, 1 + (n as usize + 7) % 12);
                    let mut events = engine.submit(request.clone()).unwrap();
                    if (n + round) % 5 == 0 {
                        next(&mut events);
                        continue; // walks away
                    }
                    assert_eq!(collect(events).0, alone(&request, &limits()).0);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    engine.drain();
    assert!(engine.wait(LONG));
    let metrics = engine.metrics();
    assert_eq!(metrics.requests, 160);
    assert_eq!(metrics.finished_length + metrics.cancelled, 160);
    assert_eq!((metrics.blocks.referenced, engine.num_waiting()), (0, 0));
    assert_eq!(engine.health(), Health::Stopped);
}

#[test]
fn a_full_queue_refuses_with_a_number_and_a_time() {
    let (engine, open) = gated(HandleOptions { max_waiting: 3, ..HandleOptions::default() });
    let mut first = engine.submit(request(1, 2)).unwrap();
    assert!(matches!(next(&mut first), Some(Event::Started { .. })));
    // The engine is in a step: these wait.
    let waiting: Vec<_> = (0..3).map(|n| engine.submit(request(n, 2)).unwrap()).collect();
    let SubmitError::Full { waiting: 3, limit: 3, retry_after } =
        engine.submit(request(9, 2)).unwrap_err()
    else {
        panic!("not full")
    };
    assert!((1..=60).contains(&retry_after.as_secs()));
    assert_eq!((engine.num_waiting(), engine.num_rejected()), (3, 1));
    drop(open);
    for events in waiting {
        assert_eq!(collect(events).0.len(), 2);
    }
    assert_eq!(engine.num_waiting(), 0);
    engine.submit(request(9, 2)).unwrap();
}

#[test]
fn a_cancelled_request_in_the_queue_gives_its_place_back() {
    let (engine, open) = gated(HandleOptions { max_waiting: 1, ..HandleOptions::default() });
    let mut first = engine.submit(request(1, 5)).unwrap();
    next(&mut first);
    drop(engine.submit(request(2, 5)).unwrap());
    assert!(matches!(engine.submit(request(3, 5)), Err(SubmitError::Full { .. })));
    drop(open);
    last(&mut first);
    engine.drain();
    assert!(engine.wait(LONG));
    assert_eq!((engine.num_waiting(), engine.metrics().cancelled), (0, 1));
}

#[test]
fn what_can_never_be_served_is_refused_at_once() {
    let engine = spawn(HandleOptions::default(), Hashing::new(limits()));
    let refused = engine.submit(request(1, 1000)).unwrap_err();
    assert!(matches!(refused, SubmitError::Refused(_)));
    assert!(refused.to_string().starts_with("max_tokens is 1000, expected 1 to 61"), "{refused}");
    assert_eq!(engine.metrics().requests, 0);
}

#[test]
fn draining_finishes_what_there_is_and_refuses_the_rest() {
    let (engine, open) = gated(HandleOptions::default());
    let events: Vec<_> = (0..6).map(|n| engine.submit(request(n, 5)).unwrap()).collect();
    engine.drain();
    assert_eq!(engine.health(), Health::Draining);
    assert!(matches!(engine.submit(request(1, 1)), Err(SubmitError::Stopping)));
    assert!(!engine.wait(Duration::from_millis(5)));
    drop(open);
    for (events, n) in events.into_iter().zip(0..) {
        assert_eq!(collect(events).0, alone(&request(n, 5), &limits()).0);
    }
    assert!(engine.wait(LONG));
    assert!(matches!(engine.submit(request(1, 1)), Err(SubmitError::Stopping)));
}

#[test]
fn shutting_down_fails_what_there_is() {
    let (engine, open) = gated(HandleOptions::default());
    let mut events: Vec<_> = (0..6).map(|n| engine.submit(request(n, 50)).unwrap()).collect();
    next(&mut events[0]);
    engine.shutdown();
    drop(open);
    for events in &mut events {
        assert_eq!(last(events), Event::Failed(RequestFailure::Stopped));
    }
    assert!(engine.wait(LONG));
    assert_eq!(engine.health(), Health::Stopped);
}

#[test]
fn the_engine_ends_with_its_last_handle() {
    let (engine, open) = gated(HandleOptions::default());
    let events = engine.submit(request(1, 5)).unwrap();
    drop(engine);
    drop(open);
    assert_eq!(collect(events).0, alone(&request(1, 5), &limits()).0);
}

#[test]
fn a_dead_engine_says_so_and_nobody_hangs() {
    let model = Hashing::failing(limits(), |step| (step > 4).then_some(Fault::Panic));
    let engine = spawn(HandleOptions::default(), model);
    assert!(engine.health().is_ready());
    let mut failed = 0;
    // One of these runs into each of the three panics, at the latest.
    while failed < 3 {
        match engine.submit(request(1, 9)) {
            Ok(mut events) => {
                assert!(matches!(last(&mut events), Event::Failed(_)));
                failed += 1;
            }
            Err(SubmitError::Dead { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(engine.wait(LONG));
    let Health::Dead { reason } = engine.health() else { panic!("{:?}", engine.health()) };
    assert!(reason.contains("injected"), "{reason}");
    let refused = engine.submit(request(1, 9)).unwrap_err();
    assert!(refused.to_string().contains("injected"), "{refused}");
}

/// What a panic carries; dropping it panics again, outside of what the engine catches.
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("boom");
    }
}

#[test]
fn a_panic_of_the_engine_itself_is_seen_by_all() {
    let model =
        Hashing::failing(
            limits(),
            |step| {
                if step == 2 { std::panic::panic_any(Explosive) } else { None }
            },
        );
    let engine = spawn(HandleOptions::default(), model);
    let mut first = engine.submit(request(1, 50)).unwrap();
    assert!(matches!(last(&mut first), Event::Failed(_)));
    assert!(engine.wait(LONG));
    let Health::Dead { reason } = engine.health() else { panic!("{:?}", engine.health()) };
    assert!(reason.contains("boom"), "{reason}");
}

#[test]
fn a_step_that_hangs_is_not_healthy() {
    let options =
        HandleOptions { stall_after: Duration::from_millis(10), ..HandleOptions::default() };
    let (engine, open) = gated(options);
    let mut events = engine.submit(request(1, 2)).unwrap();
    next(&mut events);
    thread::sleep(Duration::from_millis(30));
    let Health::Stalled { since } = engine.health() else { panic!("{:?}", engine.health()) };
    assert!(since >= Duration::from_millis(10));
    assert!(!engine.health().is_ready());
    drop(open);
    last(&mut events);
    // The step has ended, and the engine is well again.
    while engine.metrics().running > 0 {
        thread::yield_now();
    }
    assert_eq!(engine.health(), Health::Ready);
    assert_eq!(collect(engine.submit(request(2, 3)).unwrap()).0.len(), 3);
    engine.drain();
    assert!(engine.wait(LONG));
    assert_eq!(engine.health(), Health::Stopped);
}

#[test]
fn a_deadline_in_the_queue_passes_while_a_step_hangs() {
    let (engine, open) = gated(HandleOptions::default());
    let mut first = engine.submit(request(1, 2)).unwrap();
    next(&mut first);
    let limit = Duration::from_millis(5);
    let mut late = engine.submit(Request { deadline: Some(limit), ..request(2, 2) }).unwrap();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(engine.num_waiting(), 1);
    drop(open);
    let failure = RequestFailure::Deadline { limit, generated: 0 };
    assert_eq!(next(&mut late), Some(Event::Failed(failure)));
    assert_eq!(collect(first).0.len(), 2);
    assert_eq!(engine.num_waiting(), 0);
}

#[test]
fn an_executor_that_cannot_be_made_is_an_error_here() {
    let failed =
        EngineHandle::spawn::<Hashing>(HandleOptions::default(), || Err("no weights".into()));
    assert_eq!(failed.err().unwrap().to_string(), "no weights");
    let panicked = EngineHandle::spawn::<Hashing>(HandleOptions::default(), || panic!("oh"));
    let Err(SpawnError::Panic(message)) = panicked else { panic!("no panic") };
    assert_eq!(message, "oh");
    let mut useless = limits();
    useless.max_sequences = 0;
    let useless = EngineHandle::spawn(HandleOptions::default(), move || Ok(Hashing::new(useless)));
    assert!(matches!(useless.err().unwrap(), SpawnError::Engine(_)));
}
