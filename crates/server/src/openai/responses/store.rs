//! Responses that are kept for a while: bounded in number, bytes and time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::openai::responses::object::{OutputItem, ResponseObject};

/// Responses at most.
const MAX_COUNT: usize = 1024;

/// Bytes of all of them at most, as JSON.
const MAX_BYTES: usize = 64 << 20;

/// How long each is kept.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Who may see a response: those who show the key that it was made with.
pub(crate) type Owner = u64;

/// A response that is kept, as JSON: a tenth of the memory that values would take.
pub(crate) struct Kept {
    owner: Owner,
    /// The response.
    pub(crate) response: String,
    /// The list of the items before it, all of the conversation.
    input: String,
    /// Names of its own items.
    output_ids: Vec<String>,
    since: Instant,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.response.len() + self.input.len() + size_of::<Self>()
    }

    /// The items before the response.
    pub(crate) fn input(&self) -> Vec<Value> {
        serde_json::from_str(&self.input).unwrap_or_default()
    }

    /// The response's own items.
    pub(crate) fn output(&self) -> Vec<Value> {
        let response: Value = serde_json::from_str(&self.response).unwrap_or_default();
        match response.get("output") {
            Some(Value::Array(items)) => items.clone(),
            _ => Vec::new(),
        }
    }
}

/// The responses of a server.
#[derive(Default)]
pub(crate) struct ResponseStore(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    kept: HashMap<String, Arc<Kept>>,
    /// Names in the order of age; also of some that are gone.
    order: VecDeque<String>,
    /// The response of each item.
    items: HashMap<String, String>,
    bytes: usize,
}

impl ResponseStore {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // What a panic can leave behind is a wrong sum of bytes at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a response, in place of the oldest ones if there is no room. One that is larger than
    /// all the room is not kept.
    fn keep(&self, id: String, kept: Kept) {
        if kept.bytes() > MAX_BYTES {
            return;
        }
        let mut shelf = self.shelf();
        shelf.bytes += kept.bytes();
        for item in &kept.output_ids {
            shelf.items.insert(item.clone(), id.clone());
        }
        shelf.kept.insert(id.clone(), Arc::new(kept));
        shelf.order.push_back(id);
        shelf.shrink(MAX_COUNT, MAX_BYTES, MAX_AGE);
    }

    /// The response of this name, if it is kept and the owner's.
    pub(crate) fn find(&self, id: &str, owner: Owner) -> Option<Arc<Kept>> {
        let mut shelf = self.shelf();
        shelf.shrink(MAX_COUNT, MAX_BYTES, MAX_AGE);
        shelf.kept.get(id).filter(|kept| kept.owner == owner).cloned()
    }

    /// The item of this name in a response that is kept and the owner's.
    pub(crate) fn item(&self, id: &str, owner: Owner) -> Option<Value> {
        let response = self.shelf().items.get(id).cloned()?;
        let kept = self.find(&response, owner)?;
        kept.output().into_iter().find(|item| item["id"] == id)
    }

    /// Forgets the response of this name; whether there was one.
    pub(crate) fn forget(&self, id: &str, owner: Owner) -> bool {
        let found = self.find(id, owner).is_some();
        found && self.shelf().remove(id)
    }
}

impl Shelf {
    fn remove(&mut self, id: &str) -> bool {
        let Some(kept) = self.kept.remove(id) else { return false };
        self.bytes -= kept.bytes();
        for item in &kept.output_ids {
            self.items.remove(item);
        }
        true
    }

    /// Removes the oldest until the rest is few, small and young enough.
    fn shrink(&mut self, count: usize, bytes: usize, age: Duration) {
        while let Some(oldest) = self.order.front() {
            let kept = self.kept.get(oldest);
            let stays = kept.is_some_and(|kept| kept.since.elapsed() < age)
                && self.order.len() <= count
                && self.bytes <= bytes;
            if stays {
                return;
            }
            if let Some(id) = self.order.pop_front() {
                self.remove(&id);
            }
        }
    }
}

/// What is needed to keep a response that is being made.
pub(crate) struct Keeping {
    pub(crate) state: crate::state::AppState,
    pub(crate) owner: Owner,
    /// The items before it, as a list in JSON.
    pub(crate) input: String,
}

impl Keeping {
    /// Keeps it.
    pub(crate) fn keep(self, response: &ResponseObject) {
        // A response is shown as JSON in any case; one that cannot be is an error there.
        let Ok(json) = serde_json::to_string(response) else { return };
        let ids = response.output.iter().map(|item| match item {
            OutputItem::Message { id, .. } | OutputItem::FunctionCall { id, .. } => id.clone(),
        });
        let kept = Kept {
            owner: self.owner,
            response: json,
            input: self.input,
            output_ids: ids.collect(),
            since: Instant::now(),
        };
        self.state.responses.keep(response.id.clone(), kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(owner: Owner, bytes: usize, item: &str) -> Kept {
        Kept {
            owner,
            response: format!(r#"{{"output": [{{"id": "{item}"}}]}}"#),
            input: format!("[\"{}\"]", "x".repeat(bytes)),
            output_ids: vec![item.to_owned()],
            since: Instant::now(),
        }
    }

    #[test]
    fn the_store_is_bounded_in_number_and_bytes() {
        let store = ResponseStore::default();
        for n in 0..MAX_COUNT + 10 {
            store.keep(format!("few-{n}"), kept(0, 10, &format!("item-{n}")));
        }
        assert!(store.find("few-9", 0).is_none() && store.item("item-9", 0).is_none());
        assert!(store.find("few-10", 0).is_some() && store.item("item-10", 0).is_some());
        for n in 0..20 {
            store.keep(format!("large-{n}"), kept(0, MAX_BYTES / 8, &format!("large-{n}")));
        }
        let shelf = store.shelf();
        assert!(shelf.bytes <= MAX_BYTES && shelf.kept.len() == 7, "{}", shelf.kept.len());
        assert_eq!(shelf.kept.len(), shelf.items.len());
        let bytes: usize = shelf.kept.values().map(|kept| kept.bytes()).sum();
        assert_eq!(shelf.bytes, bytes);
        drop(shelf);
        store.keep("too large".to_owned(), kept(0, MAX_BYTES, "too large"));
        assert!(store.find("too large", 0).is_none() && store.find("large-19", 0).is_some());
    }

    #[test]
    fn responses_end_with_time_and_belong_to_their_owner() {
        let store = ResponseStore::default();
        store.keep("mine".to_owned(), kept(1, 10, "item"));
        assert!(store.find("mine", 2).is_none() && store.item("item", 2).is_none());
        assert!(!store.forget("mine", 2) && store.find("mine", 1).is_some());
        assert!(store.forget("mine", 1) && store.find("mine", 1).is_none());
        store.keep("old".to_owned(), kept(1, 10, "item"));
        store.shelf().shrink(MAX_COUNT, MAX_BYTES, Duration::ZERO);
        let shelf = store.shelf();
        assert!(shelf.kept.is_empty() && shelf.items.is_empty() && shelf.bytes == 0);
        assert!(shelf.order.is_empty());
    }
}
