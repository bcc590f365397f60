//! `bantam bench serve`: a server under load.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bantam_checkpoint::printable;
use bantam_eval::load::{
    AnswerLength, Arrivals, Client, Endpoint, LoadRequest, Point, Rate, Report, Run, RunOptions,
    Target, first_requests, parse_requests, plots, run as send_all, synthetic_requests, warm_up,
};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use crate::model_arg::positive;
use crate::{input, interrupt, output};

/// Measure a running server: throughput and latencies under load
///
/// The server may be any that speaks OpenAI's API. Each point of the sweep sends all requests once:
/// with --concurrency so many are under way at any time, with --static-batch so many are sent
/// together and the next ones wait for all answers, with --rate they come at random moments.
/// Sizes given both ways, as --static-batch alone does, are compared: the ratio of in-flight to
/// static batching.
///
/// Latencies are those of this client. TokensPerSecond is (total_output_tokens / batch_size) /
/// total_latency: the speed of one place of the batch; batch_size is the concurrency or the static
/// batch, and total_latency the time from the first request to the last answer.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: String,

    /// Name of the model on the server [default: the only one]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Key that the server asks for [default: the environment's BANTAM_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// Part of the API to use
    #[arg(long, value_enum, default_value_t = Api::Chat)]
    endpoint: Api,

    /// Requests, one JSON object a line: prompt, messages, or instruction with input; max_tokens
    /// and output are optional [default: made-up prompts]
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,

    /// Requests of each point [default: all of the file, or 100]
    #[arg(long, value_name = "N", value_parser = positive)]
    num_requests: Option<usize>,

    /// Words of a made-up prompt, about as many tokens
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive, conflicts_with = "requests")]
    input_tokens: usize,

    /// Tokens of each answer, the model's end ignored: a number, or `reference` for as many as the
    /// output of the file has [default: where the model ends]
    #[arg(long, value_name = "N|reference")]
    output_tokens: Option<OutputTokens>,

    /// Most tokens of an answer that ends where the model ends it
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive, conflicts_with = "output_tokens")]
    max_tokens: usize,

    /// Requests under way at any time, several numbers separated by commas [default: 1,4,16 unless
    /// other points are given]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    concurrency: Vec<NonZeroUsize>,

    /// Requests per second, arriving at random; `inf` for all at once
    #[arg(long, value_name = "R,…", value_delimiter = ',')]
    rate: Vec<Rate>,

    /// Requests of a static batch; the same numbers are measured as concurrency
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    static_batch: Vec<NonZeroUsize>,

    /// Times that the whole sweep runs, to and fro
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    rounds: usize,

    /// Requests sent before, and not counted
    #[arg(long, value_name = "N", default_value_t = 4)]
    warmup: usize,

    /// Send the prompts as they are. Otherwise a few characters that differ from run to run go
    /// before each, so that no run profits from the prompts that another has left in the cache
    #[arg(long)]
    keep_prompts: bool,

    /// Randomness of the answers; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,

    /// Decides made-up prompts and random moments
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Seconds until an answer must be complete
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    timeout: f64,

    /// Send requests again that the server turns away (429 or 503), when it says so
    #[arg(long)]
    retry: bool,

    /// Folder for plots, as SVG files; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    plot: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bantam bench serve --concurrency 1,4,16,64 --plot plots
  bantam bench serve --requests alpaca.jsonl --rate 1,2,4,inf
  bantam bench serve --requests alpaca.jsonl --output-tokens reference --static-batch 8 --rounds 3
  bantam bench serve --url http://gpu:8000 --input-tokens 1024 --output-tokens 128 --json";

/// The choices of `--endpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Api {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions
    Completions,
}

impl From<Api> for Endpoint {
    fn from(api: Api) -> Self {
        match api {
            Api::Chat => Self::Chat,
            Api::Completions => Self::Completions,
        }
    }
}

/// The value of `--output-tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputTokens {
    Exactly(usize),
    Reference,
}

impl FromStr for OutputTokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "reference" => Ok(Self::Reference),
            Ok(tokens) if tokens > 0 => Ok(Self::Exactly(tokens)),
            _ => Err("expected a number from 1 on, or `reference`".to_owned()),
        }
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0.001 to 1000000".to_owned()),
    }
}

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    if !(0.0..=2.0).contains(&args.temperature) {
        bail!("--temperature is {}, expected 0 to 2", args.temperature);
    }
    let requests = args.requests()?;
    if let Some(folder) = &args.plot {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--plot: cannot make the folder {}", folder.display()))?;
    }
    interrupt::install()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (target, runs) = runtime.block_on(measure(args, requests))?;
    let points: Vec<Point> = runs.iter().filter_map(|runs| Point::of(runs)).collect();
    if points.iter().all(|point| point.complete == 0) {
        let mut records = runs.iter().flatten().flat_map(|run| &run.records);
        match records.find_map(|record| record.outcome.as_ref().err()) {
            Some(failure) => bail!("no request was answered; the first failed: {failure}"),
            None => bail!("stopped before the first answer; nothing was measured"),
        }
    }
    if let Some(folder) = &args.plot {
        write_plots(folder, &points)?;
    }
    let report = Report::new(points);
    if args.json {
        return print_json(args, &target, &report);
    }
    let requests = args.requests.as_deref().map_or("made-up prompts".to_owned(), file_name);
    let heading = format!(
        "{} at {}, {requests}; client on {}",
        printable(target.model()),
        printable(&args.url),
        machine()
    );
    Ok(output::print(&format!("{heading}\n{report}"))?)
}

/// Runs the sweep; all runs of each point that has any.
async fn measure(
    args: &ServeArgs,
    mut requests: Vec<LoadRequest>,
) -> anyhow::Result<(Arc<Target>, Vec<Vec<Run>>)> {
    let client = connect(&args.url, args.api_key.as_deref())?;
    let target =
        Target::find(client, args.endpoint.into(), args.model.as_deref(), args.temperature).await?;
    target.check(&requests)?;
    if args.output_tokens == Some(OutputTokens::Reference) {
        let bar = output::progress_bar(requests.len() as u64, "counting tokens");
        target.use_reference_lengths(&mut requests, &mut || bar.inc(1)).await?;
        bar.finish_and_clear();
    }
    let target = Arc::new(target);
    let requests: Arc<[LoadRequest]> = requests.into();
    let tags = Tags::new(!args.keep_prompts);
    if args.warmup > 0 {
        warm_up(&target, &requests, args.warmup, &args.run_options(tags.of(0))).await?;
    }
    let points = args.points();
    let mut runs: Vec<Vec<Run>> = points.iter().map(|_| Vec::new()).collect();
    let bar = output::progress_bar((args.rounds * points.len() * requests.len()) as u64, "");
    let watch = interrupt::watch();
    for (number, point) in order(points.len(), args.rounds).enumerate() {
        bar.set_message(points[point].to_string());
        let before = bar.position();
        let mut progress = |ended: usize| report_progress(&bar, before + ended as u64);
        let options = args.run_options(tags.of(number + 1));
        let run = send_all(&target, &requests, points[point], &options, &mut progress).await;
        let stopped = run.interrupted;
        runs[point].push(run);
        if stopped {
            break;
        }
    }
    drop(watch);
    bar.finish_and_clear();
    Ok((target, runs))
}

/// Shows how many have ended, and stops after Ctrl-C.
fn report_progress(bar: &ProgressBar, ended: u64) -> ControlFlow<()> {
    bar.set_position(ended);
    if interrupt::happened() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The points of all rounds in the order of their runs: to and fro, so that a machine that becomes
/// slower or faster treats all points alike.
fn order(points: usize, rounds: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(move |round| {
        (0..points).map(move |at| if round % 2 == 0 { at } else { points - 1 - at })
    })
}

/// What goes before the prompts of each run.
struct Tags {
    /// Differs from one call of the program to the next.
    nonce: Option<u32>,
}

impl Tags {
    fn new(wanted: bool) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { nonce: wanted.then_some(now.as_micros() as u32) }
    }

    fn of(&self, run: usize) -> String {
        self.nonce.map_or(String::new(), |nonce| format!("({nonce:x}.{run}) "))
    }
}

/// A client of the server at `url`, with the key given or that of the environment.
pub(crate) fn connect(url: &str, api_key: Option<&str>) -> anyhow::Result<Client> {
    let client = Client::new(url)?;
    let environment = || std::env::var("BANTAM_API_KEY").ok();
    match api_key.map(str::to_owned).or_else(environment).filter(|key| !key.is_empty()) {
        Some(key) => Ok(client.with_key(&key)?),
        None => Ok(client),
    }
}

impl ServeArgs {
    /// What is asked, before lengths are taken from references.
    fn requests(&self) -> anyhow::Result<Vec<LoadRequest>> {
        let Some(path) = &self.requests else {
            let length = match self.output_tokens {
                Some(OutputTokens::Exactly(tokens)) => AnswerLength::Exactly(tokens),
                Some(OutputTokens::Reference) => {
                    bail!("--output-tokens reference needs a file with outputs; give --requests")
                }
                None => AnswerLength::AtMost(self.max_tokens),
            };
            let count = self.num_requests.unwrap_or(100);
            return Ok(synthetic_requests(count, self.input_tokens, length, self.seed));
        };
        let name = path.display().to_string();
        let file = std::fs::File::open(path).with_context(|| format!("{name}: cannot be read"))?;
        let requests = parse_requests(&input::read_text(file, &name)?, &name, self.max_tokens)?;
        let mut requests = first_requests(requests, self.num_requests)?;
        if let Some(OutputTokens::Exactly(tokens)) = self.output_tokens {
            requests.iter_mut().for_each(|one| one.length = AnswerLength::Exactly(tokens));
        }
        Ok(requests)
    }

    /// The points of the sweep; a static batch stands beside its concurrency.
    fn points(&self) -> Vec<Arrivals> {
        let mut sizes = self.concurrency.clone();
        if sizes.is_empty() && self.rate.is_empty() && self.static_batch.is_empty() {
            sizes = [1, 4, 16].into_iter().filter_map(NonZeroUsize::new).collect();
        }
        sizes.extend(&self.static_batch);
        let mut points = Vec::new();
        for size in sizes {
            points.push(Arrivals::Concurrency(size));
            if self.static_batch.contains(&size) {
                points.push(Arrivals::StaticBatch(size));
            }
        }
        points.extend(self.rate.iter().copied().map(Arrivals::Rate));
        let mut once: Vec<Arrivals> = Vec::new();
        points.retain(|point| {
            let new = !once.contains(point);
            once.push(*point);
            new
        });
        points
    }

    fn run_options(&self, tag: String) -> RunOptions {
        let timeout = Duration::from_secs_f64(self.timeout);
        RunOptions { seed: self.seed, timeout, retry: self.retry, tag }
    }
}

fn write_plots(folder: &Path, points: &[Point]) -> anyhow::Result<()> {
    for (name, chart) in plots(points) {
        let path = folder.join(name);
        std::fs::write(&path, chart.to_string())
            .with_context(|| format!("--plot: cannot write {}", path.display()))?;
    }
    Ok(())
}

fn print_json(args: &ServeArgs, target: &Target, report: &Report) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        server: serde_json::Value,
        client: String,
        options: serde_json::Value,
        #[serde(flatten)]
        report: &'a Report,
    }
    let output_tokens = match args.output_tokens {
        Some(OutputTokens::Exactly(tokens)) => json!(tokens),
        Some(OutputTokens::Reference) => json!("reference"),
        None => json!({ "at_most": args.max_tokens }),
    };
    output::print_json(&Document {
        server: json!({ "url": args.url, "model": target.model() }),
        client: machine(),
        options: json!({
            "endpoint": Endpoint::from(args.endpoint),
            "requests": args.requests.as_deref().map(file_name),
            "num_requests": args.num_requests,
            "input_tokens": args.requests.is_none().then_some(args.input_tokens),
            "output_tokens": output_tokens,
            "rounds": args.rounds,
            "warmup": args.warmup,
            "keep_prompts": args.keep_prompts,
            "temperature": args.temperature,
            "seed": args.seed,
            "timeout": args.timeout,
            "retry": args.retry,
            "interrupted": interrupt::happened(),
        }),
        report,
    })
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    printable(name.to_string_lossy()).to_string()
}

/// The machine that measures, which often is the one that serves as well.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let plural = if cores == 1 { "" } else { "s" };
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let name = name.map_or(std::env::consts::ARCH, str::trim);
    format!("{}, {cores} core{plural}", printable(name))
}
