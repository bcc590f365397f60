//! What all requests share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bantam_text::Cancel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::ApiKeys;
use crate::error::{ApiError, ErrorKind};
use crate::http_metrics::HttpMetrics;
use crate::log::Log;
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
    pub(crate) observer: Arc<Observer>,
    /// Requests that may be under way.
    requests: Arc<Semaphore>,
    preparations: Preparations,
    salts: RandomState,
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
        Ok(Arc::new(Self {
            models,
            keys: ApiKeys::new(options.api_keys.clone()),
            observer: Arc::new(Observer { log, http: HttpMetrics::default() }),
            requests: Arc::new(Semaphore::new(options.max_requests)),
            preparations: Preparations::default(),
            salts: RandomState::new(),
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
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| {
            let message = format!(
                "{} requests are under way, as many as this server allows; retry in 1 s",
                self.options.max_requests
            );
            ApiError::new(ErrorKind::Overloaded, message)
                .code("too_many_requests")
                .retry_after(std::time::Duration::from_secs(1))
        })
    }

    /// The number by which the cache tells salts apart: unpredictable, the same for the same text.
    #[must_use]
    pub fn salt(&self, text: &str) -> u64 {
        self.salts.hash_one(text)
    }

    /// Tells every engine to finish what it has and to accept nothing new.
    pub fn drain(&self) {
        self.models.iter().for_each(|model| model.engine().drain());
    }

    /// Tells every engine to end after the current step.
    pub fn shutdown(&self) {
        self.models.iter().for_each(|model| model.engine().shutdown());
    }
}
