//! The contract suite: every case runs on every backend, and `random.rs` compares each with `memory` as the oracle.

mod cases;
mod leases;
mod random;
mod real;
mod snapshots;
mod watching;

use super::memory::Memory;
use super::sled::{Options, Sled};
use super::{
    Error, Event, KeyRange, KeyValue, Op, OpResponse, RangeRequest, RangeResponse, Revision, Store, Txn, TxnResponse,
    Watch, WatchMessage,
};
use bytes::Bytes;
use std::sync::Arc;

/// A backend under test, and how to open it (again).
pub enum Backend {
    Memory,
    Sled(tempfile::TempDir),
    /// Where etcd is installed (Debian: etcd-server).
    Etcd(real::Real),
}

impl Backend {
    pub fn sled() -> Self {
        Backend::Sled(tempfile::tempdir().expect("scratch directory"))
    }

    pub fn all() -> Vec<Self> {
        let etcd = real::Real::start().map(Backend::Etcd);
        Backend::local().into_iter().chain(etcd).collect()
    }

    /// Those for cases that look at what a foreign etcd decides by itself.
    pub fn local() -> [Self; 2] {
        [Backend::Memory, Backend::sled()]
    }

    pub async fn open(&self) -> Arc<dyn Store> {
        match self {
            Backend::Memory => Memory::open(),
            // Small caches: what is read comes from sled, too.
            Backend::Sled(path) => {
                // Part of the keys is in the memory tier: nobody may see a difference while nothing crashes.
                let volatile = vec![Bytes::from_static(b"/1/")];
                let options =
                    Options { volatile, page_cache_bytes: 1 << 20, value_cache_bytes: 16 << 10, quota_bytes: 0 };
                Sled::open(path.path().join("store"), options).expect("opens")
            }
            Backend::Etcd(real) => real.open().await,
        }
    }
}

pub fn text(text: impl Into<String>) -> Bytes {
    text.into().into_bytes().into()
}

pub fn put_op(key: &str, value: impl Into<String>) -> Op {
    Op::put(text(key), text(value))
}

pub async fn run(store: &dyn Store, ops: Vec<Op>) -> TxnResponse {
    store.txn(Txn { success: ops, ..Txn::default() }).await.expect("transaction runs")
}

pub async fn put(store: &dyn Store, key: &str, value: impl Into<String>) -> Revision {
    run(store, vec![put_op(key, value)]).await.revision
}

pub async fn delete(store: &dyn Store, range: KeyRange) -> Revision {
    run(store, vec![Op::Delete(range)]).await.revision
}

pub async fn get(store: &dyn Store, key: &str) -> Option<KeyValue> {
    let read = store.range(RangeRequest::of(KeyRange::key(text(key)))).await.expect("reads");
    read.kvs.into_iter().next()
}

pub async fn list(store: &dyn Store, prefix: &str, revision: Option<Revision>) -> Result<RangeResponse, Error> {
    store.range(RangeRequest { revision, ..RangeRequest::of(KeyRange::prefix(text(prefix))) }).await
}

/// `key=value@mod` for each, easy to read in a failure.
pub fn show(kvs: &[KeyValue]) -> String {
    let show = |kv: &KeyValue| format!("{}={}@{}", kv.key.escape_ascii(), kv.value.escape_ascii(), kv.mod_revision);
    kvs.iter().map(show).collect::<Vec<_>>().join(" ")
}

pub fn show_event(event: &Event) -> String {
    let previous = event.previous.as_ref().map_or("none".into(), |kv| show(std::slice::from_ref(kv)));
    format!("{:?} {} was {previous}", event.kind, show(std::slice::from_ref(&event.kv)))
}

/// Everything that a watch has up to the store's revision.
pub async fn drain(watch: &mut dyn Watch) -> Result<Vec<Arc<Event>>, Error> {
    watch.request_progress();
    let mut all = Vec::new();
    loop {
        match watch.next().await? {
            WatchMessage::Events(events) => all.extend(events),
            WatchMessage::Progress(_) => return Ok(all),
        }
    }
}
