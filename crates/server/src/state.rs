//! What all requests share.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use bantam_text::Cancel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::activity::Registry;
use crate::auth::ApiKeys;
use crate::body_limits::{BodyLimits, BodyRoom};
use crate::error::{ApiError, ErrorKind};
use crate::http_metrics::HttpMetrics;
use crate::log::Log;
use crate::openai::responses::store::{Owner, ResponseStore};
use crate::origin::Origins;
use crate::preparation::Preparations;
use crate::record::Observer;
use crate::{ServeError, ServedModel, ServerOptions};

/// The models, the options, and what is counted. Handlers get it as `State<AppState>`.
pub type AppState = Arc<ServerState>;

/// See [`AppState`].
pub struct ServerState {
    /// The models, in the order given.
    pub models: Vec<ServedModel>,
    /// The options.
    pub options: ServerOptions,
    pub(crate) keys: ApiKeys,
    pub(crate) origins: Origins,
    pub(crate) body_limits: BodyLimits,
    pub(crate) body_room: BodyRoom,
    pub(crate) observer: Arc<Observer>,
    pub(crate) connections: Arc<Registry>,
    /// Requests that may be under way.
    requests: Arc<Semaphore>,
    preparations: Preparations,
    /// Responses of `/v1/responses` that are kept for a while.
    pub(crate) responses: ResponseStore,
    salts: RandomState,
    /// When the server ends, once it was told to stop.
    end: OnceLock<Instant>,
}

impl ServerState {
    /// Opens the log.
    ///
    /// # Errors
    /// If there is no model, two have one name, or the log cannot be opened.
    pub fn new(options: ServerOptions, models: Vec<ServedModel>) -> Result<AppState, ServeError> {
        if models.is_empty() {
            return Err(ServeError::NoModel);
        }
        for (n, model) in models.iter().enumerate() {
            if models[..n].iter().any(|other| other.name() == model.name()) {
                return Err(ServeError::SameName { name: model.name().to_owned() });
            }
        }
        let log = Log::open(&options.log_target, options.log_format).map_err(ServeError::Log)?;
        let context = models.iter().map(ServedModel::context).max().unwrap_or_default();
        let body_limits = BodyLimits::new(context, options.max_body_bytes);
        Ok(Arc::new(Self {
            models,
            body_room: BodyRoom::new(&body_limits),
            body_limits,
            origins: Origins::new(&options),
            keys: ApiKeys::new(options.api_keys.clone()),
            observer: Arc::new(Observer { log, http: HttpMetrics::default() }),
            connections: Arc::new(Registry::new(options.max_connections)),
            requests: Arc::new(Semaphore::new(options.max_requests)),
            preparations: Preparations::default(),
            responses: ResponseStore::default(),
            salts: RandomState::new(),
            end: OnceLock::new(),
            options,
        }))
    }

    /// The model of this name.
    ///
    /// # Errors
    /// If there is none: names those there are.
    pub fn model(&self, name: &str) -> Result<&ServedModel, ApiError> {
        self.models.iter().find(|model| model.name() == name).ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(ServedModel::name).collect();
            let message =
                format!("the model {name:?} is not served here, expected {}", names.join(" or "));
            ApiError::new(ErrorKind::NotFound, message).param("model").code("model_not_found")
        })
    }

    /// The model that a request asks for; it may leave that out where one is served.
    ///
    /// # Errors
    /// If there is none of this name, or several of which none is named.
    pub fn model_or_only(&self, name: Option<&str>) -> Result<&ServedModel, ApiError> {
        match (name, &self.models[..]) {
            (None | Some(""), [only]) => Ok(only),
            (None | Some(""), _) => {
                let names: Vec<&str> = self.models.iter().map(ServedModel::name).collect();
                let message = format!("model is missing, expected {}", names.join(" or "));
                Err(ApiError::bad_request(message).param("model"))
            }
            (Some(name), _) => self.model(name),
        }
    }

    /// Runs work that takes long, such as tokenizing, off the threads that serve connections; as
    /// many at once as there are processors. When the future is dropped, because the client has
    /// left, the work is told by its [`Cancel`].
    ///
    /// # Errors
    /// Those of `work`; an internal error if it panics.
    pub async fn prepare<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let state = Arc::clone(self);
        self.preparations.run(move |cancel| work(&state, cancel)).await
    }

    /// A place among the requests under way.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.check_running()?;
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| self.no_place())
    }

    /// Refuses at once what would find no place later.
    pub(crate) fn check_place(&self) -> Result<(), ApiError> {
        if self.requests.available_permits() == 0 { Err(self.no_place()) } else { Ok(()) }
    }

    fn no_place(&self) -> ApiError {
        let message = format!(
            "{} requests are under way, as many as this server allows; retry in 1 s",
            self.options.max_requests
        );
        ApiError::new(ErrorKind::Overloaded, message)
            .code("too_many_requests")
            .retry_after(Duration::from_secs(1))
    }

    /// Refuses once the server was told to stop.
    pub(crate) fn check_running(&self) -> Result<(), ApiError> {
        let Some(end) = self.end.get() else { return Ok(()) };
        let left = end.saturating_duration_since(Instant::now());
        let message = "the server stops and completes what it has begun; ask another, or later";
        Err(ApiError::new(ErrorKind::Unavailable, message).code("stopping").retry_after(left))
    }

    /// Waits until no request is under way.
    pub(crate) async fn all_answered(&self) {
        // More than this many cannot be acquired at once; so many never are.
        let all = u32::try_from(self.options.max_requests).unwrap_or(u32::MAX);
        let _ = self.requests.acquire_many(all).await;
    }

    /// Whose a request is: what belongs to one API key is not shown to another.
    pub(crate) fn owner(&self, headers: &HeaderMap) -> Owner {
        self.keys.shown(headers).map_or(0, |key| self.salts.hash_one(key))
    }

    /// The number by which the cache tells salts apart: unpredictable, the same for the same text.
    #[must_use]
    pub fn salt(&self, text: &str) -> u64 {
        self.salts.hash_one(text)
    }

    /// Refuses what is new from now on, and tells every engine to finish what it has.
    pub fn drain(&self) {
        self.end.get_or_init(|| Instant::now() + self.options.grace);
        self.models.iter().for_each(|model| model.engine().drain());
    }

    /// Tells every engine to end after the current step.
    pub fn shutdown(&self) {
        self.models.iter().for_each(|model| model.engine().shutdown());
    }
}

/// A request's place among those under way: taken once its body is there, so that a client that sends
/// slowly keeps it from nobody, and kept until the response has been sent.
#[derive(Default)]
pub(crate) struct Place(OnceLock<OwnedSemaphorePermit>);

impl Place {
    /// Takes it.
    pub(crate) fn take(&self, state: &ServerState) -> Result<(), ApiError> {
        if self.0.get().is_none() {
            // A request reads its body once, so nobody else has taken it meanwhile.
            let _ = self.0.set(state.admit()?);
        }
        Ok(())
    }
}
