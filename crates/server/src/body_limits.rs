//! What a body may be, and what it may become.
//!
//! JSON grows when it is read: `{"":0}` are six bytes that become hundreds. So what a text would become
//! is bounded while its bytes arrive, before any value is made, and so are the bytes of all bodies
//! together.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::allocator::Freed;
use crate::error::{ApiError, ErrorKind};

/// Bytes of a body beside its prompt at most, if the options do not say: schemas, tools, token ids.
const BASE_BYTES: usize = 2 << 20;

/// Bytes for each token of the longest context: the longest tokens of common vocabularies (runs of
/// spaces) have more, but a text of nothing else is not one that is asked about.
const BYTES_PER_TOKEN: usize = 32;

/// The same as [`BASE_BYTES`] for messages of gRPC: they hold neither schemas nor tools, and may
/// grow a hundredfold while they are read.
#[cfg(feature = "grpc")]
const MESSAGE_BASE_BYTES: usize = 256 << 10;

/// Bytes of all bodies together at least.
const LEAST_TOGETHER: usize = 64 << 20;

/// Bytes of a body that are not counted: a short request is never refused for the long ones of
/// others.
const UNCOUNTED: usize = 16 << 10;

/// What one body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyLimits {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Commas and brackets: no JSON text has more values than these and one. More than a prompt that
    /// fits into the context has, in its text or as token ids.
    pub(crate) values: usize,
    /// Opening brackets: lists and objects, each as dear as ten numbers.
    pub(crate) containers: usize,
}

impl BodyLimits {
    /// Limits for prompts of up to `context` tokens; `bytes` if the options say how many.
    pub(crate) fn new(context: usize, bytes: Option<usize>) -> Self {
        Self {
            bytes: bytes.unwrap_or(BASE_BYTES + BYTES_PER_TOKEN.saturating_mul(context)),
            values: (1 << 16) + context.saturating_mul(16),
            containers: (1 << 13) + context.saturating_mul(2),
        }
    }

    /// Bytes of a message of gRPC.
    #[cfg(feature = "grpc")]
    pub(crate) fn message_bytes(context: usize, bytes: Option<usize>) -> usize {
        bytes.unwrap_or(MESSAGE_BASE_BYTES + BYTES_PER_TOKEN.saturating_mul(context))
    }

    /// Refuses a body of this many bytes.
    pub(crate) fn check_bytes(&self, bytes: u64) -> Result<(), ApiError> {
        if bytes <= self.bytes as u64 {
            return Ok(());
        }
        let message = format!(
            "the body has more than {} bytes, the limit of this server; send less, or serve with a \
             larger --max-body",
            self.bytes
        );
        Err(ApiError::new(ErrorKind::TooLarge, message).code("body_too_large"))
    }

    /// Refuses more values than a body may have.
    pub(crate) fn check_values(&self, values: usize) -> Result<(), ApiError> {
        check("values", values, self.values)
    }
}

fn check(what: &str, got: usize, most: usize) -> Result<(), ApiError> {
    if got <= most {
        return Ok(());
    }
    let message = format!(
        "the body has more than {most} {what}, as commas and brackets count them, more than a prompt \
         that fits into the context; send less"
    );
    Err(ApiError::new(ErrorKind::TooLarge, message).code("body_too_large"))
}

/// What the JSON text that has arrived so far would become at most.
///
/// Every value but the first stands after a comma or an opening bracket. Those inside of strings are
/// counted too: a string may be JSON again (the arguments of a call, a schema), and is then read.
#[derive(Debug, Default)]
pub(crate) struct JsonCount {
    commas: usize,
    containers: usize,
}

impl JsonCount {
    /// Counts the next bytes.
    ///
    /// # Errors
    /// If the text would become more than the limits allow.
    pub(crate) fn add(&mut self, bytes: &[u8], limits: &BodyLimits) -> Result<(), ApiError> {
        // Short pieces are counted in bytes, which the compiler does many at once.
        for piece in bytes.chunks(255) {
            let count = |is: fn(u8) -> bool| {
                usize::from(piece.iter().map(|&b| u8::from(is(b))).sum::<u8>())
            };
            self.commas += count(|b| b == b',');
            // `[` and `{` differ in one bit.
            self.containers += count(|b| b | 0x20 == b'{');
        }
        check("lists and objects", self.containers, limits.containers)?;
        limits.check_values(self.commas + self.containers)
    }
}

impl JsonCount {
    /// Bytes that the values take while they are read, about.
    fn bytes(&self) -> usize {
        self.commas * 100 + self.containers * 800
    }
}

/// Room for the bodies of all requests together.
pub(crate) struct BodyRoom {
    free: Arc<Semaphore>,
    freed: Arc<Freed>,
}

/// A body with the room that it takes, from its first bytes until it is dropped.
pub(crate) struct HeldBody {
    room: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
    bytes: Vec<u8>,
    /// Bytes that are freed with it: its own, and those of what is made of it.
    weight: usize,
    freed: Arc<Freed>,
}

impl BodyRoom {
    pub(crate) fn new(limits: &BodyLimits) -> Self {
        let bytes = limits.bytes.saturating_mul(4).max(LEAST_TOGETHER);
        let free = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self { free, freed: Arc::default() }
    }

    /// Room for a body, of which `promised` bytes are announced.
    pub(crate) fn arriving(&self, promised: usize) -> HeldBody {
        // What was only announced takes no memory until it comes.
        let bytes = Vec::with_capacity(promised);
        let (room, freed) = (Arc::clone(&self.free), Arc::clone(&self.freed));
        HeldBody { room, taken: None, bytes, weight: 0, freed }
    }
}

impl HeldBody {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what has arrived.
    ///
    /// # Errors
    /// If there is no room beside the bodies of other requests.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let counted = |bytes: usize| bytes.saturating_sub(UNCOUNTED);
        let more = counted(self.len() + chunk.len()) - counted(self.len());
        if more > 0 {
            let taken = u32::try_from(more)
                .ok()
                .and_then(|more| Arc::clone(&self.room).try_acquire_many_owned(more).ok());
            let Some(taken) = taken else {
                let message = "the bodies of other requests take all the memory there is for them; \
                               retry in 1 s";
                return Err(ApiError::new(ErrorKind::Overloaded, message)
                    .code("bodies_too_large")
                    .retry_after(std::time::Duration::from_secs(1)));
            };
            match &mut self.taken {
                Some(all) => all.merge(taken),
                none => *none = Some(taken),
            }
        }
        self.bytes.extend_from_slice(chunk);
        self.weight += chunk.len();
        Ok(())
    }

    /// The whole body, of which this is made.
    pub(crate) fn complete(mut self, becomes: &JsonCount) -> Bytes {
        self.weight += becomes.bytes();
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        // Before it is given back.
        self.bytes = Vec::new();
        self.freed.add(self.weight);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NONE: BodyLimits =
        BodyLimits { bytes: usize::MAX, values: usize::MAX, containers: usize::MAX };

    fn counted(text: &str) -> JsonCount {
        let mut count = JsonCount::default();
        // In pieces, as it arrives.
        text.as_bytes().chunks(7).for_each(|piece| count.add(piece, &NONE).unwrap());
        count
    }

    fn size(value: &Value) -> (usize, usize) {
        let parts: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(object) => object.values().collect(),
            _ => return (1, 0),
        };
        let sizes = parts.into_iter().map(size);
        sizes.fold((1, 1), |(values, containers), more| (values + more.0, containers + more.1))
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            ".*".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 200, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(".{0,3}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_text_becomes_more_than_is_counted(value in any_json()) {
            let (values, containers) = size(&value);
            // Also where it stands in a string, which is read later.
            for text in [value.to_string(), json!(value.to_string()).to_string()] {
                let count = counted(&text);
                prop_assert!(count.commas + count.containers + 1 >= values);
                prop_assert!(count.containers >= containers);
            }
        }
    }

    #[test]
    fn long_pieces_are_counted_in_full() {
        let mut count = JsonCount::default();
        count.add(",[{x".repeat(10_000).as_bytes(), &NONE).unwrap();
        assert_eq!((count.commas, count.containers), (10_000, 20_000));
    }

    #[test]
    fn bodies_share_the_room_and_give_it_back() {
        let room = BodyRoom::new(&BodyLimits::new(0, Some(32 << 20)));
        let take = |bytes: usize| {
            let mut body = room.arriving(bytes);
            body.push(&vec![b' '; bytes]).map(|()| body.complete(&JsonCount::default()))
        };
        let held: Vec<Bytes> = (0..4).map(|_| take(32 << 20).unwrap()).collect();
        let refused = take(1 << 20).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after.is_some()), (ErrorKind::Overloaded, true));
        // Short ones always fit.
        take(UNCOUNTED).unwrap();
        drop(held);
        take(1 << 20).unwrap();
    }
}
