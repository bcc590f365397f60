//! What the connections of this server are doing, and which of them may be closed for others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

/// What a connection does. The order is that in which connections are closed when there are too
/// many: those of which least is known go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It has sent nothing yet, or a part of the head of its next request.
    Opening,
    /// Its requests are answered, and no new one has begun.
    Idle,
    /// The body of a request is on its way.
    Sending,
    /// A request is being answered: never closed for others.
    Answering,
}

/// How many requests a connection may have under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One after the other.
    Http1,
    /// Any number, and messages between them that are none.
    #[cfg(feature = "grpc")]
    Http2,
}

/// What one connection does, and since when. Its requests find it among their extensions.
pub(crate) struct Activity {
    now: Mutex<Now>,
    address: IpAddr,
    protocol: Protocol,
}

struct Now {
    phase: Phase,
    since: Instant,
    /// Requests that are being answered.
    answering: usize,
}

impl Activity {
    fn new(address: IpAddr, protocol: Protocol) -> Self {
        let now = Now { phase: Phase::Opening, since: Instant::now(), answering: 0 };
        Self { now: Mutex::new(now), address, protocol }
    }

    /// What it does, and since when.
    pub(crate) fn phase(&self) -> (Phase, Instant) {
        let now = self.now();
        (now.phase, now.since)
    }

    /// A request is answered from now on, until what comes back is dropped.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        let mut now = self.now();
        now.answering += 1;
        now.set(Phase::Answering);
        Answering(Arc::clone(self))
    }

    /// The body of the request is waited for; after it, the answer goes on.
    pub(crate) fn sending(&self, sending: bool) {
        self.now().set(if sending { Phase::Sending } else { Phase::Answering });
    }

    /// Bytes have come. After an answer they begin another request.
    pub(crate) fn heard(&self) {
        let mut now = self.now();
        match (self.protocol, now.phase) {
            (Protocol::Http1, Phase::Idle) => now.set(Phase::Opening),
            #[cfg(feature = "grpc")]
            (Protocol::Http2, Phase::Opening | Phase::Idle) => now.set(Phase::Idle),
            _ => {}
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Assignments only are made under the lock, so a poisoned one is whole.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn set(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }
}

/// A request is being answered, until this is dropped.
pub(crate) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.answering -= 1;
        if now.answering == 0 {
            now.set(Phase::Idle);
        }
    }
}

/// All open connections: as many as there are slots.
pub(crate) struct Registry {
    slots: usize,
    open: Mutex<Open>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Connections that were closed for others.
    closed: u64,
    all: HashMap<u64, Entry>,
}

struct Entry {
    activity: Arc<Activity>,
    close: oneshot::Sender<()>,
}

/// A connection's place in the [`Registry`]; dropping it gives the slot back.
pub(crate) struct Slot {
    registry: Arc<Registry>,
    number: u64,
    pub(crate) activity: Arc<Activity>,
    /// Says that the connection is to be closed for another.
    pub(crate) closing: oneshot::Receiver<()>,
}

impl Registry {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: slots.max(1), open: Mutex::default(), refused: AtomicU64::new(0) }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The map is changed by single calls, so a poisoned one is whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a new connection. If all are taken, another connection that says nothing is closed
    /// for it; none if all of them are being answered.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, protocol: Protocol) -> Option<Slot> {
        let mut open = self.open();
        if open.all.len() >= self.slots && !open.close_one() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let activity = Arc::new(Activity::new(household(peer), protocol));
        let (close, closing) = oneshot::channel();
        let number = open.next;
        open.next += 1;
        open.all.insert(number, Entry { activity: Arc::clone(&activity), close });
        drop(open);
        Some(Slot { registry: Arc::clone(self), number, activity, closing })
    }

    /// Connections that are open.
    pub(crate) fn num_open(&self) -> usize {
        self.open().all.len()
    }

    /// Connections that were closed for others so far.
    pub(crate) fn num_closed(&self) -> u64 {
        self.open().closed
    }

    /// Connections so far for which there was no slot.
    pub(crate) fn num_refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Closes a connection that says nothing, if there is one: its file is wanted for another.
    pub(crate) fn close_one(&self) -> bool {
        self.open().close_one()
    }
}

impl Open {
    /// Closes a connection of the address that has most, so that each address keeps its share; of
    /// these the one of which least is known, and which is oldest.
    fn close_one(&mut self) -> bool {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.all.values() {
            *held.entry(entry.activity.address).or_default() += 1;
        }
        let quiet = self.all.iter().filter_map(|(&number, Entry { activity, .. })| {
            let (phase, since) = activity.phase();
            let order = (usize::MAX - held[&activity.address], phase, since, number);
            (phase != Phase::Answering).then_some(order)
        });
        let Some((.., number)) = quiet.min() else { return false };
        self.closed += 1;
        // Who is told closes its socket; its slot is free at once.
        self.all.remove(&number).is_some_and(|entry| entry.close.send(()).is_ok())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.registry.open().all.remove(&self.number);
    }
}

/// The address that shares are counted by: one customer of a network has 2^64 addresses of IPv6.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(registry: &Arc<Registry>, peer: &str) -> Option<Slot> {
        registry.enter(peer.parse().unwrap(), Protocol::Http1)
    }

    fn enter(registry: &Arc<Registry>, peer: &str, phase: Phase) -> Slot {
        let slot = open(registry, peer).unwrap();
        slot.activity.now().set(phase);
        slot
    }

    fn is_closed(slot: &mut Slot) -> bool {
        slot.closing.try_recv().is_ok()
    }

    #[test]
    fn those_of_whom_least_is_known_go_first() {
        let registry = Arc::new(Registry::new(4));
        let peer = "10.0.0.1";
        let mut answering = enter(&registry, peer, Phase::Answering);
        let mut sending = enter(&registry, peer, Phase::Sending);
        let mut idle = enter(&registry, peer, Phase::Idle);
        let mut opening = enter(&registry, peer, Phase::Opening);
        let mut new: Vec<Slot> = Vec::new();
        let mut closed = || {
            new.push(enter(&registry, peer, Phase::Answering));
            let all = [&mut opening, &mut idle, &mut sending, &mut answering];
            all.into_iter().map(is_closed).collect::<Vec<bool>>()
        };
        assert_eq!(closed(), [true, false, false, false]);
        assert!(closed()[1]);
        assert!(closed()[2]);
        assert!(open(&registry, peer).is_none());
        assert_eq!((registry.num_closed(), registry.num_refused()), (3, 1));
        assert_eq!(registry.num_open(), 4);
        new.pop();
        assert!(open(&registry, peer).is_some());
    }

    #[test]
    fn the_address_with_most_gives_way() {
        let registry = Arc::new(Registry::new(8));
        let mut few = enter(&registry, "10.0.0.2", Phase::Opening);
        let mut many: Vec<Slot> =
            (0..7).map(|_| enter(&registry, "10.0.0.1", Phase::Idle)).collect();
        let mut others: Vec<Slot> =
            (3..6).map(|n| enter(&registry, &format!("10.0.0.{n}"), Phase::Opening)).collect();
        assert!(!is_closed(&mut few) && !others.iter_mut().any(is_closed));
        // The oldest of them.
        let closed: Vec<bool> = many.iter_mut().map(is_closed).collect();
        assert_eq!(closed, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn a_network_of_addresses_is_one() {
        let of = |address: &str| household(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn bytes_after_an_answer_begin_a_request() {
        let activity = Activity::new("10.0.0.1".parse().unwrap(), Protocol::Http1);
        for (phase, after) in [
            (Phase::Opening, Phase::Opening),
            (Phase::Idle, Phase::Opening),
            (Phase::Sending, Phase::Sending),
            (Phase::Answering, Phase::Answering),
        ] {
            activity.now().set(phase);
            activity.heard();
            assert_eq!(activity.phase().0, after);
        }
    }

    #[test]
    fn a_connection_is_idle_after_its_last_answer() {
        let activity = Arc::new(Activity::new("10.0.0.1".parse().unwrap(), Protocol::Http1));
        let (first, second) = (activity.answering(), activity.answering());
        activity.sending(true);
        assert_eq!(activity.phase().0, Phase::Sending);
        activity.sending(false);
        drop(first);
        assert_eq!(activity.phase().0, Phase::Answering);
        drop(second);
        assert_eq!(activity.phase().0, Phase::Idle);
    }
}
