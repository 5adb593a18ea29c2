//! Encryption at rest: Secrets are stored encrypted. The registry sees the store through [`Sealed`], which decrypts what
//! comes out and encrypts what goes in; the store itself, its snapshots, backups and its etcd API hold the encrypted
//! values.

pub mod endpoint;
mod keys;
mod rotation;
pub mod shared;

pub use rotation::{Status, start};

use crate::store::condition::Condition;
use crate::store::snapshots::rolling::Rolling;
use crate::store::{
    Alarm, Error, Event, KeyRange, KeyValue, LeaseId, LeaseStatus, Op, OpResponse, Put, RangeRequest, RangeResponse,
    Revision, Snapshot, Store, Txn, TxnResponse, Watch, WatchMessage,
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use keys::Keys;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Where Secrets are stored.
const SECRETS: &[u8] = b"/registry/secrets/";

/// A store whose Secrets are encrypted.
pub struct Sealed {
    inner: Arc<dyn Store>,
    keys: Arc<ArcSwap<Keys>>,
    file: PathBuf,
    /// Wakes the rewriting of values.
    wake: Notify,
    /// Of the keys, that which encrypts first.
    names: watch::Sender<Vec<String>>,
}

/// Names of the keys in a file with this content, that which encrypts first.
pub fn key_names(text: &[u8]) -> anyhow::Result<Vec<String>> {
    Ok(owned(&Keys::parse(text)?))
}

fn owned(keys: &Keys) -> Vec<String> {
    keys.names().into_iter().map(str::to_owned).collect()
}

impl Sealed {
    /// Over a store, with the keys below the data directory; the first one is made if there is none.
    pub fn over(inner: Arc<dyn Store>, data_dir: &Path) -> anyhow::Result<Arc<Self>> {
        let file = keys::file(data_dir);
        let keys = Keys::load_or_create(&file)?;
        let names = watch::Sender::new(owned(&keys));
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        Ok(Arc::new(Sealed { inner, keys, file, wake: Notify::new(), names }))
    }

    /// Names of the keys that are in use, that which encrypts first, and what they become.
    pub fn names(&self) -> watch::Receiver<Vec<String>> {
        self.names.subscribe()
    }

    fn open_kv(keys: &Keys, kv: &mut KeyValue) -> Result<(), Error> {
        // Without a value: a deletion, or keys only.
        if kv.key.starts_with(SECRETS) && !kv.value.is_empty() {
            kv.value = keys.open(&kv.key, &kv.value).map_err(|_| unreadable(&kv.key))?;
        }
        Ok(())
    }

    fn open_range(&self, mut response: RangeResponse) -> Result<RangeResponse, Error> {
        let keys = self.keys.load();
        response.kvs.iter_mut().try_for_each(|kv| Self::open_kv(&keys, kv))?;
        Ok(response)
    }

    fn seal_ops(&self, ops: Vec<Op>) -> Result<Vec<Op>, Error> {
        let seal = |op| match op {
            Op::Put(Put { key, value: Some(value), lease }) if key.starts_with(SECRETS) => {
                let sealed = self.keys.load().seal(&key, &value).map_err(|_| Error::Failed {
                    step: "encrypting a Secret",
                    message: "the key cannot be used".into(),
                })?;
                Ok(Op::Put(Put { key, value: Some(sealed), lease }))
            }
            Op::Txn(txn) => self.seal_txn(txn).map(Op::Txn),
            other => Ok(other),
        };
        ops.into_iter().map(seal).collect()
    }

    fn seal_txn(&self, txn: Txn) -> Result<Txn, Error> {
        let Txn { compare, success, failure } = txn;
        Ok(Txn { compare, success: self.seal_ops(success)?, failure: self.seal_ops(failure)? })
    }

    fn open_txn(&self, mut response: TxnResponse) -> Result<TxnResponse, Error> {
        let open = |response| {
            Ok(match response {
                OpResponse::Put { mut previous } => {
                    previous.iter_mut().try_for_each(|kv| Self::open_kv(&self.keys.load(), kv))?;
                    OpResponse::Put { previous }
                }
                OpResponse::Delete { mut previous } => {
                    previous.iter_mut().try_for_each(|kv| Self::open_kv(&self.keys.load(), kv))?;
                    OpResponse::Delete { previous }
                }
                OpResponse::Range(range) => OpResponse::Range(self.open_range(range)?),
                OpResponse::Txn(txn) => OpResponse::Txn(self.open_txn(txn)?),
            })
        };
        response.responses = response.responses.into_iter().map(open).collect::<Result<_, Error>>()?;
        Ok(response)
    }
}

fn unreadable(key: &[u8]) -> Error {
    Error::Failed {
        step: "decrypting a Secret",
        message: format!("no key in server/cred/encryption-config.json opens {}", key.escape_ascii()),
    }
}

#[async_trait]
impl Store for Sealed {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.open_range(self.inner.range(request).await?)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let response = self.inner.txn(self.seal_txn(txn)?).await?;
        self.open_txn(response)
    }

    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Box<dyn Watch>, Error> {
        let touches = range.touches(SECRETS);
        let watch = self.inner.watch(range, from).await?;
        Ok(if touches { Box::new(Opening { watch, keys: self.keys.clone() }) } else { watch })
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }

    fn history_bytes(&self) -> u64 {
        self.inner.history_bytes()
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    fn rolling(&self) -> Option<Arc<Rolling>> {
        self.inner.rolling()
    }

    fn trim(&self) {
        self.inner.trim();
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }

    fn written_bytes(&self) -> u64 {
        self.inner.written_bytes()
    }

    async fn lease_grant(&self, id: LeaseId, seconds: u32) -> Result<(), Error> {
        self.inner.lease_grant(id, seconds).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.inner.lease_revoke(id).await
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<u32, Error> {
        self.inner.lease_renew(id).await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<(LeaseStatus, Vec<Bytes>), Error> {
        self.inner.lease(id, keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseStatus>, Error> {
        self.inner.leases().await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        self.inner.snapshot().await
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.inner.defragment().await
    }

    fn alarm(&self) -> Option<Alarm> {
        self.inner.alarm()
    }

    fn disarm(&self) {
        self.inner.disarm();
    }

    async fn close(&self) -> Result<(), Error> {
        self.inner.close().await
    }
}

/// A watch that may meet Secrets. Events of other keys stay shared.
struct Opening {
    watch: Box<dyn Watch>,
    keys: Arc<ArcSwap<Keys>>,
}

#[async_trait]
impl Watch for Opening {
    async fn next(&mut self) -> Result<WatchMessage, Error> {
        let message = self.watch.next().await?;
        let WatchMessage::Events(events) = message else { return Ok(message) };
        let keys = self.keys.load();
        let open = |event: Arc<Event>| {
            if !event.kv.key.starts_with(SECRETS) {
                return Ok(event);
            }
            let mut event = Event::clone(&event);
            Sealed::open_kv(&keys, &mut event.kv)?;
            event.previous.iter_mut().try_for_each(|kv| Sealed::open_kv(&keys, kv))?;
            Ok(Arc::new(event))
        };
        Ok(WatchMessage::Events(events.into_iter().map(open).collect::<Result<_, Error>>()?))
    }

    fn request_progress(&mut self) {
        self.watch.request_progress();
    }
}

#[cfg(test)]
mod tests;
