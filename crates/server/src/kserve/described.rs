//! The requests of the KServe protocol in the description of the API: made of the rows that read
//! them ([`FIELDS`](crate::kserve::fields::FIELDS)).

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::kserve::fields::{FIELDS, Field, Kind, Meaning};

/// The body of `/generate` and `/generate_stream`.
pub(crate) struct GenerateRequest;

/// The `parameters` of `/infer`.
pub(crate) struct InferParameters;

impl PartialSchema for GenerateRequest {
    fn schema() -> RefOr<Schema> {
        let parameters = with_fields(ObjectBuilder::new(), true).build();
        let id = ObjectBuilder::new().schema_type(Type::String).build();
        let body = ObjectBuilder::new().property("id", id).property("parameters", parameters);
        with_fields(body, true).build().into()
    }
}

impl PartialSchema for InferParameters {
    fn schema() -> RefOr<Schema> {
        let binary = ObjectBuilder::new().schema_type(Type::Boolean).build();
        let parameters = ObjectBuilder::new().property("binary_data_output", binary);
        with_fields(parameters, true).build().into()
    }
}

impl ToSchema for GenerateRequest {
    fn name() -> Cow<'static, str> {
        "GenerateRequest".into()
    }
}

impl ToSchema for InferParameters {
    fn name() -> Cow<'static, str> {
        "InferParameters".into()
    }
}

/// An object with all fields; `nested` with those that hold more fields.
fn with_fields(object: ObjectBuilder, nested: bool) -> ObjectBuilder {
    let described = FIELDS.iter().filter(|field| nested || field.meaning != Meaning::More);
    described.fold(object, |object, field| object.property(field.name, described_field(field)))
}

fn described_field(field: &Field) -> RefOr<Schema> {
    if field.meaning == Meaning::More {
        return with_fields(ObjectBuilder::new(), false).build().into();
    }
    let of = |kind: Type| ObjectBuilder::new().schema_type(kind).build();
    match field.kind {
        Kind::Text => of(Type::String).into(),
        Kind::Integer | Kind::Bits => of(Type::Integer).into(),
        Kind::Number => of(Type::Number).into(),
        Kind::Flag => of(Type::Boolean).into(),
        Kind::Object => of(Type::Object).into(),
        Kind::Texts => one_or_more(of(Type::String)).into(),
        Kind::Integers => one_or_more(of(Type::Integer)).into(),
    }
}

/// A value, or a list of such values.
fn one_or_more(value: utoipa::openapi::Object) -> Schema {
    let list = ArrayBuilder::new().items(value.clone()).build();
    utoipa::openapi::OneOfBuilder::new().item(value).item(list).build().into()
}
