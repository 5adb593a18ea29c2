//! The store: an etcd-shaped MVCC key-value store behind one small trait (DESIGN D4).
//!
//! The store knows no kinds. Keys are etcd's usual Kubernetes keys (`/registry/<resource>/<namespace>/<name>`), values
//! are opaque bytes. One global revision counts transactions; every write carries it.
//!
//! # Contract (every backend passes `contract/`)
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
//! - A lease that is not renewed in time is revoked, never sooner: its keys are deleted in one transaction. A store that
//!   is opened again has all its leases; time in which it was closed does not count.
//! - At its quota of bytes on disk the store refuses whatever puts ([`Error::NoSpace`]); it reads, deletes and compacts.

pub mod compactor;
pub mod condition;
#[cfg(test)]
mod contract;
pub mod etcd;
pub mod face;
pub mod hub;
mod interest;
pub mod lease;
pub mod local;
pub mod log;
pub mod memory;
pub mod proto;
mod quota;
pub mod sled;
pub mod snapshots;
mod txn;
mod types;
mod varint;

pub use txn::{MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_DEPTH, MAX_TXN_OPS};
pub use types::*;

use async_trait::async_trait;
use bytes::Bytes;
use condition::Condition;
use snapshots::rolling::Rolling;
use std::sync::Arc;

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
    Invalid(Invalid),
    /// A put that keeps the value or the lease of a key that does not exist; nothing was done.
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("too many leases, at most {0} are kept")]
    TooManyLeases(usize),
    /// What is on the disk is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store is elsewhere, and cannot be reached now.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    #[error("store is closed")]
    Closed,
    #[error("store failed while {step}: {message}")]
    Failed { step: &'static str, message: String },
}

/// What is wrong with a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("empty key")]
    EmptyKey,
    #[error("key of {0} bytes, at most {MAX_KEY_BYTES} are allowed")]
    LongKey(usize),
    #[error("key {} is written twice", .0.escape_ascii())]
    DuplicateKey(Bytes),
    #[error("{0} operations, at most {MAX_TXN_OPS} are allowed")]
    TooManyOps(usize),
    #[error("{0} bytes, at most {MAX_TXN_BYTES} are allowed")]
    TooLarge(usize),
    #[error("transactions are nested more than {MAX_TXN_DEPTH} deep")]
    TooDeep,
}

/// A state of the whole store that is being read. It costs the history that has to be kept meanwhile.
#[async_trait]
pub trait Snapshot: Send {
    /// What is known of it beforehand.
    fn head(&self) -> &Head;

    /// The next writes, in order of revision and position: those after [`Head::compacted`], and before them the last ones
    /// of keys that were there at it. Empty at the end.
    async fn next(&mut self) -> Result<Vec<Write>, Error>;

    /// Begin again, with the same writes.
    fn rewind(&mut self);
}

/// What a snapshot shows.
#[derive(Clone, Debug)]
pub struct Head {
    pub revision: Revision,
    /// The oldest revision that can be read in it.
    pub compacted: Revision,
    pub leases: Vec<LeaseStatus>,
}

/// Why a store does not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// It uses more bytes on disk than its quota allows.
    NoSpace,
}

/// The store. See the module's contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error>;

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;

    /// Watch a range from a revision on (`None`: from the next write).
    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Box<dyn Watch>, Error>;

    /// Forget history below `revision`. Reads at or above it stay exact. [`Error::Compacted`] if that was done before,
    /// [`Error::Future`] above the current revision.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Revision of the last acknowledged write.
    fn revision(&self) -> Revision;

    /// Oldest revision that can still be read.
    fn compacted(&self) -> Revision;

    /// Bytes of values and deletions that are kept only as history (an estimate; what compaction would free).
    fn history_bytes(&self) -> u64 {
        0
    }

    /// How the store is doing.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// The rolling snapshots that the store repairs itself from, if it does.
    fn rolling(&self) -> Option<Arc<Rolling>> {
        None
    }

    /// Give back memory that was only there for speed and has not been used since the last call. May block for some
    /// milliseconds.
    fn trim(&self) {}

    /// Bytes that the store uses on disk (0 for memory).
    fn disk_bytes(&self) -> u64;

    /// Bytes on disk at which puts are refused; 0: no limit.
    fn quota_bytes(&self) -> u64 {
        0
    }

    /// Bytes written to disk since start (0 for memory).
    fn written_bytes(&self) -> u64;

    /// Grant a lease of so many seconds (at least 1). [`Error::LeaseExists`] if the number is taken.
    async fn lease_grant(&self, id: LeaseId, seconds: u32) -> Result<(), Error>;

    /// Delete the keys that are attached to a lease in one transaction, and the lease. Gives the store's revision.
    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error>;

    /// Have a lease last its full time again, from now. Gives that in seconds.
    async fn lease_renew(&self, id: LeaseId) -> Result<u32, Error>;

    /// A lease and, if `keys`, the keys that are attached to it.
    async fn lease(&self, id: LeaseId, keys: bool) -> Result<(LeaseStatus, Vec<Bytes>), Error>;

    /// All leases, those that end first first.
    async fn leases(&self) -> Result<Vec<LeaseStatus>, Error>;

    /// Wait until a lease has to be revoked or its remaining time noted down, and do it. Cancel safe. Pends for ever where
    /// others look after leases.
    async fn keep_leases(&self) -> Result<(), Error> {
        std::future::pending().await
    }

    /// Everything that there is at the store's revision, with the history since compaction.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error>;

    /// Give space on disk back that nothing needs any more.
    async fn defragment(&self) -> Result<(), Error>;

    /// Why the store refuses to write now: it has reached its quota of bytes on disk.
    fn alarm(&self) -> Option<Alarm> {
        None
    }

    /// Let the store write again; it raises the alarm again if the cause is still there.
    fn disarm(&self) {}

    /// Finish what is under way and release files.
    async fn close(&self) -> Result<(), Error>;
}
