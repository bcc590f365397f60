//! One client: asks, breaks off, and sends what must be refused.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::SoakOptions;
use super::checks::Check;
use super::dice::Dice;
use super::heard::{Heard, Said, repeat_problem};
use super::malformed::{self, Malformed};
use super::tally::Tally;
use super::work::{Sizes, Work, form_problem};
use crate::load::{Answer, Client, Failure, LoadError};

/// What all clients share.
pub(super) struct Soaking {
    client: Client,
    model: String,
    options: SoakOptions,
    fixed: Vec<Work>,
    /// What was said to each of the fixed set, alone.
    expected: Vec<Said>,
    malformed: Vec<Malformed>,
    tally: Mutex<Tally>,
}

/// How long a server may ask to stay away.
const LONGEST_RETRY: Duration = Duration::from_secs(120);
/// Time after which a request is broken off at the latest, before it is known how long they take.
const FIRST_PATIENCE: f64 = 2.0;

/// What became of a request.
enum Outcome {
    Answer(Answer),
    /// Turned away, and the time was over before it could come again.
    GivenUp,
}

impl Soaking {
    /// Asks the fixed set one by one.
    pub(super) async fn begin(
        client: &Client,
        model: &str,
        options: &SoakOptions,
        fixed: Vec<Work>,
    ) -> Result<Self, LoadError> {
        let mut soaking = Self {
            client: client.clone(),
            model: model.to_owned(),
            options: options.clone(),
            expected: Vec::new(),
            malformed: malformed::all(model),
            tally: Mutex::default(),
            fixed,
        };
        for work in soaking.fixed.clone() {
            let work = Work { stream: false, listed: true, ..work };
            let heard = soaking.ask(&work, None).await;
            let heard = heard.map_err(|failure| LoadError::WarmUp { failure })?;
            // Alone it asks until it is heard.
            let Some(heard) = heard else { continue };
            soaking.judge(&work, &heard);
            soaking.expected.extend(heard.choices.into_iter().next());
        }
        Ok(soaking)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The counts; whoever holds them must not wait for anything.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        // A panic elsewhere ends the run anyway.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One client, until the time is over.
    pub(super) async fn run(self: Arc<Self>, number: usize, over: Instant) {
        let mut dice = Dice::new(self.options.seed, number);
        let sizes = Sizes {
            prompt_words: self.options.prompt_words.get(),
            answer_tokens: self.options.answer_tokens.get(),
        };
        while Instant::now() < over {
            let kind = dice.share();
            if kind < self.options.malformed {
                let wrong = dice.pick(&self.malformed);
                // Turned away for longer than there is time: there is nothing left to ask.
                if self.offend(wrong, over).await.is_break() {
                    return;
                }
                continue;
            }
            let work = match dice.chance(self.options.repeat) {
                true => Work::again(&mut dice, &self.fixed),
                false => Work::random(&mut dice, sizes),
            };
            if kind < self.options.malformed + self.options.cancel {
                let moment = self.patience() * dice.share();
                match timeout(Duration::from_secs_f64(moment), self.answer(&work, over)).await {
                    Ok(ControlFlow::Break(())) => return,
                    // It was faster.
                    Ok(ControlFlow::Continue(())) => {}
                    // Dropped with its connection, wherever it was.
                    Err(_) => self.tally().cancelled += 1,
                }
            } else if self.answer(&work, over).await.is_break() {
                return;
            }
        }
    }

    /// Asks the fixed set once more, one by one, as streams.
    pub(super) async fn ask_alone_again(&self) {
        for work in &self.fixed {
            let work = Work { stream: true, listed: true, ..work.clone() };
            match self.ask(&work, None).await {
                Ok(heard) => heard.iter().for_each(|heard| self.judge(&work, heard)),
                Err(failure) => self.failed(&work, &failure),
            }
        }
    }

    /// The mean time that an answer takes, in seconds: breaking off within it hits the queue, the
    /// prompt and the answer alike.
    fn patience(&self) -> f64 {
        let tally = self.tally();
        let recent = &tally.end_to_end[tally.end_to_end.len().saturating_sub(200)..];
        if recent.is_empty() {
            return FIRST_PATIENCE;
        }
        recent.iter().sum::<f64>() / recent.len() as f64
    }

    /// Asks under load and notes what comes; breaks if it was turned away until the time was over.
    async fn answer(&self, work: &Work, over: Instant) -> ControlFlow<()> {
        match self.ask(work, Some(over)).await {
            Ok(None) => return ControlFlow::Break(()),
            Ok(Some(heard)) => {
                self.judge(work, &heard);
                self.tally().timed(work, &heard);
            }
            Err(failure) => self.failed(work, &failure),
        }
        ControlFlow::Continue(())
    }

    /// Asks, and reads the answer to its end; none if it was turned away until the time was over.
    async fn ask(&self, work: &Work, over: Option<Instant>) -> Result<Option<Heard>, Failure> {
        let limit = self.options.timeout;
        let body = work.body(&self.model).into_bytes();
        let asking = async {
            let sent = Instant::now();
            match self.persist(work.path(), Some(&body), over).await? {
                Outcome::GivenUp => Ok(None),
                Outcome::Answer(answer) => {
                    Heard::read(work, answer.success().await?, sent).await.map(Some)
                }
            }
        };
        let late = Failure::Timeout { seconds: limit.as_secs_f64() };
        timeout(limit, asking).await.unwrap_or(Err(late))
    }

    /// Sends, and comes again when told to.
    async fn persist(
        &self,
        path: &str,
        body: Option<&[u8]>,
        over: Option<Instant>,
    ) -> Result<Outcome, Failure> {
        loop {
            let answer = match body {
                Some(body) => self.client.post(path, body.to_vec()).await?,
                None => self.client.get(path).await?,
            };
            if answer.status() != 429 {
                return Ok(Outcome::Answer(answer));
            }
            let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
            let wait = seconds.map(Duration::from_secs).filter(|wait| *wait <= LONGEST_RETRY);
            let problem = wait.is_none().then(|| {
                format!("429 with Retry-After {:?}, expected seconds", answer.header("retry-after"))
            });
            // Read to its end, so that the connection serves again.
            answer.bytes().await?;
            {
                let mut tally = self.tally();
                tally.turned_away += 1;
                tally.findings.look(Check::RetryAfter, problem);
            }
            let wait = wait.unwrap_or(Duration::from_secs(1));
            if over.is_some_and(|over| Instant::now() + wait >= over) {
                self.tally().given_up += 1;
                return Ok(Outcome::GivenUp);
            }
            sleep(wait).await;
        }
    }

    /// Sends something malformed; breaks as [`answer`](Self::answer) does.
    async fn offend(&self, wrong: &Malformed, over: Instant) -> ControlFlow<()> {
        let limit = self.options.timeout;
        let sending = async {
            match self.persist(wrong.path, wrong.body.as_deref(), Some(over)).await? {
                Outcome::GivenUp => Ok(None),
                Outcome::Answer(answer) => {
                    let status = answer.status();
                    Ok(Some((status, answer.bytes().await?)))
                }
            }
        };
        let late = Failure::Timeout { seconds: limit.as_secs_f64() };
        let outcome = timeout(limit, sending).await.unwrap_or(Err(late));
        let named = |problem: String| format!("{}: {problem}", wrong.name);
        let mut tally = self.tally();
        let problem = match outcome {
            Ok(None) => return ControlFlow::Break(()),
            Ok(Some((status, body))) => {
                let problem = (status >= 500).then(|| named(format!("status {status}")));
                tally.findings.look(Check::NoServerError, problem);
                malformed::answer_problem(status, &body)
            }
            Err(failure) => Some(failure.to_string()),
        };
        *tally.refused.entry(wrong.name).or_default() += usize::from(problem.is_none());
        tally.findings.look(Check::Refusals, problem.map(named));
        ControlFlow::Continue(())
    }

    /// Looks at an answer from all sides.
    fn judge(&self, work: &Work, heard: &Heard) {
        let named = |problem: String| format!("{}: {problem}", work.kind());
        let mut tally = self.tally();
        tally.answered(work, heard);
        tally.findings.look(Check::Answered, None);
        tally.findings.look(Check::NoServerError, None);
        tally.findings.look(Check::Tokens, heard.token_problem(work).map(named));
        if work.constrained {
            let whole = heard.choices.iter().filter(|said| said.finish.as_deref() == Some("stop"));
            for said in whole {
                tally.findings.look(Check::Forms, form_problem(&said.text).map(named));
            }
        }
        // Not there yet while it is asked for the first time.
        if let Some(expected) = work.repeats.and_then(|number| self.expected.get(number)) {
            let problem = repeat_problem(work, heard, expected);
            tally.findings.look(Check::Repeats, problem.map(named));
        }
    }

    /// Notes a request without a complete answer.
    fn failed(&self, work: &Work, failure: &Failure) {
        let problem = format!("{}: {failure}", work.kind());
        let mut tally = self.tally();
        if let Failure::Status { status: 500.., .. } = failure {
            tally.findings.look(Check::NoServerError, Some(problem.clone()));
        }
        tally.findings.look(Check::Answered, Some(problem));
    }
}
