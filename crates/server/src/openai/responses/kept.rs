//! Responses that are kept: shown again, or forgotten.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::error::{ApiError, ErrorKind};
use crate::openai::responses::create::not_kept;
use crate::openai::responses::object::ResponseObject;
use crate::openapi::ErrorResponse;
use crate::state::AppState;

/// One response that is kept.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    operation_id = "show_response",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The response's name")),
    responses(
        (status = 200, description = "The response", body = ResponseObject),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn show(
    State(state): State<AppState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let kept = state.responses.find(&id, state.owner(&headers)).ok_or_else(|| not_found(&id))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], kept.response.clone()).into_response())
}

/// A response that is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    id: String,
    /// `response`.
    object: &'static str,
    deleted: bool,
}

/// Forgets a response.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    operation_id = "delete_response",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The response's name")),
    responses(
        (status = 200, description = "It is gone", body = Deleted),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    if state.responses.forget(&id, state.owner(&headers)) {
        return Ok(Json(Deleted { id, object: "response", deleted: true }));
    }
    Err(not_found(&id))
}

/// Which items are shown.
#[derive(Deserialize, IntoParams)]
pub(crate) struct Page {
    /// Items at most, 1 to 100; 20 if not set.
    limit: Option<usize>,
    /// `asc`, or `desc` (the latest first), also if not set.
    order: Option<String>,
    /// Begins after the item of this name.
    after: Option<String>,
}

/// Items.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemList {
    /// `list`.
    object: &'static str,
    #[schema(value_type = Vec<Object>)]
    data: Vec<Value>,
    first_id: Value,
    last_id: Value,
    has_more: bool,
}

/// What a response that is kept was the answer to.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    operation_id = "list_input_items",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The response's name"), Page),
    responses(
        (status = 200, description = "The items", body = ItemList),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn input_items(
    State(state): State<AppState>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<ItemList>, ApiError> {
    let kept = state.responses.find(&id, state.owner(&headers)).ok_or_else(|| not_found(&id))?;
    let limit = page.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        let message = format!("limit is {limit}, expected 1 to 100");
        return Err(ApiError::bad_request(message).param("limit"));
    }
    let mut items = kept.input();
    match page.order.as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(other) => {
            let message = format!("order is {other:?}, expected asc or desc");
            return Err(ApiError::bad_request(message).param("order"));
        }
    }
    if let Some(after) = page.after {
        let Some(place) = items.iter().position(|item| item["id"] == after) else {
            let message = format!("after is {after:?}, which is no item before {id}");
            return Err(ApiError::bad_request(message).param("after"));
        };
        items.drain(..=place);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let name = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first_id, last_id) = (name(items.first()), name(items.last()));
    Ok(Json(ItemList { object: "list", data: items, first_id, last_id, has_more }))
}

fn not_found(id: &str) -> ApiError {
    let ApiError { message, .. } = not_kept(id);
    ApiError::new(ErrorKind::NotFound, message).param("id").code("response_not_found")
}
