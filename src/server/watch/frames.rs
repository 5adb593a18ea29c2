//! Watch events encoded once and shared by all watchers (DESIGN section 6: fan-out).
//!
//! Watchers of one kind are almost always at the same event, so a small table of the last events is enough: who comes
//! too late encodes again. When full, the newer event takes the slot.

use crate::object::Object;
use crate::server::codec::{EventType, Format};
use crate::server::kinds::Kind;
use crate::server::registry::parse;
use crate::store::{Event, KeyValue};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

/// Events remembered; a power of two.
const SLOTS: usize = 128;
/// Larger events are not remembered: they would hold too much memory after the watchers have gone.
const MAX_SHARED_BYTES: usize = 64 << 10;

/// The last events with what has been made of them.
pub struct Frames {
    slots: Box<[Mutex<Option<Arc<Shared>>>]>,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { slots: (0..SLOTS).map(|_| Mutex::default()).collect() }
    }
}

/// One event and its encodings.
pub struct Shared {
    pub event: Arc<Event>,
    /// Group and version that the encodings are in.
    version: (&'static str, &'static str),
    current: OnceLock<Option<Arc<Object>>>,
    previous: OnceLock<Option<Arc<Object>>>,
    encoded: Mutex<Vec<((EventType, Format), Bytes)>>,
}

impl Frames {
    /// What is shared about an event, as `kind` (a served version) sees it.
    pub fn of(&self, event: &Arc<Event>, kind: &Kind) -> Arc<Shared> {
        let version = (kind.group, kind.version);
        let fresh = || {
            Arc::new(Shared {
                event: event.clone(),
                version,
                current: OnceLock::new(),
                previous: OnceLock::new(),
                encoded: Mutex::default(),
            })
        };
        if event.kv.value.len() > MAX_SHARED_BYTES {
            return fresh();
        }
        let mut slot = self.slots[event.kv.mod_revision.0 as usize % SLOTS].lock();
        match &*slot {
            Some(shared) if Arc::ptr_eq(&shared.event, event) && shared.version == version => shared.clone(),
            other => {
                let shared = fresh();
                if other.as_ref().is_none_or(|o| o.event.kv.mod_revision <= event.kv.mod_revision) {
                    *slot = Some(shared.clone());
                }
                shared
            }
        }
    }
}

impl Shared {
    /// The object after the event, parsed once.
    pub fn current(&self, kind: &Kind) -> Option<Arc<Object>> {
        let make = || parse(kind, &self.event.kv.value, self.event.kv.mod_revision).ok().map(Arc::new);
        self.current.get_or_init(make).clone()
    }

    /// The object before the event, at the event's revision: what a DELETED event shows.
    pub fn previous(&self, kind: &Kind) -> Option<Arc<Object>> {
        let make = |kv: &KeyValue| parse(kind, &kv.value, self.event.kv.mod_revision).ok().map(Arc::new);
        self.previous.get_or_init(|| self.event.previous.as_ref().and_then(make)).clone()
    }

    /// The frame of this event in a format, made by the first who asks.
    pub fn frame(&self, event: EventType, format: Format, make: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        let mut encoded = self.encoded.lock();
        if let Some((_, bytes)) = encoded.iter().find(|(key, _)| *key == (event, format)) {
            return Some(bytes.clone());
        }
        let bytes = make()?;
        encoded.push(((event, format), bytes.clone()));
        Some(bytes)
    }
}
