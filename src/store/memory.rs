//! The store in memory: the simplest thing that keeps the contract. Oracle of the contract suite, and the store of
//! tests and of throw-away servers. Every version of every key since the last compaction, in one ordered map.

use super::hub::{History, Hub};
use super::txn::{check, check_revision};
use super::{
    Error, Event, EventKind, KeyRange, KeyValue, Op, OpResponse, RangeRequest, RangeResponse, Revision, Store, Txn,
    TxnResponse, Watch,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<State>,
    hub: Arc<Hub>,
}

struct State {
    revision: Revision,
    compacted: Revision,
    closed: bool,
    /// Versions of each key, oldest first.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Every event since compaction, oldest first.
    log: VecDeque<Arc<Event>>,
}

/// A state that a key once had: a value, or deleted at that revision.
#[derive(Clone)]
struct Version {
    kv: KeyValue,
    deleted: bool,
}

impl Memory {
    /// An empty store at revision 1.
    pub fn open() -> Arc<dyn Store> {
        let revision = Revision(1);
        let state = State { revision, compacted: revision, closed: false, keys: BTreeMap::new(), log: VecDeque::new() };
        Arc::new(Memory { shared: Arc::new(Shared { state: RwLock::new(state), hub: Hub::new(revision) }) })
    }
}

#[async_trait]
impl Store for Memory {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let state = self.shared.state.read();
        state.open()?;
        check_revision(&request, state.revision, state.compacted)?;
        Ok(state.range(&request))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        check(&txn)?;
        let mut state = self.shared.state.write();
        state.open()?;
        let (response, events) = state.txn(&txn)?;
        if !events.is_empty() {
            state.log.extend(events.iter().cloned());
            // Under the state's lock: publishing is in revision order.
            self.shared.hub.publish(state.revision, events);
        }
        Ok(response)
    }

    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Box<dyn Watch>, Error> {
        let state = self.shared.state.read();
        state.open()?;
        match from {
            Some(from) if from < state.compacted => Err(Error::Compacted(state.compacted)),
            _ => Ok(Box::new(self.shared.hub.watch(range, from, self.shared.clone()))),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut state = self.shared.state.write();
        state.open()?;
        state.compact(revision)
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().revision
    }

    fn compacted(&self) -> Revision {
        self.shared.state.read().compacted
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn written_bytes(&self) -> u64 {
        0
    }

    async fn close(&self) -> Result<(), Error> {
        self.shared.state.write().closed = true;
        self.shared.hub.close();
        Ok(())
    }
}

#[async_trait]
impl History for Shared {
    async fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Revision), Error> {
        let state = self.state.read();
        state.open()?;
        if from < state.compacted {
            return Err(Error::Compacted(state.compacted));
        }
        let mut found: Vec<Arc<Event>> = Vec::new();
        let start = state.log.partition_point(|event| event.kv.mod_revision < from);
        for event in state.log.range(start..) {
            let at = event.kv.mod_revision;
            if found.len() >= limit && found.last().is_some_and(|last| last.kv.mod_revision < at) {
                return Ok((found, at));
            }
            if range.contains(&event.kv.key) {
                found.push(event.clone());
            }
        }
        Ok((found, Revision(state.revision.0 + 1)))
    }
}

impl State {
    fn open(&self) -> Result<(), Error> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// The key's state at a revision.
    fn get(&self, key: &[u8], at: Revision) -> Option<&KeyValue> {
        live(self.keys.get(key)?, at)
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let mut response = RangeResponse { revision: self.revision, ..RangeResponse::default() };
        if request.range.is_empty() {
            return response;
        }
        let at = request.revision.unwrap_or(self.revision);
        for versions in self.keys.range::<[u8], _>(request.range.bounds()).map(|(_, versions)| versions) {
            let Some(kv) = live(versions, at) else { continue };
            response.count += 1;
            if request.count_only {
                continue;
            }
            if request.limit > 0 && response.kvs.len() == request.limit {
                response.more = true;
                continue;
            }
            let value = if request.keys_only { Bytes::new() } else { kv.value.clone() };
            response.kvs.push(KeyValue { value, ..kv.clone() });
        }
        response
    }

    fn txn(&mut self, txn: &Txn) -> Result<(TxnResponse, Vec<Arc<Event>>), Error> {
        let before = self.revision;
        let succeeded = txn.compare.iter().all(|compare| compare.holds(self.get(compare.key(), before)));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        // Everything that can fail comes before the first change.
        for op in ops {
            if let Op::Range(request) = op {
                check_revision(request, before, self.compacted)?;
            }
        }
        let writing = Revision(before.0 + 1);
        let mut events = Vec::new();
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Put { key, value } => OpResponse::Put { previous: self.put(key, value, writing, &mut events) },
                Op::Delete(range) => OpResponse::Delete { previous: self.delete(range, writing, &mut events) },
                Op::Range(request) => OpResponse::Range(self.range(request)),
            });
        }
        Ok((TxnResponse { revision: self.revision, succeeded, responses }, events))
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, at: Revision, events: &mut Vec<Arc<Event>>) -> Option<KeyValue> {
        let previous = self.get(key, at).cloned();
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(at, |kv| kv.create_revision),
            mod_revision: at,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
        };
        self.push(EventKind::Put, kv, previous.clone(), events);
        previous
    }

    fn delete(&mut self, range: &KeyRange, at: Revision, events: &mut Vec<Arc<Event>>) -> Vec<KeyValue> {
        let gone = self.range(&RangeRequest::of(range.clone())).kvs;
        for previous in &gone {
            let kv = KeyValue {
                key: previous.key.clone(),
                value: Bytes::new(),
                create_revision: Revision(0),
                mod_revision: at,
                version: 0,
            };
            self.push(EventKind::Delete, kv, Some(previous.clone()), events);
        }
        gone
    }

    fn push(&mut self, kind: EventKind, kv: KeyValue, previous: Option<KeyValue>, events: &mut Vec<Arc<Event>>) {
        self.revision = kv.mod_revision;
        let version = Version { kv: kv.clone(), deleted: kind == EventKind::Delete };
        self.keys.entry(kv.key.clone()).or_default().push(version);
        events.push(Arc::new(Event { kind, kv, previous }));
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::Future(self.revision));
        }
        if revision <= self.compacted {
            return Ok(());
        }
        self.compacted = revision;
        self.keys.retain(|_, versions| {
            let base = versions.partition_point(|version| version.kv.mod_revision <= revision).saturating_sub(1);
            versions.drain(..base);
            versions.len() > 1 || versions.first().is_some_and(|only| !only.deleted || only.kv.mod_revision > revision)
        });
        let gone = self.log.partition_point(|event| event.kv.mod_revision < revision);
        self.log.drain(..gone);
        Ok(())
    }
}

/// The state among a key's versions that was current at a revision.
fn live(versions: &[Version], at: Revision) -> Option<&KeyValue> {
    let after = versions.partition_point(|version| version.kv.mod_revision <= at);
    versions.get(after.checked_sub(1)?).filter(|version| !version.deleted).map(|version| &version.kv)
}
