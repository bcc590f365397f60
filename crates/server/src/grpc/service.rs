//! The calls.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time;
use tonic::{Request, Response, Status, Streaming};

use crate::ServedModel;
use crate::error::ApiError;
use crate::grpc::convert;
use crate::grpc::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::grpc::inference::model_metadata_response::TensorMetadata;
use crate::grpc::inference::repository_index_response::ModelIndex;
use crate::grpc::inference::*;
use crate::kserve::VERSION;
use crate::kserve::generation::{self, Answering};
use crate::kserve::metadata::{self, EXTENSIONS, MAX_BATCH_SIZE, SERVER};
use crate::kserve::stats::{self, Statistics};
use crate::record::Record;
use crate::request_id;
use crate::state::AppState;

/// Answers all calls.
pub(super) struct Service {
    state: AppState,
}

/// A call under way: its notes, and its place if it costs work.
struct Call {
    record: Arc<Record>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// What a call costs, and who may make it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anybody: what a load balancer asks.
    Open,
    /// Whoever has a key.
    Closed,
    /// Whoever has a key, while there is a place.
    Work,
}

impl Service {
    pub(super) fn new(state: AppState) -> Self {
        Self { state }
    }

    /// Begins a call.
    fn call(&self, headers: &HeaderMap, name: &str, kind: Kind) -> Result<Call, ApiError> {
        let id = request_id::of(headers);
        let route = format!("/inference.GRPCInferenceService/{name}");
        let record = Record::new(Arc::clone(&self.state.observer), id, "GRPC", &route);
        let admitted = || {
            if kind != Kind::Open {
                self.state.keys.check(headers)?;
            }
            (kind == Kind::Work).then(|| self.state.admit()).transpose()
        };
        match admitted() {
            Ok(permit) => Ok(Call { record, _permit: permit }),
            Err(error) => {
                refused(&record, &error);
                Err(error)
            }
        }
    }

    /// Answers a call that is answered at once.
    fn answer<Q, R>(
        &self,
        request: Request<Q>,
        name: &str,
        kind: Kind,
        answer: impl FnOnce(Q) -> Result<R, ApiError>,
    ) -> Result<Response<R>, Status> {
        let (metadata, _, question) = request.into_parts();
        let call = self.call(&metadata.into_headers(), name, kind);
        call.and_then(|call| call.end(answer(question))).map_err(|error| convert::status(&error))
    }

    fn model(&self, name: &str, version: &str) -> Result<&ServedModel, ApiError> {
        generation::model(&self.state, name, version)
    }
}

fn refused(record: &Record, error: &ApiError) {
    record.failed(&error.message);
    record.responded(error.kind.status().as_u16());
}

impl Call {
    /// Notes how a call ended.
    fn end<R>(self, answer: Result<R, ApiError>) -> Result<Response<R>, ApiError> {
        match &answer {
            Ok(_) => self.record.responded(200),
            Err(error) => refused(&self.record, error),
        }
        answer.map(Response::new)
    }
}

/// Checks a request and asks the engine; whether to stream comes along.
async fn begin(
    state: &AppState,
    record: &Arc<Record>,
    request: ModelInferRequest,
    can_stream: bool,
) -> Result<(convert::Head, Answering, bool), ApiError> {
    convert::check_size(&request, &state.body_limits)?;
    let prepared =
        state.prepare(move |state, cancel| convert::prepare(state, request, can_stream, cancel));
    let (head, generation, stream) = prepared.await?;
    let answering = generation.begin(state, Arc::clone(record)).await?;
    Ok((head, answering, stream))
}

type Responses = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

/// The responses to one request of a stream. Errors are among them: the stream goes on.
fn responses(state: AppState, call: Call, request: ModelInferRequest) -> Responses {
    let id = request.id.clone();
    let record = Arc::clone(&call.record);
    let begun = async move { begin(&state, &record, request, true).await };
    let responses = stream::once(begun).flat_map(|begun| match begun {
        Err(error) => stream::once(async { Err(error) }).boxed(),
        Ok((head, answering, true)) => {
            let respond = move |chunk: generation::Chunk| {
                convert::response(&head, chunk.outputs, Some(chunk.is_last))
            };
            answering.chunks().map(move |chunk| chunk.map(&respond)).boxed()
        }
        Ok((head, answering, false)) => {
            let whole =
                async move { Ok(convert::response(&head, answering.whole().await?, Some(true))) };
            stream::once(whole).boxed()
        }
    });
    call.record.responded(200);
    let said = move |response: Result<ModelInferResponse, ApiError>| {
        Ok(match response {
            Ok(response) => ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(response),
            },
            Err(error) => {
                refused(&call.record, &error);
                failed(&id, error)
            }
        })
    };
    responses.map(said).boxed()
}

/// The responses, as long as they are read; a client that leaves one unread for longer than `limit`
/// loses the rest and is told so.
///
/// HTTP/2 asks for nothing while a client has no room for more, so a stream that waits to be asked
/// could not notice: this one is moved by a task.
fn while_read(mut responses: Responses, limit: Duration) -> Responses {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let moving = async {
            while let Some(response) = responses.next().await {
                match time::timeout(limit, sender.reserve()).await {
                    Ok(Ok(place)) => place.send(response),
                    Ok(Err(_)) => return true,
                    Err(_) => return false,
                }
            }
            true
        };
        let in_time = tokio::select! {
            in_time = moving => in_time,
            () = sender.closed() => true,
        };
        if !in_time {
            // Ends the work; then whoever reads after all learns why there is no more.
            drop(responses);
            let message = format!("the responses were not read for {} s", limit.as_secs_f32());
            let _ = sender.send(Err(Status::deadline_exceeded(message))).await;
        }
    });
    stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed()
}

fn failed(id: &str, error: ApiError) -> ModelStreamInferResponse {
    let response = ModelInferResponse { id: id.to_owned(), ..ModelInferResponse::default() };
    ModelStreamInferResponse { error_message: error.message, infer_response: Some(response) }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        request: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        self.answer(request, "ServerLive", Kind::Open, |_| Ok(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        request: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        self.answer(request, "ServerReady", Kind::Open, |_| {
            Ok(ServerReadyResponse { ready: metadata::check_ready(&self.state).is_ok() })
        })
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        self.answer(request, "ModelReady", Kind::Closed, |asked| {
            let model = self.model(&asked.name, &asked.version)?;
            Ok(ModelReadyResponse { ready: metadata::check_model_ready(model).is_ok() })
        })
    }

    async fn server_metadata(
        &self,
        request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        self.answer(request, "ServerMetadata", Kind::Closed, |_| {
            Ok(ServerMetadataResponse {
                name: SERVER.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            })
        })
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let said = |tensor: metadata::TensorMetadata| TensorMetadata {
            name: tensor.name.to_owned(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape,
        };
        self.answer(request, "ModelMetadata", Kind::Closed, |asked| {
            let model = self.model(&asked.name, &asked.version)?;
            Ok(ModelMetadataResponse {
                name: model.name().to_owned(),
                versions: vec![VERSION.to_owned()],
                platform: SERVER.to_owned(),
                inputs: metadata::inputs().map(said).collect(),
                outputs: metadata::outputs().map(said).collect(),
            })
        })
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let infer = async {
            let call = self.call(&metadata.into_headers(), "ModelInfer", Kind::Work)?;
            let record = Arc::clone(&call.record);
            let answer = async {
                let (head, answering, _) = begin(&self.state, &record, request, false).await?;
                Ok(convert::response(&head, answering.whole().await?, None))
            };
            call.end(answer.await)
        };
        infer.await.map_err(|error| convert::status(&error))
    }

    type ModelStreamInferStream = Responses;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let headers = metadata.into_headers();
        self.state.keys.check(&headers).map_err(|error| convert::status(&error))?;
        let service = Self::new(Arc::clone(&self.state));
        let all = requests.map(move |request| {
            let request = match request {
                Ok(request) => request,
                Err(status) => return stream::once(async { Err(status) }).boxed(),
            };
            match service.call(&headers, "ModelStreamInfer", Kind::Work) {
                Ok(call) => responses(Arc::clone(&service.state), call, request),
                Err(error) => stream::once(async move { Ok(failed(&request.id, error)) }).boxed(),
            }
        });
        // Answers to several requests come mixed, as they are made.
        let all = all.flatten_unordered(None).boxed();
        Ok(Response::new(while_read(all, self.state.options.write_timeout)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        self.answer(request, "ModelConfig", Kind::Closed, |asked| {
            let model = self.model(&asked.name, &asked.version)?;
            let input = metadata::inputs().map(|tensor| ModelInput {
                name: tensor.name.to_owned(),
                data_type: convert::config_type(tensor.datatype),
                dims: tensor.shape,
                optional: tensor.optional,
            });
            let output = metadata::outputs().map(|tensor| ModelOutput {
                name: tensor.name.to_owned(),
                data_type: convert::config_type(tensor.datatype),
                dims: tensor.shape,
            });
            let parameter = |text: String| ModelParameter { string_value: text };
            let config = ModelConfig {
                name: model.name().to_owned(),
                max_batch_size: MAX_BATCH_SIZE,
                input: input.collect(),
                output: output.collect(),
                parameters: [
                    ("max_model_len".to_owned(), parameter(model.context().to_string())),
                    ("description".to_owned(), parameter(model.description().to_owned())),
                ]
                .into(),
                backend: SERVER.to_owned(),
                model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
            };
            Ok(ModelConfigResponse { config: Some(config) })
        })
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        self.answer(request, "ModelStatistics", Kind::Closed, |asked| {
            let model_stats = if asked.name.is_empty() {
                self.state.models.iter().map(statistics).collect()
            } else {
                vec![statistics(self.model(&asked.name, &asked.version)?)]
            };
            Ok(ModelStatisticsResponse { model_stats })
        })
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        self.answer(request, "RepositoryIndex", Kind::Closed, |asked| {
            let models = metadata::index_entries(&self.state, asked.ready).into_iter();
            let models = models.map(|entry| ModelIndex {
                name: entry.name,
                version: VERSION.to_owned(),
                state: entry.state.to_owned(),
                reason: entry.reason,
            });
            Ok(RepositoryIndexResponse { models: models.collect() })
        })
    }
}

fn statistics(model: &ServedModel) -> ModelStatistics {
    let said = |duration: stats::Duration| {
        Some(StatisticDuration { count: duration.count, ns: duration.ns })
    };
    let Statistics {
        last_inference,
        inference_count,
        execution_count,
        success,
        fail,
        queue,
        compute_infer,
    } = Statistics::of(model);
    ModelStatistics {
        name: model.name().to_owned(),
        version: VERSION.to_owned(),
        last_inference,
        inference_count,
        execution_count,
        inference_stats: Some(InferStatistics {
            success: said(success),
            fail: said(fail),
            queue: said(queue),
            compute_infer: said(compute_infer),
            ..InferStatistics::default()
        }),
    }
}
