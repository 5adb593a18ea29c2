//! The store in memory: the simplest thing that keeps the contract. Oracle of the contract suite, and the store of
//! tests and of throw-away servers. Every version of every key since the last compaction, in one ordered map.

use super::hub::{History, Hub};
use super::lease::Book;
use super::txn::{Apply, Change, check, check_compact, check_revision, run};
use super::{
    Error, Event, EventKind, Head, KeyRange, KeyValue, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision,
    Snapshot, Store, Txn, TxnResponse, Watch, Write,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<State>,
    leases: Book,
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
    /// Position in its transaction.
    sub: u32,
    deleted: bool,
}

impl Version {
    fn write(&self) -> Write {
        let kind = if self.deleted { EventKind::Delete } else { EventKind::Put };
        Write { sub: self.sub, kind, kv: self.kv.clone() }
    }
}

impl Memory {
    /// An empty store at revision 1.
    pub fn open() -> Arc<dyn Store> {
        let revision = Revision(1);
        let state = State { revision, compacted: revision, closed: false, keys: BTreeMap::new(), log: VecDeque::new() };
        let shared = Shared { state: RwLock::new(state), leases: Book::default(), hub: Hub::new(revision) };
        Arc::new(Memory { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// Run what writes, and publish its events.
    fn write<T>(&self, work: impl FnOnce(&mut Writing<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state.write();
        state.open()?;
        let at = Revision(state.revision.0 + 1);
        let mut writing = Writing { state: &mut state, leases: &self.leases, at, events: Vec::new() };
        let done = work(&mut writing)?;
        let events = writing.events;
        if !events.is_empty() {
            state.log.extend(events.iter().cloned());
            // Under the state's lock: publishing is in revision order.
            self.hub.publish(state.revision, events);
        }
        Ok(done)
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
        self.shared.write(|writing| run(&txn, writing))
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

    async fn lease_grant(&self, id: LeaseId, seconds: u32) -> Result<(), Error> {
        self.shared.write(|_| {
            self.shared.leases.check_new(id)?;
            self.shared.leases.enter(id, seconds.max(1), None, Instant::now());
            Ok(())
        })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.shared.write(|writing| {
            self.shared.leases.status(id, Instant::now())?;
            for key in writing.state.attached(id) {
                writing.delete(&KeyRange::key(key))?;
            }
            self.shared.leases.remove(id);
            Ok(writing.state.revision)
        })
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<u32, Error> {
        self.shared.state.read().open()?;
        Ok(self.shared.leases.renew(id, Instant::now())?.0)
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<(LeaseStatus, Vec<Bytes>), Error> {
        let state = self.shared.state.read();
        state.open()?;
        let status = self.shared.leases.status(id, Instant::now())?;
        Ok((status, if keys { state.attached(id) } else { Vec::new() }))
    }

    async fn leases(&self) -> Result<Vec<LeaseStatus>, Error> {
        self.shared.state.read().open()?;
        Ok(self.shared.leases.all(Instant::now()))
    }

    async fn keep_leases(&self) -> Result<(), Error> {
        for id in self.shared.leases.next_due().await.revoke {
            super::lease::gone(self.lease_revoke(id).await)?;
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        let state = self.shared.state.read();
        state.open()?;
        Ok(Box::new(Shot {
            head: Head {
                revision: state.revision,
                compacted: state.compacted,
                leases: self.shared.leases.all(Instant::now()),
            },
            writes: state.writes(),
            done: false,
        }))
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.shared.state.read().open()
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

    /// Keys that are attached to a lease.
    fn attached(&self, id: LeaseId) -> Vec<Bytes> {
        let all = self.keys.values().filter_map(|versions| live(versions, self.revision));
        all.filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    /// What a snapshot gives, see [`Snapshot::next`].
    fn writes(&self) -> Vec<Write> {
        let kept = |version: &&Version| {
            version.kv.mod_revision > self.compacted
                || self.get(&version.kv.key, self.compacted).is_some_and(|base| *base == version.kv)
        };
        let mut writes: Vec<Write> = self.keys.values().flatten().filter(kept).map(Version::write).collect();
        writes.sort_by_key(|write| (write.kv.mod_revision, write.sub));
        writes
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        check_compact(revision, self.revision, self.compacted)?;
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

/// The state while it is written to, at the revision that this takes.
struct Writing<'a> {
    state: &'a mut State,
    leases: &'a Book,
    at: Revision,
    events: Vec<Arc<Event>>,
}

impl Apply for Writing<'_> {
    fn revision(&self) -> Revision {
        self.state.revision
    }

    fn compacted(&self) -> Revision {
        self.state.compacted
    }

    fn has_lease(&self, id: LeaseId) -> bool {
        self.leases.contains(id)
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        Ok(self.state.range(request))
    }

    fn put(&mut self, key: &Bytes, change: Change<'_>) -> Result<Option<KeyValue>, Error> {
        let previous = self.state.get(key, self.at).cloned();
        let old = previous.as_ref();
        let kv = KeyValue {
            key: key.clone(),
            value: change.value.or(old.map(|kv| &kv.value)).cloned().unwrap_or_default(),
            create_revision: old.map_or(self.at, |kv| kv.create_revision),
            mod_revision: self.at,
            version: old.map_or(1, |kv| kv.version + 1),
            lease: change.lease.or(old.map(|kv| kv.lease)).unwrap_or_default(),
        };
        self.push(EventKind::Put, kv, previous.clone());
        Ok(previous)
    }

    fn delete(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, Error> {
        let gone = self.state.range(&RangeRequest::of(range.clone())).kvs;
        for previous in &gone {
            let kv = KeyValue {
                key: previous.key.clone(),
                value: Bytes::new(),
                create_revision: Revision(0),
                mod_revision: self.at,
                version: 0,
                lease: LeaseId::NONE,
            };
            self.push(EventKind::Delete, kv, Some(previous.clone()));
        }
        Ok(gone)
    }
}

impl Writing<'_> {
    fn push(&mut self, kind: EventKind, kv: KeyValue, previous: Option<KeyValue>) {
        self.state.revision = self.at;
        let version = Version { kv: kv.clone(), sub: self.events.len() as u32, deleted: kind == EventKind::Delete };
        self.state.keys.entry(kv.key.clone()).or_default().push(version);
        self.events.push(Arc::new(Event { kind, kv, previous }));
    }
}

/// A copy of everything.
struct Shot {
    head: Head,
    writes: Vec<Write>,
    done: bool,
}

#[async_trait]
impl Snapshot for Shot {
    fn head(&self) -> &Head {
        &self.head
    }

    async fn next(&mut self) -> Result<Vec<Write>, Error> {
        Ok(if std::mem::replace(&mut self.done, true) { Vec::new() } else { self.writes.clone() })
    }

    fn rewind(&mut self) {
        self.done = false;
    }
}

/// The state among a key's versions that was current at a revision.
fn live(versions: &[Version], at: Revision) -> Option<&KeyValue> {
    let after = versions.partition_point(|version| version.kv.mod_revision <= at);
    versions.get(after.checked_sub(1)?).filter(|version| !version.deleted).map(|version| &version.kv)
}
