//! The memory tier: writes of keys that change all the time and may be lost when the machine stops unexpectedly
//! (heartbeats, events). They are acknowledged at once and written to disk late, most of them never: what has been
//! superseded and compacted meanwhile need not be.

use super::index::Key;
use super::record::Place;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a current state may be only in memory.
pub const WRITE_BACK_AFTER: Duration = Duration::from_secs(900);

/// Bytes above which everything is written to disk.
const MAX_BYTES: usize = 8 << 20;

/// Bytes above which no further write is taken: the disk has refused for long.
const REFUSE_BYTES: usize = 4 * MAX_BYTES;

/// How long to wait after the disk has refused.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Revisions that are reserved at a time: they cost one barrier, and that many may be skipped after an unclean stop.
pub const RESERVED_REVISIONS: u64 = 4096;

/// A write that is only in memory.
#[derive(Clone)]
pub struct Kept {
    pub key: Key,
    /// `None`: the key is deleted.
    pub value: Option<Bytes>,
    pub create: u64,
    pub version: u64,
}

impl Kept {
    pub fn weight(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + size_of::<(Place, Kept)>()
    }
}

#[derive(Default)]
pub struct Volatile {
    kept: BTreeMap<Place, Kept>,
    bytes: usize,
    /// When the disk last had everything.
    since: Option<Instant>,
}

impl Volatile {
    pub fn insert(&mut self, place: Place, kept: Kept, now: Instant) {
        self.since.get_or_insert(now);
        self.bytes += kept.weight();
        self.kept.insert(place, kept);
    }

    /// Take out a write that is on disk now, or that nobody needs any more.
    pub fn remove(&mut self, place: Place) -> bool {
        let Some(kept) = self.kept.remove(&place) else { return false };
        self.bytes -= kept.weight();
        true
    }

    pub fn get(&self, place: Place) -> Option<&Kept> {
        self.kept.get(&place)
    }

    /// Writes from a place on, in order: at least `limit` if there are as many, and whole revisions.
    pub fn from(&self, from: Place, limit: usize) -> Vec<(Place, Kept)> {
        let mut found: Vec<(Place, Kept)> = Vec::new();
        for (place, kept) in self.kept.range(from..) {
            if found.len() >= limit && found.last().is_some_and(|(last, _)| last.revision < place.revision) {
                break;
            }
            found.push((*place, kept.clone()));
        }
        found
    }

    /// Writes that belong on disk now. `all`: every one, else none before the time has come, and then only those that
    /// `is_current` says nothing has superseded.
    pub fn due(&self, now: Instant, all: bool, is_current: impl Fn(Place, &Kept) -> bool) -> Vec<(Place, Kept)> {
        let full = all || self.bytes > MAX_BYTES;
        let old = self.since.is_some_and(|since| now.saturating_duration_since(since) >= WRITE_BACK_AFTER);
        let wanted = |(place, kept): &(&Place, &Kept)| full || (old && is_current(**place, kept));
        self.kept.iter().filter(wanted).map(|(place, kept)| (*place, kept.clone())).collect()
    }

    pub fn places(&self) -> Vec<Place> {
        self.kept.keys().copied().collect()
    }

    pub fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    pub fn is_overfull(&self) -> bool {
        self.bytes > REFUSE_BYTES
    }

    /// All that was due is on disk.
    pub fn written_back(&mut self) {
        self.since = None;
    }
}
