//! The store: an etcd-shaped MVCC key-value store behind one small trait (DESIGN D4).
//!
//! The store knows no kinds. Keys are etcd's usual Kubernetes keys (`/registry/<resource>/<namespace>/<name>`), values
//! are opaque bytes. One global revision counts transactions; every write carries it.
//!
//! # Contract (every backend passes `contract.rs`)
//!
//! - A [`Txn`] is atomic, takes one revision if it writes anything, and none otherwise (a delete that finds nothing
//!   writes nothing; a put always writes, as in etcd). Its steps see the steps before them. One transaction never
//!   puts a key twice, nor puts into a range that it deletes ([`Error::Invalid`], as in etcd).
//! - A write is acknowledged only when it survives `kill -9` and power loss (memory backend excepted).
//! - Reads see every write acknowledged before they began. A range at a revision sees exactly that revision;
//!   below the compacted revision it is [`Error::Compacted`], above the current one [`Error::Future`].
//! - A watch from revision `r` delivers every event with `mod_revision >= r` in its range, in revision order, each
//!   once, no gaps; a watcher that falls too far behind reads from history and, once that is compacted, ends with
//!   [`Error::Compacted`]. A slow watcher hurts only itself. A watch from a future revision waits for it.
//! - Compaction at `r` forgets what was superseded or deleted before `r`: reads at `r` and above, and watches from
//!   `r` on, stay exact, except that events *of* revision `r` itself may lack their previous state.
//! - Revisions never go backwards, also across crashes.

pub mod compactor;
#[cfg(test)]
mod contract;
pub mod hub;
pub mod memory;
pub mod sled;
mod txn;

pub use txn::{MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS};

use async_trait::async_trait;
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
}

/// Which keys: `[start, end)`; `end` empty means the single key `start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

impl KeyRange {
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
        let end = if end.is_empty() { Bytes::from_static(&[0xff; 8]) } else { Bytes::from(end) };
        KeyRange { start, end }
    }

    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() { key == self.start } else { key >= &self.start[..] && key < &self.end[..] }
    }

    /// Whether no key at all can be in the range.
    pub fn is_empty(&self) -> bool {
        !self.is_single() && self.start >= self.end
    }

    /// The range as bounds for ordered maps. Check [`KeyRange::is_empty`] first: ordered maps panic on reversed
    /// bounds.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let upper = if self.is_single() { Bound::Included(&self.start[..]) } else { Bound::Excluded(&self.end[..]) };
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

/// Condition of a transaction on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Last write of the key was at this revision; `Revision(0)`: the key does not exist.
    ModRevision(Bytes, Revision),
    CreateRevision(Bytes, Revision),
    Version(Bytes, u64),
    Value(Bytes, Bytes),
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    Put { key: Bytes, value: Bytes },
    Delete(KeyRange),
    Range(RangeRequest),
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

/// A running watch. Dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// The next message; `Err` is final. Cancel safe: a dropped call loses nothing.
    async fn next(&mut self) -> Result<WatchMessage, Error>;

    /// Have [`Watch::next`] answer with one [`WatchMessage::Progress`] as soon as everything up to the store's
    /// revision has been handed out (bookmarks).
    fn request_progress(&mut self);
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for is gone; the oldest that can be read is given.
    #[error("required revision has been compacted (oldest readable is {0})")]
    Compacted(Revision),
    /// The revision asked for is not there yet; the current one is given.
    #[error("required revision is a future revision (current is {0})")]
    Future(Revision),
    #[error("no space left for the store: {0}")]
    NoSpace(String),
    /// The transaction itself is wrong or too large; nothing was done.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    #[error("store is closed")]
    Closed,
    #[error("store failed while {step}: {message}")]
    Failed { step: &'static str, message: String },
}

/// The store. See the module's contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error>;

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;

    /// Watch a range from a revision on (`None`: from the next write).
    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Box<dyn Watch>, Error>;

    /// Forget history below `revision`. Reads at or above it stay exact.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Revision of the last acknowledged write.
    fn revision(&self) -> Revision;

    /// Oldest revision that can still be read.
    fn compacted(&self) -> Revision;

    /// Bytes of values and deletions that are kept only as history (an estimate; what compaction would free).
    fn history_bytes(&self) -> u64 {
        0
    }

    /// Give back memory that was only there for speed and has not been used since the last call. May block for some
    /// milliseconds.
    fn trim(&self) {}

    /// Bytes that the store uses on disk (0 for memory).
    fn disk_bytes(&self) -> u64;

    /// Bytes written to disk since start (0 for memory).
    fn written_bytes(&self) -> u64;

    /// Finish what is under way and release files.
    async fn close(&self) -> Result<(), Error>;
}
