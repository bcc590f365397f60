//! What a request may hold, read off the schemas of the types that read it.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems};
use utoipa::openapi::{RefOr, Schema};

use crate::error::ApiError;
use crate::request::fields::{FieldSet, Honoured, Notes, Place};

/// What is known of a value.
pub(crate) enum Shape {
    /// Nothing that has fields of ours: a number, a text, or what the client likes.
    Free,
    /// An object with these fields.
    Object(FieldSet),
    /// A list of such values.
    List(Box<Self>),
    /// An object that maps names of the client's to such values.
    Map(Box<Self>),
    /// One of these.
    Variants(Vec<Self>),
}

/// The shape of a type.
pub(super) fn of<T: ToSchema>(notes: &[&'static [Notes]]) -> Shape {
    let mut schemas = Vec::new();
    T::schemas(&mut schemas);
    Reader { schemas: schemas.into_iter().collect(), notes }.shape(&T::schema(), &T::name())
}

impl Shape {
    /// Checks the fields of every object in a value.
    pub(super) fn check(&self, value: &mut Value, place: &Place<'_>) -> Result<(), ApiError> {
        match (self, value) {
            (Self::Object(fields), Value::Object(object)) => fields.check_at(object, place),
            (Self::List(item), Value::Array(items)) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(index, value)| item.check(value, &Place::Item(place, index))),
            (Self::Map(of), Value::Object(object)) => object
                .iter_mut()
                .try_for_each(|(name, value)| of.check(value, &Place::Field(place, name))),
            (Self::Variants(variants), value) => {
                match variants.iter().find(|variant| variant.is_that_of(value)) {
                    Some(variant) => variant.check(value, place),
                    // Reading it says what is wrong.
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether a value is of this shape rather than of another of a choice.
    fn is_that_of(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Object(fields), Value::Object(object)) => fields.honoured.iter().all(|field| {
                let expected = field.constant.as_deref();
                expected.is_none_or(|text| object.get(&field.name).is_some_and(|v| v == text))
            }),
            (Self::Map(_), Value::Object(_)) | (Self::List(_), Value::Array(_)) => true,
            _ => false,
        }
    }

    const fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }
}

/// Reads schemas that refer to each other.
struct Reader<'a> {
    schemas: BTreeMap<String, RefOr<Schema>>,
    notes: &'a [&'static [Notes]],
}

impl Reader<'_> {
    /// The shape of a schema that stands in the schema of this name.
    fn shape(&self, schema: &RefOr<Schema>, name: &str) -> Shape {
        let schema = match schema {
            RefOr::T(schema) => schema,
            RefOr::Ref(reference) => {
                let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
                let known = self.schemas.get(name);
                return known.map_or(Shape::Free, |schema| self.shape(schema, name));
            }
        };
        match schema {
            Schema::Object(object) if !object.properties.is_empty() => {
                let fields = object.properties.iter().map(|(field, schema)| Honoured {
                    name: field.clone(),
                    shape: self.shape(schema, name),
                    constant: constant(schema),
                    #[cfg(test)]
                    description: description(schema).unwrap_or_default(),
                    #[cfg(test)]
                    required: object.required.contains(field),
                });
                Shape::Object(self.noted(fields.collect(), name))
            }
            Schema::Object(object) => match object.additional_properties.as_deref() {
                Some(AdditionalProperties::RefOr(of)) => {
                    let of = self.shape(of, name);
                    if of.is_free() { Shape::Free } else { Shape::Map(Box::new(of)) }
                }
                _ => Shape::Free,
            },
            Schema::Array(array) => match &array.items {
                ArrayItems::RefOrSchema(item) => {
                    let item = self.shape(item, name);
                    if item.is_free() { Shape::Free } else { Shape::List(Box::new(item)) }
                }
                ArrayItems::False => Shape::Free,
            },
            Schema::OneOf(choice) => self.choice(&choice.items, name),
            Schema::AnyOf(choice) => self.choice(&choice.items, name),
            Schema::AllOf(all) => {
                let parts = all.items.iter().map(|part| self.shape(part, name));
                let mut fields = FieldSet::default();
                for part in parts {
                    if let Shape::Object(part) = part {
                        fields.honoured.extend(part.honoured);
                    }
                }
                Shape::Object(self.noted(fields.honoured, name))
            }
            _ => Shape::Free,
        }
    }

    fn choice(&self, items: &[RefOr<Schema>], name: &str) -> Shape {
        let shapes = items.iter().map(|item| self.shape(item, name));
        let mut shapes: Vec<Shape> = shapes.filter(|shape| !shape.is_free()).collect();
        match shapes.len() {
            0 => Shape::Free,
            1 => shapes.swap_remove(0),
            _ => Shape::Variants(shapes),
        }
    }

    /// These fields, and what is noted of others of the object.
    fn noted(&self, honoured: Vec<Honoured>, name: &str) -> FieldSet {
        let notes = || self.notes.iter().copied().flatten().filter(|notes| notes.of == name);
        FieldSet {
            honoured,
            without_effect: notes().flat_map(|notes| notes.without_effect).collect(),
            refused: notes().flat_map(|notes| notes.refused).collect(),
        }
    }
}

/// The only text that a schema allows.
fn constant(schema: &RefOr<Schema>) -> Option<String> {
    let RefOr::T(Schema::Object(object)) = schema else { return None };
    match object.enum_values.as_deref() {
        Some([Value::String(text)]) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
fn description(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::Ref(reference) => Some(reference.description.clone()),
        RefOr::T(Schema::Object(object)) => object.description.clone(),
        RefOr::T(Schema::Array(array)) => array.description.clone(),
        // An option is nothing or what it is an option of.
        RefOr::T(Schema::OneOf(one_of)) => {
            one_of.description.clone().or_else(|| one_of.items.iter().find_map(description))
        }
        RefOr::T(Schema::AllOf(all_of)) => all_of.description.clone(),
        RefOr::T(_) => None,
    }
}
