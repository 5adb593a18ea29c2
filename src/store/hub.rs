//! The watch hub that backends share: recent events in one ring, and watchers that pull from it.
//!
//! A watcher owns no queue. The hub keeps for each only the first revision that it has not been given yet
//! (`pending`); publishing sets that and wakes the watcher, which then copies its events (shared pointers) out of the
//! ring. So a watcher that is not interested costs nothing, nor does a slow one: when the ring has
//! moved past its `pending`, it reads from the backend's [`History`] until it has caught up, or learns there that
//! its revision has been compacted.

use super::interest::Interest;
use super::{Error, Event, KeyRange, Revision, Watch, WatchMessage};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes of keys and values that the ring keeps. When full the oldest whole revisions go: watchers that still need
/// them read from history.
pub const RING_BYTES: usize = 4 << 20;

/// Most events in one [`WatchMessage::Events`], rounded up to whole revisions. The rest follows in the next message.
pub const MESSAGE_EVENTS: usize = 512;

/// Older events than the ring holds.
#[async_trait]
pub(super) trait History: Send + Sync {
    /// Events in `range` from revision `from` on, in order, whole revisions, about `limit` of them. The second value
    /// is the first revision that has not been looked at; it may move without any event found.
    async fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Revision), Error>;
}

pub(super) struct Hub {
    inner: Mutex<Inner>,
}

struct Inner {
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Every event from this revision on is in the ring.
    oldest: Revision,
    /// Last published revision.
    revision: Revision,
    slots: HashMap<u64, Slot>,
    /// Which of them a key may be for.
    interest: Interest,
    last_id: u64,
    closed: bool,
}

struct Slot {
    range: KeyRange,
    /// Events below are not for this watcher.
    from: Revision,
    /// First revision not handed out that may hold an event for this watcher; `None`: it has seen everything.
    pending: Option<Revision>,
    wake: Arc<Notify>,
}

/// What a watcher has to do next.
enum Step {
    Message(WatchMessage),
    ReadHistory(Revision),
    Wait,
}

impl Hub {
    /// A hub for a store that is at `revision`; nothing up to it is in the ring.
    pub fn new(revision: Revision) -> Arc<Self> {
        Arc::new(Hub {
            inner: Mutex::new(Inner {
                ring: VecDeque::new(),
                ring_bytes: 0,
                oldest: Revision(revision.0 + 1),
                revision,
                slots: HashMap::new(),
                interest: Interest::default(),
                last_id: 0,
                closed: false,
            }),
        })
    }

    /// Hand out the events of new revisions. The caller publishes in revision order.
    pub fn publish(&self, revision: Revision, events: impl IntoIterator<Item = Arc<Event>>) {
        let mut inner = self.inner.lock();
        let Inner { ring, ring_bytes, slots, interest, .. } = &mut *inner;
        for event in events {
            for id in interest.candidates(&event.kv.key) {
                let Some(slot) = slots.get_mut(&id) else { continue };
                let at = event.kv.mod_revision;
                if slot.pending.is_none() && at >= slot.from && slot.range.contains(&event.kv.key) {
                    slot.pending = Some(at);
                    slot.wake.notify_one();
                }
            }
            *ring_bytes += weight(&event);
            ring.push_back(event);
        }
        inner.revision = revision;
        inner.trim();
    }

    /// End all watches with [`Error::Closed`].
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.slots.values().for_each(|slot| slot.wake.notify_one());
    }

    /// Start a watch from `from` (`None`: from the next revision to be published).
    pub fn watch(self: &Arc<Self>, range: KeyRange, from: Option<Revision>, history: Arc<dyn History>) -> Watcher {
        let mut inner = self.inner.lock();
        inner.last_id += 1;
        let id = inner.last_id;
        let from = from.unwrap_or(Revision(inner.revision.0 + 1));
        let pending = (from <= inner.revision).then_some(from);
        let wake = Arc::new(Notify::new());
        inner.interest.insert(id, &range);
        inner.slots.insert(id, Slot { range: range.clone(), from, pending, wake: wake.clone() });
        drop(inner);
        Watcher { hub: self.clone(), history, id, range, wake, progress: false }
    }

    fn step(&self, id: u64, progress: bool) -> Result<Step, Error> {
        let mut inner = self.inner.lock();
        let Inner { ring, oldest, revision, slots, closed, .. } = &mut *inner;
        let slot = match slots.get_mut(&id) {
            Some(slot) if !*closed => slot,
            _ => return Err(Error::Closed),
        };
        let Some(first) = slot.pending else {
            return Ok(if progress { Step::Message(WatchMessage::Progress(*revision)) } else { Step::Wait });
        };
        if first < *oldest {
            return Ok(Step::ReadHistory(first));
        }
        let mut events: Vec<Arc<Event>> = Vec::new();
        slot.pending = None;
        let start = ring.partition_point(|event| event.kv.mod_revision < first);
        for event in ring.range(start..) {
            let at = event.kv.mod_revision;
            if events.len() >= MESSAGE_EVENTS && events.last().is_some_and(|last| last.kv.mod_revision < at) {
                slot.pending = Some(at);
                break;
            }
            if slot.range.contains(&event.kv.key) {
                events.push(event.clone());
            }
        }
        match (events.is_empty(), progress) {
            (false, _) => Ok(Step::Message(WatchMessage::Events(events))),
            (true, true) => Ok(Step::Message(WatchMessage::Progress(*revision))),
            (true, false) => Ok(Step::Wait),
        }
    }

    /// Note that a watcher has read history below `next`.
    fn caught_up(&self, id: u64, next: Revision) {
        let mut inner = self.inner.lock();
        let revision = inner.revision;
        if let Some(slot) = inner.slots.get_mut(&id) {
            slot.pending = (next <= revision).then_some(next);
        }
    }
}

impl Inner {
    /// Drop whole revisions from the front until the ring fits; the newest revision always stays.
    fn trim(&mut self) {
        while self.ring_bytes > RING_BYTES {
            let Some(first) = self.ring.front().map(|event| event.kv.mod_revision) else { break };
            if first >= self.revision {
                break;
            }
            while self.ring.front().is_some_and(|event| event.kv.mod_revision == first) {
                if let Some(event) = self.ring.pop_front() {
                    self.ring_bytes -= weight(&event);
                }
            }
            self.oldest = Revision(first.0 + 1);
        }
    }
}

/// What an event weighs in the ring. The previous state usually shares its bytes with an older event, but that one may
/// be gone.
fn weight(event: &Event) -> usize {
    let state = |kv: &super::KeyValue| kv.key.len() + kv.value.len() + size_of::<super::KeyValue>();
    state(&event.kv) + event.previous.as_ref().map_or(0, state)
}

/// One watch on a [`Hub`].
pub(super) struct Watcher {
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    id: u64,
    range: KeyRange,
    wake: Arc<Notify>,
    progress: bool,
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self) -> Result<WatchMessage, Error> {
        loop {
            match self.hub.step(self.id, self.progress)? {
                Step::Message(message) => {
                    if let WatchMessage::Progress(_) = message {
                        self.progress = false;
                    }
                    return Ok(message);
                }
                Step::ReadHistory(from) => {
                    let (events, next) = self.history.events(&self.range, from, MESSAGE_EVENTS).await?;
                    self.hub.caught_up(self.id, next);
                    if !events.is_empty() {
                        return Ok(WatchMessage::Events(events));
                    }
                }
                Step::Wait => self.wake.notified().await,
            }
        }
    }

    fn request_progress(&mut self) {
        self.progress = true;
        self.wake.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock();
        inner.slots.remove(&self.id);
        inner.interest.remove(self.id, &self.range);
    }
}
