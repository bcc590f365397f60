//! Tensors: elements of one type in a shape, as JSON or as bytes.

use serde_json::{Number, Value};

use crate::error::ApiError;

/// Dimensions of a tensor at most.
const MAX_DIMENSIONS: usize = 8;

/// The type of a tensor's elements. 16-bit floats are missing: no input here needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp32,
    Fp64,
    /// Texts.
    Bytes,
}

/// Each with its name and the bytes of an element, which texts say themselves.
const DATATYPES: [(Datatype, &str, usize); 12] = [
    (Datatype::Bool, "BOOL", 1),
    (Datatype::Uint8, "UINT8", 1),
    (Datatype::Uint16, "UINT16", 2),
    (Datatype::Uint32, "UINT32", 4),
    (Datatype::Uint64, "UINT64", 8),
    (Datatype::Int8, "INT8", 1),
    (Datatype::Int16, "INT16", 2),
    (Datatype::Int32, "INT32", 4),
    (Datatype::Int64, "INT64", 8),
    (Datatype::Fp32, "FP32", 4),
    (Datatype::Fp64, "FP64", 8),
    (Datatype::Bytes, "BYTES", 0),
];

impl Datatype {
    fn row(self) -> (&'static str, usize) {
        let row = DATATYPES.iter().find(|(datatype, ..)| *datatype == self);
        row.map(|&(_, name, size)| (name, size)).expect("every type has its row")
    }

    /// Its name in the protocol.
    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    /// Its name in Triton's model configuration.
    pub(crate) fn config_name(self) -> String {
        format!("TYPE_{}", if self == Self::Bytes { "STRING" } else { self.name() })
    }

    /// The type of this name, for the tensor `tensor`.
    pub(crate) fn parse(name: &str, tensor: &str) -> Result<Self, ApiError> {
        let row = DATATYPES.iter().find(|(_, known, _)| *known == name);
        row.map(|&(datatype, ..)| datatype).ok_or_else(|| {
            let names: Vec<&str> = DATATYPES.iter().map(|(_, name, _)| *name).collect();
            let names = names.join(", ");
            bad(tensor, format_args!("has the datatype {name:?}, expected one of {names}"))
        })
    }

    /// An element of fixed size, little-endian; none if JSON cannot say it (NaN, infinity).
    fn element(self, bytes: &[u8]) -> Option<Value> {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(wide);
        let unused_bits = 64 - 8 * bytes.len() as u32;
        Some(match self {
            Self::Bool => (unsigned != 0).into(),
            Self::Uint8 | Self::Uint16 | Self::Uint32 | Self::Uint64 => unsigned.into(),
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => {
                // The sign is the highest bit of what was sent.
                (((unsigned << unused_bits) as i64) >> unused_bits).into()
            }
            Self::Fp32 => Number::from_f64(f32::from_bits(unsigned as u32).into())?.into(),
            Self::Fp64 => Number::from_f64(f64::from_bits(unsigned))?.into(),
            Self::Bytes => return None,
        })
    }

    /// Whether a JSON value can be an element.
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Uint8 | Self::Uint16 | Self::Uint32 | Self::Uint64 => value.is_u64(),
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => value.is_i64(),
            Self::Fp32 | Self::Fp64 => value.is_number(),
            Self::Bytes => value.is_string(),
        }
    }
}

/// Something is wrong with an input tensor.
pub(crate) fn bad(tensor: &str, problem: impl std::fmt::Display) -> ApiError {
    // A name of any length comes from outside.
    let tensor: String = tensor.chars().take(64).collect();
    ApiError::bad_request(format!("the tensor {tensor} {problem}")).param(tensor)
}

/// An input: as many elements as its shape holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Row by row; each a number, a text or a truth value.
    pub(crate) elements: Vec<Value>,
}

impl Tensor {
    /// A tensor with the elements that arrived some way.
    pub(crate) fn new(name: &str, shape: &[i64], elements: Vec<Value>) -> Result<Self, ApiError> {
        if shape.len() > MAX_DIMENSIONS {
            let got = shape.len();
            let problem = format!("has {got} dimensions, expected at most {MAX_DIMENSIONS}");
            return Err(bad(name, problem));
        }
        let sizes: Option<Vec<usize>> = shape.iter().map(|&n| usize::try_from(n).ok()).collect();
        let sizes = sizes.ok_or_else(|| {
            bad(name, format_args!("has the shape {shape:?}, expected sizes of 0 or more"))
        })?;
        let count = sizes.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
        if count != Some(elements.len()) {
            let got = elements.len();
            return Err(bad(name, format_args!("has the shape {shape:?} but {got} elements")));
        }
        Ok(Self { name: name.to_owned(), shape: sizes, elements })
    }

    /// The elements in a list, or in lists of lists.
    pub(crate) fn elements_of_json(
        name: &str,
        datatype: Datatype,
        data: &Value,
    ) -> Result<Vec<Value>, ApiError> {
        let mut elements = Vec::new();
        flatten(data, &mut elements);
        match elements.iter().position(|element| !datatype.fits(element)) {
            Some(place) => {
                let datatype = datatype.name();
                Err(bad(name, format_args!("has the element {place} that is not {datatype}")))
            }
            None => Ok(elements),
        }
    }

    /// The elements in bytes, `most` at most: little-endian, texts with their length before them as 4
    /// bytes.
    pub(crate) fn elements_of_bytes(
        name: &str,
        datatype: Datatype,
        bytes: &[u8],
        most: usize,
    ) -> Result<Vec<Value>, ApiError> {
        if datatype == Datatype::Bytes {
            return texts(name, bytes, most);
        }
        let (datatype_name, size) = datatype.row();
        // An element takes many times the bytes that it came in.
        if bytes.len() / size > most {
            return Err(too_many(name, most));
        }
        let got = bytes.len();
        if !got.is_multiple_of(size) {
            let problem = format!("has {got} bytes, which are not whole {datatype_name} elements");
            return Err(bad(name, problem));
        }
        let elements = bytes.chunks_exact(size).map(|bytes| {
            datatype.element(bytes).ok_or_else(|| bad(name, "has an element that is not a number"))
        });
        elements.collect()
    }
}

fn flatten(data: &Value, elements: &mut Vec<Value>) {
    match data {
        // JSON that was parsed is not deeper than its parser allows.
        Value::Array(items) => items.iter().for_each(|item| flatten(item, elements)),
        element => elements.push(element.clone()),
    }
}

fn too_many(name: &str, most: usize) -> ApiError {
    bad(name, format_args!("has more than {most} elements; send fewer"))
}

fn texts(name: &str, mut bytes: &[u8], most: usize) -> Result<Vec<Value>, ApiError> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        if texts.len() == most {
            return Err(too_many(name, most));
        }
        let text = bytes.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let Some((text, rest)) = text else {
            let number = texts.len();
            return Err(bad(
                name,
                format_args!(
                    "breaks off in element {number}, expected 4 bytes of length, then text"
                ),
            ));
        };
        texts.push(text_element(name, text)?);
        bytes = rest;
    }
    Ok(texts)
}

/// An element of a tensor of texts.
pub(crate) fn text_element(name: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    let text = str::from_utf8(bytes);
    text.map(Value::from).map_err(|_| bad(name, "has an element that is not UTF-8"))
}

/// The elements of an output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Elements {
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Counts(Vec<u32>),
}

impl Elements {
    pub(crate) fn datatype(&self) -> Datatype {
        match self {
            Self::Texts(_) => Datatype::Bytes,
            Self::Floats(_) => Datatype::Fp32,
            Self::Counts(_) => Datatype::Uint32,
        }
    }

    /// As JSON: a list.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        match self {
            Self::Texts(texts) => texts.iter().map(|text| text.as_str().into()).collect(),
            Self::Floats(floats) => floats.iter().map(|&float| float.into()).collect(),
            Self::Counts(counts) => counts.iter().map(|&count| count.into()).collect(),
        }
    }

    /// As bytes, in the form that [`Tensor::elements_of_bytes`] reads.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Texts(texts) => {
                let mut bytes = Vec::new();
                for text in texts {
                    // Texts come from a context of tokens: nowhere near 4 GiB.
                    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                bytes
            }
            Self::Floats(floats) => floats.iter().flat_map(|float| float.to_le_bytes()).collect(),
            Self::Counts(counts) => counts.iter().flat_map(|count| count.to_le_bytes()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_read_as_the_type_says() {
        let read = |datatype, bytes: &[u8]| {
            Value::from(Tensor::elements_of_bytes("x", datatype, bytes, 9).unwrap())
        };
        assert_eq!(read(Datatype::Int16, &[0xfe, 0xff, 3, 0]), json!([-2, 3]));
        assert_eq!(read(Datatype::Uint16, &[0xfe, 0xff]), json!([65534]));
        assert_eq!(read(Datatype::Int64, &(-7i64).to_le_bytes()), json!([-7]));
        assert_eq!(read(Datatype::Uint64, &u64::MAX.to_le_bytes()), json!([u64::MAX]));
        assert_eq!(read(Datatype::Fp32, &0.5f32.to_le_bytes()), json!([0.5]));
        assert_eq!(read(Datatype::Bool, &[0, 1]), json!([false, true]));
        assert_eq!(read(Datatype::Bytes, &[]), json!([]));
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        let bytes = |datatype, bytes: &[u8]| {
            Tensor::elements_of_bytes("x", datatype, bytes, 2).unwrap_err().to_string()
        };
        assert!(bytes(Datatype::Int32, &[1, 2, 3]).contains("3 bytes"));
        assert!(bytes(Datatype::Bytes, &[1, 0, 0]).contains("element 0"));
        assert!(bytes(Datatype::Bytes, &[0xff, 0xff, 0xff, 0xff, b'a']).contains("element 0"));
        assert!(bytes(Datatype::Bytes, &[1, 0, 0, 0, 0xff]).contains("UTF-8"));
        assert!(bytes(Datatype::Fp32, &f32::NAN.to_le_bytes()).contains("not a number"));
        assert!(bytes(Datatype::Bool, &[0, 1, 0]).contains("more than 2 elements"));
        assert!(bytes(Datatype::Bytes, &[0; 12]).contains("more than 2 elements"));
        let shape = |shape: &[i64], count| {
            Tensor::new("x", shape, vec![1.into(); count]).map_err(|error| error.message)
        };
        shape(&[2, 1], 2).unwrap();
        shape(&[0], 0).unwrap();
        assert!(shape(&[-1], 1).unwrap_err().contains("[-1]"));
        assert!(shape(&[2], 3).unwrap_err().contains("3 elements"));
        assert!(shape(&[i64::MAX, i64::MAX], 1).is_err());
        assert!(shape(&[1; 9], 1).unwrap_err().contains("9 dimensions"));
        let json = Tensor::elements_of_json("x", Datatype::Int32, &json!([[1], ["2"]]));
        assert!(json.unwrap_err().message.contains("element 1 that is not INT32"));
        assert!(Datatype::parse("FP16", "x").unwrap_err().message.contains("FP32"));
    }

    proptest! {
        #[test]
        fn elements_survive_their_bytes(
            texts: Vec<String>,
            floats in proptest::collection::vec(proptest::num::f32::NORMAL, 0..9),
            counts: Vec<u32>,
        ) {
            for elements in [Elements::Texts(texts), Elements::Floats(floats), Elements::Counts(counts)] {
                let (datatype, bytes) = (elements.datatype(), elements.to_bytes());
                let read =
                    Tensor::elements_of_bytes("x", datatype, &bytes, usize::MAX).unwrap();
                let json = Value::from(elements.to_json());
                let of_json = Tensor::elements_of_json("x", datatype, &json).unwrap();
                prop_assert_eq!(read, of_json);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            for (datatype, ..) in DATATYPES {
                let _ = Tensor::elements_of_bytes("x", datatype, &bytes, usize::MAX);
            }
        }
    }
}
