//! A snapshot of an etcd cluster, read by its API: the keys that there are at one revision, without history.

use super::Etcd;
use crate::store::{
    Error, EventKind, Head, KeyRange, KeyValue, Op, OpResponse, RangeRequest, Revision, Snapshot, Store, Txn, Write,
};
use async_trait::async_trait;
use bytes::Bytes;

/// Keys read at once, and values.
const PAGE_KEYS: usize = 5000;
const BATCH_VALUES: usize = 64;

/// Holds all keys, about 100 bytes each, and the values of one batch.
pub struct EtcdSnapshot {
    store: Etcd,
    /// There is no history in it: what is compacted is all before.
    head: Head,
    /// In order of their last writes.
    keys: Vec<(Revision, Bytes)>,
    /// Keys whose values have been read.
    given: usize,
}

impl EtcdSnapshot {
    pub async fn take(store: Etcd) -> Result<Self, Error> {
        let leases = store.leases().await?;
        let mut request =
            RangeRequest { limit: PAGE_KEYS, keys_only: true, ..RangeRequest::of(KeyRange::prefix(Bytes::new())) };
        let mut keys = Vec::new();
        loop {
            let page = store.range(request.clone()).await?;
            request.revision.get_or_insert(page.revision);
            if let Some(last) = page.kvs.last() {
                request.range.start = [&last.key[..], &[0]].concat().into();
            }
            // Copies: a key is a part of the whole answer.
            keys.extend(page.kvs.iter().map(|kv| (kv.mod_revision, Bytes::copy_from_slice(&kv.key))));
            if !page.more {
                break;
            }
        }
        keys.sort();
        let revision = request.revision.unwrap_or_default();
        Ok(EtcdSnapshot { store, head: Head { revision, compacted: revision, leases }, keys, given: 0 })
    }

    /// Keys as they were at the snapshot's revision.
    async fn read(&self, keys: &[(Revision, Bytes)]) -> Result<Vec<KeyValue>, Error> {
        let read = |(_, key): &(Revision, Bytes)| {
            Op::Range(RangeRequest {
                revision: Some(self.head.revision),
                ..RangeRequest::of(KeyRange::key(key.clone()))
            })
        };
        let done = self.store.txn(Txn { success: keys.iter().map(read).collect(), ..Txn::default() }).await?;
        let found = done.responses.into_iter().map(|response| match response {
            OpResponse::Range(found) => found.kvs.into_iter().next(),
            _ => None,
        });
        let found: Option<Vec<_>> = found.collect();
        let message = || "etcd's answer is incomplete".to_owned();
        found.ok_or_else(|| Error::Failed { step: "reading a snapshot", message: message() })
    }
}

#[async_trait]
impl Snapshot for EtcdSnapshot {
    fn head(&self) -> &Head {
        &self.head
    }

    async fn next(&mut self) -> Result<Vec<Write>, Error> {
        let batch = &self.keys[self.given..self.keys.len().min(self.given + BATCH_VALUES)];
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let kvs = self.read(batch).await?;
        let position = |at: usize| {
            let revision = self.keys[at].0;
            self.keys[..at].iter().rev().take_while(|(other, _)| *other == revision).count() as u32
        };
        let write = |(number, kv)| Write { sub: position(self.given + number), kind: EventKind::Put, kv };
        let writes = kvs.into_iter().enumerate().map(write).collect();
        self.given += batch.len();
        Ok(writes)
    }

    fn rewind(&mut self) {
        self.given = 0;
    }
}
