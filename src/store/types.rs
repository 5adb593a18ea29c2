//! What goes into the store and what comes out, in etcd's terms.

use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// A store revision: etcd's 64-bit counter. 1 is the revision of an empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One key with its value and etcd's per-key counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Number of writes since creation, from 1.
    pub version: u64,
    /// The lease that it is attached to.
    pub lease: LeaseId,
}

/// A lease's number; 0 is no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    pub const NONE: LeaseId = LeaseId(0);

    pub fn is_none(self) -> bool {
        self == LeaseId::NONE
    }
}

impl std::fmt::Display for LeaseId {
    /// As etcdctl writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lease as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    pub id: LeaseId,
    /// Seconds that it lasts after it was granted or renewed.
    pub granted: u32,
    /// Seconds left; 0: it is about to be revoked.
    pub remaining: u32,
}

/// Which keys: `[start, end)`; `end` empty means the single key `start`, and [`KeyRange::END`] all keys from `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

impl KeyRange {
    /// The end that is after every key, as in etcd (no key is before it).
    pub const END: &[u8] = &[0];

    pub fn key(key: impl Into<Bytes>) -> Self {
        KeyRange { start: key.into(), end: Bytes::new() }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        let end = if end.is_empty() { Bytes::from_static(Self::END) } else { Bytes::from(end) };
        KeyRange { start, end }
    }

    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    fn is_endless(&self) -> bool {
        self.end == Self::END
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self.is_single() {
            true => key == self.start,
            false => key >= &self.start[..] && (self.is_endless() || key < &self.end[..]),
        }
    }

    /// Whether every key of the range begins with `prefix`.
    pub fn is_within(&self, prefix: &[u8]) -> bool {
        let all = KeyRange::prefix(Bytes::copy_from_slice(prefix));
        let ends = || all.is_endless() || (!self.is_endless() && self.end <= all.end);
        self.start.starts_with(prefix) && (self.is_single() || ends())
    }

    /// Whether a key that begins with `prefix` can be in the range.
    pub fn touches(&self, prefix: &[u8]) -> bool {
        let all = KeyRange::prefix(Bytes::copy_from_slice(prefix));
        let begins = all.is_endless() || self.start < all.end;
        if self.is_single() {
            self.start.starts_with(prefix)
        } else {
            begins && (self.is_endless() || self.end > all.start)
        }
    }

    /// Whether no key at all can be in the range.
    pub fn is_empty(&self) -> bool {
        !self.is_single() && !self.is_endless() && self.start >= self.end
    }

    /// The range as bounds for ordered maps. Check [`KeyRange::is_empty`] first: ordered maps panic on reversed
    /// bounds.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let upper = match () {
            () if self.is_single() => Bound::Included(&self.start[..]),
            () if self.is_endless() => Bound::Unbounded,
            () => Bound::Excluded(&self.end[..]),
        };
        (Bound::Included(&self.start[..]), upper)
    }
}

/// A read.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    pub range: KeyRange,
    /// `None`: now.
    pub revision: Option<Revision>,
    /// 0: no limit.
    pub limit: usize,
    pub keys_only: bool,
    pub count_only: bool,
}

impl RangeRequest {
    pub fn of(range: KeyRange) -> Self {
        RangeRequest { range, revision: None, limit: 0, keys_only: false, count_only: false }
    }
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct RangeResponse {
    /// The store's revision when the read was done (not the one asked for).
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    /// Keys in the range at that revision, whatever the limit.
    pub count: usize,
    /// Whether `limit` cut the answer.
    pub more: bool,
}

/// Condition of a transaction: holds if it does for every key in the range. Where there is none, counters and lease are
/// compared as 0, and no condition on a value holds (all as in etcd).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub range: KeyRange,
    pub relation: Relation,
    pub target: Target,
}

/// How the key's state has to relate to the [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// What is compared, with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Version(u64),
    CreateRevision(Revision),
    ModRevision(Revision),
    Value(Bytes),
    Lease(LeaseId),
}

impl Compare {
    pub fn equal(key: impl Into<Bytes>, target: Target) -> Self {
        Compare { range: KeyRange::key(key), relation: Relation::Equal, target }
    }

    /// The key was last written at this revision.
    pub fn unchanged(key: impl Into<Bytes>, since: Revision) -> Self {
        Compare::equal(key, Target::ModRevision(since))
    }

    /// There is no such key.
    pub fn missing(key: impl Into<Bytes>) -> Self {
        Compare::equal(key, Target::ModRevision(Revision(0)))
    }
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    Put(Put),
    Delete(KeyRange),
    Range(RangeRequest),
    /// Which branch of it runs is decided before the outer transaction writes anything, as in etcd.
    Txn(Txn),
}

impl Op {
    /// Write a key that is attached to no lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Op::Put(Put { key: key.into(), value: Some(value.into()), lease: Some(LeaseId::NONE) })
    }
}

/// A write of one key.
#[derive(Clone, Debug)]
pub struct Put {
    pub key: Bytes,
    /// `None`: the value that the key has; [`Error::KeyNotFound`] if there is no such key.
    pub value: Option<Bytes>,
    /// `None`: the lease that the key is attached to, likewise.
    pub lease: Option<LeaseId>,
}

/// `if all compares hold then success else failure`.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// Result of one [`Op`].
#[derive(Clone, Debug)]
pub enum OpResponse {
    Put { previous: Option<KeyValue> },
    Delete { previous: Vec<KeyValue> },
    Range(RangeResponse),
    Txn(TxnResponse),
}

#[derive(Clone, Debug)]
pub struct TxnResponse {
    /// The transaction's revision if it wrote, else the current one.
    pub revision: Revision,
    pub succeeded: bool,
    pub responses: Vec<OpResponse>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// After a put: the new state. After a delete: key and `mod_revision` of the deletion, empty value.
    pub kv: KeyValue,
    /// State before, where there was one and it is not yet compacted.
    pub previous: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// What a watcher gets.
#[derive(Clone, Debug)]
pub enum WatchMessage {
    /// The events of one or more whole revisions, in order. Shared: every watcher gets the same allocation.
    Events(Vec<Arc<Event>>),
    /// Nothing below this revision is still to come (sent on request; never unasked).
    Progress(Revision),
}

/// One write of one key in the store's history, as a [`super::Snapshot`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Position of the write in its transaction, from 0.
    pub sub: u32,
    pub kind: EventKind,
    /// As in [`Event::kv`].
    pub kv: KeyValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_prefixes_meet_as_their_keys_do() {
        let parts: [&[u8]; 8] = [b"", b"/", b"/a", b"/a/", b"/a/b", b"/b", b"\xff", b"\xff\xff"];
        let keys: Vec<Vec<u8>> = parts.iter().flat_map(|a| parts.iter().map(|b| [*a, *b].concat())).collect();
        let ends = parts.iter().copied().chain([KeyRange::END, b"/a0", b"/0"]);
        let ranges: Vec<KeyRange> = ends
            .flat_map(|end| {
                parts.map(|start| KeyRange { start: Bytes::from_static(start), end: Bytes::from_static(end) })
            })
            .filter(|range| !range.is_empty())
            .collect();
        for (range, prefix) in ranges.iter().flat_map(|range| parts.iter().map(move |prefix| (range, *prefix))) {
            let mut held = keys.iter().filter(|key| range.contains(key)).peekable();
            let any = held.peek().is_some();
            let all = held.clone().all(|key| key.starts_with(prefix));
            assert!(!range.is_within(prefix) || all, "{range:?} is within {prefix:?}");
            assert!(range.touches(prefix) || !held.any(|key| key.starts_with(prefix)), "{range:?} touches {prefix:?}");
            // Told apart as far as these keys can tell.
            if any && range.is_single() {
                assert_eq!(range.is_within(prefix), all);
            }
        }
        assert!(KeyRange::prefix("/a/").is_within(b"/a") && !KeyRange::prefix("/a").is_within(b"/a/"));
        let endless = KeyRange { start: "/a/b".into(), end: KeyRange::END.into() };
        assert!(
            !endless.is_within(b"/a/") && endless.touches(b"/a/") && endless.touches(b"/b") && !endless.touches(b"/A")
        );
    }
}
