//! The contract suite: every case runs on every backend, and `random.rs` compares each with `memory` as the oracle.

mod cases;
mod leases;
mod random;
mod real;
mod snapshots;
mod watching;

use super::local::engine::Kind;
use super::local::{Local, Options};
use super::memory::Memory;
use super::{
    Error, Event, KeyRange, KeyValue, Op, OpResponse, RangeRequest, RangeResponse, Revision, Store, Txn, TxnResponse,
    Watch, WatchMessage,
};
use bytes::Bytes;
use std::sync::Arc;

/// A backend under test, and how to open it (again).
pub enum Backend {
    Memory,
    Local(Kind, tempfile::TempDir),
    /// Where etcd is installed (Debian: etcd-server).
    Etcd(real::Real),
}

impl Backend {
    pub fn on(kind: Kind) -> Self {
        Backend::Local(kind, tempfile::tempdir().expect("scratch directory"))
    }

    pub fn all() -> Vec<Self> {
        let etcd = real::Real::start().map(Backend::Etcd);
        Backend::local().into_iter().chain(etcd).collect()
    }

    /// Those for cases that look at what a foreign etcd decides by itself.
    pub fn local() -> [Self; 3] {
        [Backend::Memory, Backend::on(Kind::Log), Backend::on(Kind::Sled)]
    }

    /// Open a store that was dropped without being closed: its directory is given back when its writer ends.
    pub async fn reopen(&self) -> Arc<dyn Store> {
        let Backend::Local(_, path) = self else { panic!("cannot be reopened") };
        for _ in 0..500 {
            match Local::open(path.path().join("store"), Options::default()) {
                Ok(store) => return store,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
        panic!("the directory is never given back");
    }

    pub async fn open(&self) -> Arc<dyn Store> {
        match self {
            Backend::Memory => Memory::open(),
            // Small caches: what is read comes from the engine, too.
            Backend::Local(kind, path) => {
                // Part of the keys is in the memory tier: nobody may see a difference while nothing crashes.
                let volatile = vec![Bytes::from_static(b"/1/")];
                let engine = Some(*kind);
                let (page_cache_bytes, value_cache_bytes) = (1 << 20, 16 << 10);
                let options = Options { engine, volatile, page_cache_bytes, value_cache_bytes, quota_bytes: 0 };
                Local::open(path.path().join("store"), options).expect("opens")
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
