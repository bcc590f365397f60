//! From arguments to a server that runs.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use bantam_backend::Backend;
use bantam_engine::{EngineHandle, SamplingParams, Turns};
use bantam_model::{Decoder, LoadOptions, MemoryPlan};
use bantam_server::{LogFormat, LogTarget, ServedModel, ServerOptions, serve};
use bantam_text::Tokenizer;

use super::args::{LogForm, ServeArgs, ServedArg};
use super::shares;
use crate::device::Device;
use crate::model_arg::OpenModel;
use crate::{memory, output};

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let options = args.server_options()?;
    check_names(&args.models)?;
    check_address(SocketAddr::new(options.host, options.port))?;
    let begun = Instant::now();
    let device = args.device.open()?;
    // Everything that can be refused is refused before a weight is read.
    let mut opened = Vec::new();
    for arg in &args.models {
        let model = OpenModel::open(&arg.model.name, &args.device.unread)?;
        let tokenizer = model.tokenizer()?;
        let context = args.context(&model)?;
        opened.push((arg, model, tokenizer, context));
    }
    let wanted: Vec<_> = opened
        .iter()
        .map(|(arg, model, _, context)| (model, args.load_options(arg, *context)))
        .collect();
    let plans = shares::plan(&wanted, &device, args.memory)?;
    drop(wanted);
    if !args.lazy_cache {
        let planned = plans.iter().map(|(_, plan)| plan.total()).sum();
        shares::check_available(planned, memory::available(), "the models and their caches")?;
    }
    let turns = Turns::default();
    let mut models = Vec::new();
    let mut reserved = Reserved::default();
    for ((arg, model, tokenizer, _), (load, plan)) in opened.into_iter().zip(plans) {
        announce(arg, &load, &plan);
        let (model, own) = start(args, arg, model, tokenizer, load, &device, &turns)?;
        models.push(model.with_planned_memory(plan.parts()));
        reserved.bytes += own.bytes;
        reserved.time += own.time;
    }
    let loaded = begun.elapsed() - reserved.time;
    let reserved = reserved.in_words();
    serve(options, models, |address| {
        let seconds = loaded.as_secs_f64();
        let names: Vec<&str> = args.models.iter().map(|arg| arg.name.as_str()).collect();
        let (names, device) = (names.join(", "), device.describe());
        output::note(&format!(
            "{names} on {device}, loaded in {seconds:.1} s, {reserved}; listening at {}",
            page(address)
        ));
    })?;
    Ok(())
}

/// What a browser on this machine opens.
fn page(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://localhost:{}", address.port());
    }
    format!("http://{address}")
}

/// The memory of caches that was taken from the system, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
struct Reserved {
    bytes: u64,
    time: Duration,
}

impl Reserved {
    fn in_words(self) -> String {
        if self.bytes == 0 {
            return "caches grow as they fill".to_owned();
        }
        format!("{} MiB of cache taken in {:.1} s", self.bytes >> 20, self.time.as_secs_f64())
    }
}

/// Takes the memory of a model's cache, which may be less than there was before its weights were read.
fn reserve(decoder: &mut Decoder<Device>) -> anyhow::Result<Reserved> {
    let bytes = decoder.plan().kv_bytes;
    shares::check_available(bytes, memory::unused(), "the blocks of the cache")?;
    let begun = Instant::now();
    decoder.reserve_cache();
    Ok(Reserved { bytes, time: begun.elapsed() })
}

/// Loads a model and starts its engine.
fn start(
    args: &ServeArgs,
    arg: &ServedArg,
    model: OpenModel,
    tokenizer: Tokenizer,
    load: LoadOptions,
    device: &Device,
    turns: &Turns,
) -> anyhow::Result<(ServedModel, Reserved)> {
    let format = arg.model.format_or(args.dtype);
    let parameters = model.checkpoint.parameters() as f64 / 1e6;
    let kind = model.arch.model_type;
    let description = format!("{kind}, {parameters:.1} M parameters, {format}");
    let generation_config = model.checkpoint.generation_config();
    let sampling = generation_config
        .map(|config| SamplingParams::default().as_stated_by(config))
        .unwrap_or_default();
    sampling
        .validate()
        .map_err(|error| anyhow!("{}, generation_config.json: {error}", arg.name))?;
    let (device, turns, lazy) = (device.clone(), turns.clone(), args.lazy_cache);
    let (tell, reserved) = mpsc::channel();
    let engine = EngineHandle::spawn(args.handle_options(), move || {
        let mut decoder = model.load(&device, &load)?;
        let taken = if lazy { Reserved::default() } else { reserve(&mut decoder)? };
        tell.send(taken)?;
        Ok(turns.share(decoder))
    })?;
    let served = ServedModel::new(&arg.name, engine, Arc::new(tokenizer));
    Ok((served.with_description(description).with_sampling(sampling), reserved.recv()?))
}

/// The memory plan, and what it means for requests.
fn announce(arg: &ServedArg, load: &LoadOptions, plan: &MemoryPlan) {
    let tokens = plan.num_blocks * plan.block_tokens;
    let indented: Vec<String> = plan.to_string().lines().map(|line| format!("  {line}")).collect();
    output::note(&format!(
        "{}\n{}\n  {tokens} tokens of cache: {} requests of {} tokens side by side, or {} of {}",
        arg.name,
        indented.join("\n"),
        (tokens / plan.max_context).max(1).min(load.max_sequences),
        plan.max_context,
        load.max_sequences,
        (tokens / load.max_sequences).min(plan.max_context),
    ));
}

fn check_names(models: &[ServedArg]) -> anyhow::Result<()> {
    for (n, arg) in models.iter().enumerate() {
        if models[..n].iter().any(|other| other.name == arg.name) {
            bail!(
                "two models are called {}; name one of them, as in other={}",
                arg.name,
                arg.model.name
            );
        }
    }
    Ok(())
}

/// Refuses an address that is taken before minutes are spent on loading.
fn check_address(address: SocketAddr) -> anyhow::Result<()> {
    TcpListener::bind(address).map(drop).map_err(|error| {
        anyhow!("cannot listen at {address}: {error}; choose another --port or --host")
    })
}

impl ServeArgs {
    fn server_options(&self) -> anyhow::Result<ServerOptions> {
        let mut api_keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let text = fs::read_to_string(path)
                .map_err(|error| anyhow!("cannot read the keys in {}: {error}", path.display()))?;
            let keys = text.lines().map(str::trim).filter(|key| !key.is_empty());
            api_keys.extend(keys.map(str::to_owned));
            if api_keys.is_empty() {
                bail!("{} holds no key; write one a line", path.display());
            }
        }
        if api_keys.iter().any(|key| key.trim().is_empty()) {
            bail!("an API key is empty; leave --api-key out to answer everyone");
        }
        let log_target = match (self.log, &self.log_file) {
            (LogForm::Off, _) => LogTarget::Off,
            (_, Some(path)) => LogTarget::File(path.clone()),
            (_, None) => LogTarget::Stderr,
        };
        let log_format = match self.log {
            LogForm::Json => LogFormat::Json,
            LogForm::Text | LogForm::Off => LogFormat::Text,
        };
        Ok(ServerOptions {
            host: self.host,
            port: self.port,
            #[cfg(feature = "grpc")]
            grpc_port: self.grpc_port,
            api_keys,
            allow_hosts: self.allow_host.clone(),
            cors_origins: self.cors_origin.clone(),
            max_body_bytes: self.max_body.map(usize::try_from).transpose()?,
            deadline: Some(Duration::from_secs(self.request_timeout as u64)),
            grace: Duration::from_secs(self.drain_timeout as u64),
            // Those that run and wait, and as many again that are prepared or refused.
            max_requests: self.models.len() * 2 * (self.max_num_seqs + self.max_waiting),
            // An idle one that is closed for another surprises its client: small queues have room too.
            max_connections: (self.models.len() * 4 * (self.max_num_seqs + self.max_waiting))
                .max(512),
            log_target,
            log_format,
            ..ServerOptions::default()
        })
    }
}
