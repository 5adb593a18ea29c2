//! A store in a directory of this host: an index of all keys in memory over an engine that keeps every write on disk.
//!
//! ```text
//!  txn ──► channel ──► writer thread: evaluate many → one commit of the engine → show, publish, answer
//!  range ──► index (keys, at the last committed revision) ──► recent values ──► engine
//!  watch ──► hub's ring ──► the engine's history
//! ```
//!
//! - `engine.rs`: what is needed of an engine; the engines are `log` and `sled`, beside this. `record.rs`: what is in one.
//! - `directory.rs`: lock, which engine's files. `recovery.rs`: opening and repair of damage. `mark.rs`: how far writes
//!   were acknowledged.
//! - `index.rs`: which keys there are and were. `values.rs`: recently used values.
//! - `shared.rs`: reads. `writer.rs`: the one writer. `step.rs`: a transaction under evaluation.
//! - `volatile.rs`: the memory tier, for what is written all the time.
//! - `snapshot.rs`: reading everything at one revision. `past.rs`: history of both tiers in order. `recent.rs`: latencies.

pub(super) mod directory;
pub mod engine;
pub(super) mod index;
mod mark;
mod past;
mod recent;
pub(super) mod record;
mod recovery;
mod shared;
mod snapshot;
mod step;
mod values;
mod volatile;
mod writer;

use super::condition::Condition;
use super::snapshots::format::Reader;
use super::snapshots::rolling::Rolling;
use super::txn::{check, puts};
use super::{
    Alarm, Error, KeyRange, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision, Snapshot, Store, Txn,
    TxnResponse, Watch, lease,
};
use crate::task;
use async_trait::async_trait;
use bytes::Bytes;
use directory::Directory;
use engine::Kind;
use shared::{Handle, Shared};
use snapshot::Shot;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use writer::{Command, LeaseCommand, Writer};

/// Transactions that wait for the writer. When full, further callers wait.
const QUEUE_TXNS: usize = 1024;

/// Values that a read fetches from disk without leaving its async thread; more are fetched on a blocking thread.
const INLINE_FETCHES: usize = 4;

/// How far revisions jump when a store is restored: more than are written between a backup and its use (as etcd's own
/// advice for `etcdutl snapshot restore --bump-revision`).
const RESTORE_JUMP: u64 = 1_000_000_000;

/// What may be chosen about a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// What keeps the records: a store that another engine has kept is made anew for this one when it is opened. `None`:
    /// what has kept it so far, the default one of a new store.
    pub engine: Option<Kind>,
    /// sled's page cache. It holds its limit only roughly: pages are let go one shard of 256 at a time.
    pub page_cache_bytes: u64,
    /// Recently used values, uncompressed; those unused between two calls of [`Store::trim`] are dropped.
    pub value_cache_bytes: usize,
    /// Keys that begin with one of these are of the memory tier: a write of nothing else is acknowledged at once and
    /// reaches the disk late. After an unclean stop the last minutes of it may be lost; reads and watches that need
    /// them are then answered with [`Error::Compacted`].
    pub volatile: Vec<Bytes>,
    /// Bytes on disk at which puts are refused; 0: no limit but the disk's.
    pub quota_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            engine: None,
            page_cache_bytes: 4 << 20,
            value_cache_bytes: 24 << 20,
            volatile: Vec::new(),
            quota_bytes: 8 << 30,
        }
    }
}

/// A store in a directory of its own.
pub struct Local {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Local {
    /// Open the store in `path`, creating it if there is none. Blocks while the index is read. Errors name the path: the
    /// directory cannot be used, is in use by another process, or holds something else than a store.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Arc<dyn Store>, Error> {
        let shared = Arc::new(Shared::open(path.as_ref(), options)?);
        let (commands, queue) = mpsc::channel(QUEUE_TXNS);
        let writer = Writer::new(shared.clone(), queue);
        task::thread("store-writer", move || writer.run())
            .map_err(|e| Error::Failed { step: "starting the store's writer", message: e.to_string() })?;
        Ok(Arc::new(Local { shared, commands }))
    }

    /// Make a store in a new directory out of a snapshot. Its revisions jump far ahead, so that nobody who knew the old
    /// store takes an old revision for a new one; older ones are compacted.
    pub fn restore(path: impl AsRef<Path>, snapshot: &mut Reader<impl Read>) -> Result<(), Error> {
        let directory = Directory::open(path.as_ref())?;
        let continues_at = snapshot.revision().0 + RESTORE_JUMP;
        let kind = Kind::default();
        recovery::fill(&directory.files(kind), kind, &Options::default(), snapshot, continues_at)
    }

    /// Whether no process uses the store in a directory; [`Error::Failed`] names it.
    pub fn check_unused(path: impl AsRef<Path>) -> Result<(), Error> {
        Directory::open(path.as_ref()).map(drop)
    }

    async fn command<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(make(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    async fn lease_change(&self, change: LeaseCommand) -> Result<Revision, Error> {
        self.command(|answer| Command::Lease(change, answer)).await
    }
}

#[async_trait]
impl Store for Local {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let reading = self.shared.start_range(&request)?;
        if reading.missing() <= INLINE_FETCHES {
            return reading.finish();
        }
        let done = task::Group::blocking(move || reading.finish()).await;
        done.map_err(|e| Error::Failed { step: "reading values", message: e.to_string() })?
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        check(&txn)?;
        if puts(&txn) {
            self.shared.quota.admit(Instant::now(), || self.shared.used_bytes())?;
        }
        self.command(|answer| Command::Txn(txn, answer)).await
    }

    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Box<dyn Watch>, Error> {
        self.shared.check_open()?;
        let compacted = self.shared.compacted();
        if let Some(from) = from {
            self.shared.check_floor(&range, from)?;
        }
        match from {
            Some(from) if from < compacted => Err(Error::Compacted(compacted)),
            _ => {
                let history = Arc::new(Handle(self.shared.clone()));
                Ok(Box::new(self.shared.hub.watch(range, from, history)))
            }
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.command(|answer| Command::Compact(revision, answer)).await
    }

    fn revision(&self) -> Revision {
        self.shared.committed()
    }

    fn compacted(&self) -> Revision {
        self.shared.compacted()
    }

    fn history_bytes(&self) -> u64 {
        self.shared.history_bytes()
    }

    fn trim(&self) {
        self.shared.trim();
        // When the queue is full there is more urgent work; there is a next time.
        let _ = self.commands.try_send(Command::WriteBack);
    }

    fn condition(&self) -> Condition {
        self.shared.condition()
    }

    fn rolling(&self) -> Option<Arc<Rolling>> {
        Some(self.shared.rolling.clone())
    }

    fn disk_bytes(&self) -> u64 {
        self.shared.disk_bytes()
    }

    fn quota_bytes(&self) -> u64 {
        self.shared.quota.bytes()
    }

    fn written_bytes(&self) -> u64 {
        self.shared.written_bytes()
    }

    async fn lease_grant(&self, id: LeaseId, seconds: u32) -> Result<(), Error> {
        self.shared.quota.admit(Instant::now(), || self.shared.used_bytes())?;
        self.lease_change(LeaseCommand::Grant { id, seconds: seconds.max(1) }).await.map(|_| ())
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.lease_change(LeaseCommand::Revoke(id)).await
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<u32, Error> {
        self.shared.check_open()?;
        let (granted, noted) = self.shared.leases.renew(id, Instant::now())?;
        if noted {
            self.lease_change(LeaseCommand::Note(vec![(id, None)])).await?;
        }
        Ok(granted)
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<(LeaseStatus, Vec<Bytes>), Error> {
        self.shared.check_open()?;
        let status = self.shared.leases.status(id, Instant::now())?;
        let index = self.shared.index.read();
        let attached = index.attached(id).filter(|_| keys).map(|key| Bytes::copy_from_slice(key));
        Ok((status, attached.collect()))
    }

    async fn leases(&self) -> Result<Vec<LeaseStatus>, Error> {
        self.shared.check_open()?;
        Ok(self.shared.leases.all(Instant::now()))
    }

    async fn keep_leases(&self) -> Result<(), Error> {
        let due = self.shared.leases.next_due().await;
        for id in due.revoke {
            lease::gone(self.lease_revoke(id).await)?;
        }
        if !due.note.is_empty() {
            let notes = due.note.into_iter().map(|(id, remaining)| (id, Some(remaining))).collect();
            self.lease_change(LeaseCommand::Note(notes)).await?;
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(Shot::of(&self.shared)?))
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.command(Command::Defragment).await
    }

    fn alarm(&self) -> Option<Alarm> {
        self.shared.quota.alarm()
    }

    fn disarm(&self) {
        self.shared.quota.disarm();
    }

    async fn close(&self) -> Result<(), Error> {
        match self.command(Command::Close).await {
            Err(Error::Closed) => Ok(()),
            other => other,
        }
    }
}
