//! The arguments of `bantam serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use bantam_engine::{EngineOptions, HandleOptions, PrefillLimit};
use bantam_model::{LoadOptions, OptionNames};
use bantam_server::{check_host, check_origin};
use clap::{Args, ValueEnum};

use crate::format::Format;
use crate::memory::bytes;
use crate::model_arg::{DeviceArgs, ModelArg, OpenModel, count, positive};

/// Serve models over HTTP: OpenAI and KServe APIs, metrics, and a page to chat
///
/// Requests run together: each step computes one token of every running request and a chunk of the
/// prompts that have just come. Ctrl-C or SIGTERM finishes what is running and accepts nothing new;
/// a second one ends at once.
///
/// The memory of weights and caches is taken at the start, or refused there. A step that fails is
/// computed again, each request alone, and only those that fail again are told so. If the model panics
/// three times in a row and then on a single token too, its engine gives up: /health says 503 and why,
/// other models go on, and nothing but a restart of the process brings it back. Let whatever supervises
/// the server restart it when /health says `dead`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name, with an optional @FORMAT and an optional
    /// name to serve it under
    #[arg(value_name = "[NAME=]MODEL[@FORMAT]", required = true)]
    pub(super) models: Vec<ServedArg>,

    /// Address to listen at; 0.0.0.0 for every network of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Server")]
    pub(super) host: IpAddr,

    /// Port to listen at; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8000, help_heading = "Server")]
    pub(super) port: u16,

    /// Port for gRPC, the KServe service inference.GRPCInferenceService [default: none]
    #[cfg(feature = "grpc")]
    #[arg(long, value_name = "PORT", help_heading = "Server")]
    pub(super) grpc_port: Option<u16>,

    /// A key that requests must show; may be given several times [default: none, everyone may ask]
    #[arg(long, value_name = "KEY", help_heading = "Server")]
    pub(super) api_key: Vec<String>,

    /// A file with one key a line: unlike --api-key, not seen in the list of processes
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(super) api_key_file: Option<PathBuf>,

    /// A name beside localhost that a server without keys answers to, such as the one by which others
    /// on the network call it, or * for any; may be given several times
    #[arg(long, value_name = "NAME", value_parser = host, help_heading = "Server")]
    pub(super) allow_host: Vec<String>,

    #[allow(rustdoc::bare_urls, reason = "it is shown as the help of a command")]
    /// Web pages of this origin, such as https://chat.example.com, may use the server, or * for all
    /// pages; may be given several times [default: its own page only]
    #[arg(long, value_name = "ORIGIN", value_parser = origin, help_heading = "Server")]
    pub(super) cors_origin: Vec<String>,

    /// Seconds after which a request fails; requests may ask for less
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = positive, help_heading = "Server")]
    pub(super) request_timeout: usize,

    /// Seconds that running requests have to finish when the server is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = count, help_heading = "Server")]
    pub(super) drain_timeout: usize,

    /// Largest body of a request [default: 2 MiB and 32 bytes for each token of the longest context]
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Server")]
    pub(super) max_body: Option<u64>,

    /// One line for each request, in this form
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogForm::Text, help_heading = "Server")]
    pub(super) log: LogForm,

    /// File that the log is appended to [default: standard error]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(super) log_file: Option<PathBuf>,

    /// Memory for all models: weights, caches and the activations of a step, such as 12GiB
    /// [default: what is needed, and a quarter of what is available for the caches]
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Memory")]
    pub(super) memory: Option<u64>,

    /// Take the memory of the caches as they fill, not at the start: it starts sooner, and whether
    /// there is enough shows under load
    #[arg(long, help_heading = "Memory")]
    pub(super) lazy_cache: bool,

    /// Longest sequence in tokens, prompt and answer [default: the model's own]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Memory")]
    pub(super) max_model_len: Option<usize>,

    /// Requests that run side by side; more wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive, help_heading = "Memory")]
    pub(super) max_num_seqs: usize,

    /// Tokens of a step at most, over all requests
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive, help_heading = "Memory")]
    pub(super) max_num_batched_tokens: usize,

    /// Number format of models that state none: f32, bf16, int8, int4 (or int4-g32, int4-sym, …), with
    /// +int8 or +fp8 for the key/value cache
    #[arg(long, value_name = "FORMAT", default_value = "bf16", help_heading = "Memory")]
    pub(super) dtype: Format,

    /// Requests that may wait; more are refused with status 429 and a time to retry
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive, help_heading = "Scheduling")]
    pub(super) max_waiting: usize,

    /// How much longer a token may take while a long prompt is read beside it
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0, help_heading = "Scheduling")]
    pub(super) prefill_slowdown: f64,

    /// Compute equal beginnings of prompts again instead of sharing their cache
    #[arg(long, help_heading = "Scheduling")]
    pub(super) no_prefix_cache: bool,

    /// Seconds after which a step is taken to hang, and /health says so
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = positive, help_heading = "Scheduling")]
    pub(super) stall_timeout: usize,

    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

const AFTER_HELP: &str = "\
Examples:
  bantam serve smollm2                          then open http://127.0.0.1:8000
  bantam serve smollm2@int8 --port 9000 --max-num-seqs 128
  bantam serve chat=./dialog@int4 intent=smollm2@int8 --memory 12GiB
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"smollm2\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'";

fn host(name: &str) -> Result<String, String> {
    check_host(name).map(|()| name.to_owned())
}

fn origin(origin: &str) -> Result<String, String> {
    check_origin(origin).map(|()| origin.to_owned())
}

/// Rows whose logits a step may compute beside those of running requests: prompts that are scored.
const SCORED_ROWS: usize = 128;

/// The form of the request log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// None
    Off,
}

/// `MODEL[@FORMAT]`, or `NAME=MODEL[@FORMAT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedArg {
    /// What requests call it.
    pub(crate) name: String,
    pub(crate) model: ModelArg,
}

impl FromStr for ServedArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, model)) if !name.contains(['/', '.']) => match name.trim() {
                "" => Err(format!("{text:?} has an empty name; expected NAME=MODEL")),
                name => Ok(Self { name: name.to_owned(), model: model.parse()? }),
            },
            _ => {
                let model: ModelArg = text.parse()?;
                Ok(Self { name: short_name(&model.name), model })
            }
        }
    }
}

/// The last part of a path, without what only says that it is a file; an alias or a hub name as it
/// is.
fn short_name(model: &str) -> String {
    let path = std::path::Path::new(model);
    let is_path = path.exists() || model.ends_with(".gguf");
    let last = if is_path { path.file_name().and_then(|name| name.to_str()) } else { None };
    let last = last.unwrap_or(model);
    last.strip_suffix(".gguf").unwrap_or(last).to_owned()
}

impl ServeArgs {
    /// The longest sequence of a model: beside others, one that was made for less keeps its own.
    pub(super) fn context(&self, model: &OpenModel) -> anyhow::Result<usize> {
        let own = model.arch.sizes.max_positions;
        match self.max_model_len {
            Some(asked) if asked > own && self.models.len() == 1 => bail!(
                "--max-model-len is {asked}, but {} was made for {own} tokens; use 1 to {own}",
                model.name
            ),
            asked => Ok(asked.map_or(model.arch.default_context(), |asked| asked.min(own))),
        }
    }

    /// How models of this context are loaded; the memory is for the caller to share out.
    pub(super) fn load_options(&self, arg: &ServedArg, context: usize) -> LoadOptions {
        let max_sequences = self.max_num_seqs;
        LoadOptions {
            max_batch_tokens: self.max_num_batched_tokens.max(max_sequences),
            max_logit_rows: max_sequences + SCORED_ROWS.min(self.max_num_batched_tokens),
            names: OptionNames {
                context: "--max-model-len",
                sequences: Some("--max-num-seqs"),
                step_tokens: Some("--max-num-batched-tokens"),
                memory: (self.models.len() == 1).then_some("--memory"),
            },
            ..arg.model.format_or(self.dtype).load_options(Some(context), max_sequences)
        }
    }

    /// How each engine behaves.
    pub(super) fn handle_options(&self) -> HandleOptions {
        HandleOptions {
            engine: EngineOptions {
                prefill: PrefillLimit::Slowdown(self.prefill_slowdown),
                share_prefixes: !self.no_prefix_cache,
            },
            max_waiting: self.max_waiting,
            stall_after: Duration::from_secs(self.stall_timeout as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_may_have_a_name_of_their_own() {
        let parse = |text: &str| text.parse::<ServedArg>().unwrap();
        assert_eq!(parse("smollm2").name, "smollm2");
        assert_eq!(parse("smollm2@int8").name, "smollm2");
        assert_eq!(parse("org/model").name, "org/model");
        assert_eq!(parse("/models/Small.Q4_0.gguf").name, "Small.Q4_0");
        let named = parse("intent=smollm2@int8");
        assert_eq!((named.name.as_str(), named.model.name.as_str()), ("intent", "smollm2"));
        assert_eq!(named.model.format, "int8".parse().ok());
        assert_eq!(parse("./a=b").name, "./a=b");
        assert!("=smollm2".parse::<ServedArg>().unwrap_err().contains("empty name"));
    }
}
