//! What readers and the writer share: opening and repair, reads, the history behind watches.

use super::Options;
use super::directory::Directory;
use super::engine::{Above, Engine, missing};
use super::index::{Index, Superseded, Version};
use super::mark::{Mark, Noted};
use super::past::{Past, Tell, go_through};
use super::recent::{Recent, Written};
use super::record::Place;
use super::recovery::{self, Loaded};
use super::snapshot::{STEP_BYTES, STEP_RECORDS};
use super::values::Values;
use super::volatile::{Kept, Volatile};
use crate::store::condition::{Condition, Loss};
use crate::store::hub::{History, Hub};
use crate::store::lease::Book;
use crate::store::quota::Quota;
use crate::store::snapshots::rolling::Rolling;
use crate::store::txn::check_revision;
use crate::store::{Error, Event, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision, Write};
use crate::task;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Records that one step of reading history looks at, at least (it ends between revisions).
const HISTORY_RECORDS: usize = 1024;

pub struct Shared {
    options: Options,
    /// `None` once closed.
    directory: Mutex<Option<Directory>>,
    pub engine: Arc<dyn Engine>,
    pub index: RwLock<Index>,
    pub values: Mutex<Values>,
    /// What is only in memory so far.
    pub volatile: RwLock<Volatile>,
    committed: AtomicU64,
    /// Revision of the last write that is on disk.
    durable: AtomicU64,
    /// Revisions up to here may be given out before they are on disk.
    reserved: AtomicU64,
    /// The memory tier's history begins here.
    floor: u64,
    compacted: AtomicU64,
    closed: AtomicBool,
    mark: Mark,
    pub rolling: Arc<Rolling>,
    losses: Vec<Loss>,
    commits: Mutex<Recent>,
    rate: Mutex<Written>,
    /// Why the last write failed, if it did.
    alarm: Mutex<Option<String>>,
    /// Revisions that reads under way look at, with how many.
    pins: Mutex<BTreeMap<u64, usize>>,
    pub leases: Book,
    pub quota: Quota,
    pub hub: Arc<Hub>,
}

impl Shared {
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let directory = Directory::open(path)?;
        let (Loaded { opened, reached, committed, compacted, floor }, mark) = recovery::open(&directory, &options)?;
        mark.set(Noted { durable: reached, reserved: 0 });
        give_back_memory();
        let (leases, now, quota_bytes) = (Book::default(), Instant::now(), options.quota_bytes);
        for (id, entry) in opened.leases {
            leases.enter(id, entry.granted, entry.remaining, now);
        }
        Ok(Shared {
            values: Mutex::new(Values::new(options.value_cache_bytes)),
            options,
            losses: directory.losses(),
            rolling: Arc::new(Rolling::new(directory.snapshots())),
            mark,
            commits: Mutex::default(),
            rate: Mutex::default(),
            alarm: Mutex::default(),
            directory: Mutex::new(Some(directory)),
            engine: opened.engine,
            index: RwLock::new(opened.index),
            volatile: RwLock::default(),
            committed: AtomicU64::new(committed),
            durable: AtomicU64::new(reached),
            reserved: AtomicU64::new(0),
            floor,
            compacted: AtomicU64::new(compacted),
            closed: AtomicBool::new(false),
            pins: Mutex::default(),
            leases,
            quota: Quota::new(quota_bytes),
            hub: Hub::new(Revision(committed)),
        })
    }

    /// Run what an engine needs this for.
    pub fn with_above<T>(&self, work: impl FnOnce(&Above<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let directory = self.directory.lock();
        work(&Above {
            directory: directory.as_ref().ok_or(Error::Closed)?,
            committed: self.committed().0,
            in_memory: &|| self.volatile.read().places(),
            stored: self.index.read().stored_bytes(),
        })
    }

    pub fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        self.hub.close();
        let result = self.engine.close();
        *self.directory.lock() = None;
        result
    }

    pub fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    pub fn committed(&self) -> Revision {
        Revision(self.committed.load(Ordering::SeqCst))
    }

    /// `durable`: the last revision in it that is behind a barrier, if there is one.
    pub fn set_committed(&self, revision: u64, durable: Option<u64>) {
        if let Some(durable) = durable {
            self.durable.store(durable, Ordering::SeqCst);
            self.mark.set(Noted { durable, reserved: self.reserved() });
        }
        self.committed.store(revision, Ordering::SeqCst);
    }

    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::SeqCst)
    }

    pub fn set_reserved(&self, revision: u64) {
        self.reserved.store(revision, Ordering::SeqCst);
        self.mark.set(Noted { durable: self.durable.load(Ordering::SeqCst), reserved: revision });
    }

    pub fn volatile_prefixes(&self) -> &[Bytes] {
        &self.options.volatile
    }

    /// Versions that nobody needs any more: what of them has to be removed from disk.
    pub fn forget(&self, mut gone: Vec<Superseded>) -> Vec<Superseded> {
        let (mut values, mut volatile) = (self.values.lock(), self.volatile.write());
        gone.iter().for_each(|entry| values.remove(entry.place));
        gone.retain(|entry| !volatile.remove(entry.place));
        gone
    }

    /// Whether history of a range from a revision on can be told: what was only in memory at an unclean stop is lost.
    pub fn check_floor(&self, range: &KeyRange, revision: Revision) -> Result<(), Error> {
        let lost = revision.0 < self.floor && self.options.volatile.iter().any(|prefix| range.touches(prefix));
        if lost { Err(Error::Compacted(Revision(self.floor))) } else { Ok(()) }
    }

    /// Note how a commit ended. `fills`: it did not only delete, which may be all that works.
    pub fn observe(&self, took: Duration, fills: bool, result: &Result<(), Error>) {
        match result {
            Ok(()) => {
                self.commits.lock().observe(took, Instant::now());
                if fills {
                    *self.alarm.lock() = None;
                }
            }
            Err(error) => *self.alarm.lock() = Some(error.to_string()),
        }
    }

    pub fn condition(&self) -> Condition {
        Condition {
            commits: self.commits.lock().commits(Instant::now()),
            alarm: self.alarm.lock().clone(),
            losses: self.losses.clone(),
            snapshot: self.rolling.newest(),
            written_per_day: self.rate.lock().per_day(Instant::now(), self.written_bytes()),
        }
    }

    pub fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::SeqCst))
    }

    pub fn set_compacted(&self, revision: u64) {
        self.compacted.store(revision, Ordering::SeqCst);
    }

    pub fn history_bytes(&self) -> u64 {
        self.index.read().superseded_bytes()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.engine.bytes()
    }

    pub fn used_bytes(&self) -> u64 {
        self.engine.used_bytes(self.index.read().stored_bytes())
    }

    pub fn written_bytes(&self) -> u64 {
        self.engine.written()
    }

    /// Give back memory, also what others in this process have freed: objects are small and of mixed age, so the
    /// allocator by itself keeps what a burst of requests took. Blocks for some milliseconds if that is much.
    pub fn trim(&self) {
        self.values.lock().age();
        self.rate.lock().sample(Instant::now(), self.written_bytes());
        self.engine.trim(&|count| self.index.read().sample(count));
        give_back_memory();
    }

    /// The oldest revision that must stay readable.
    pub fn horizon(&self) -> u64 {
        let compacted = self.compacted().0;
        self.pins.lock().keys().next().map_or(compacted, |&oldest| oldest.min(compacted))
    }

    fn pin(self: &Arc<Self>, revision: u64) -> Pin {
        *self.pins.lock().entry(revision).or_default() += 1;
        Pin { shared: self.clone(), revision }
    }

    /// The first half of a read: keys and recently used values. What is left needs the engine.
    pub fn start_range(self: &Arc<Self>, request: &RangeRequest) -> Result<Reading, Error> {
        self.check_open()?;
        // The revision is checked and pinned under the lock that forgetting takes exclusively.
        let index = self.index.read();
        let committed = self.committed();
        check_revision(request, committed, self.compacted())?;
        if let Some(revision) = request.revision {
            self.check_floor(&request.range, revision)?;
        }
        let at = request.revision.unwrap_or(committed).0;
        let mut response = RangeResponse { revision: committed, ..RangeResponse::default() };
        if request.count_only {
            response.count = index.count(&request.range, at);
            return Ok(Reading { response, missing: Vec::new(), pin: self.pin(at) });
        }
        let found = index.range(&request.range, at, request.limit);
        let pin = self.pin(at);
        drop(index);
        (response.count, response.more) = (found.count, found.more);
        response.kvs.reserve_exact(found.versions.len());
        let mut missing = Vec::new();
        let mut values = self.values.lock();
        for (position, (key, version)) in found.versions.iter().enumerate() {
            let value = if request.keys_only { Some(Bytes::new()) } else { values.get(version.place()) };
            if value.is_none() {
                missing.push((version.place(), position));
            }
            response.kvs.push(key_value(key, version, value.unwrap_or_default()));
        }
        drop(values);
        Ok(Reading { response, missing, pin })
    }

    /// The oldest and the newest revision that can be read now, kept readable.
    pub fn pin_all(self: &Arc<Self>) -> (Pin, Revision, Revision) {
        let _index = self.index.read();
        let compacted = self.compacted();
        (self.pin(compacted.0), compacted, self.committed())
    }

    /// Some writes of a snapshot from a place on, and where to go on.
    pub fn read_writes(
        &self,
        from: Place,
        compacted: Revision,
        revision: Revision,
    ) -> Result<(Vec<Write>, Option<Place>), Error> {
        let kept = self.volatile.read().from(from, STEP_RECORDS);
        let mut writes = Vec::new();
        let (mut looked_at, mut bytes, mut next) = (0, 0, None);
        let cut = self.past(from, kept, STEP_RECORDS, &mut |place, write| {
            if place.revision > revision.0 {
                return Ok(false);
            }
            if looked_at >= STEP_RECORDS || bytes >= STEP_BYTES {
                next = Some(place);
                return Ok(false);
            }
            looked_at += 1;
            let current = || self.index.read().get(write.key(), compacted.0).map(|version| version.place());
            if place.revision <= compacted.0 && current() != Some(place) {
                return Ok(true);
            }
            let value = write.value(place, &*self.engine)?;
            bytes += value.len() + write.key().len();
            writes.push(Write { sub: place.sub, kind: write.kind(), kv: write.kv(place, value) });
            Ok(true)
        })?;
        Ok((writes, next.or(cut)))
    }

    /// Everything written from a place on, in order. `kept`: see [`Volatile::from`], with this limit. It was looked up first:
    /// what is written back meanwhile is then met twice, not never.
    fn past(
        &self,
        from: Place,
        kept: Vec<(Place, Kept)>,
        limit: usize,
        tell: &mut Tell<'_>,
    ) -> Result<Option<Place>, Error> {
        let end = if kept.len() >= limit { kept.last().map(|(place, _)| place.revision) } else { None };
        go_through(&*self.engine, from, &kept, end, tell)
    }

    /// A value, recently used or from the engine.
    pub fn value(&self, place: Place) -> Result<Bytes, Error> {
        if let Some(value) = self.values.lock().get(place) {
            return Ok(value);
        }
        self.fetch(place)
    }

    /// A value from the memory tier or the engine.
    fn fetch(&self, place: Place) -> Result<Bytes, Error> {
        if let Some(kept) = self.volatile.read().get(place) {
            return Ok(kept.value.clone().unwrap_or_default());
        }
        let value = self.engine.value(place)?.ok_or_else(|| missing(place))?;
        self.values.lock().offer(place, &value);
        Ok(value)
    }

    /// Events from history, see [`History::events`].
    fn read_history(&self, range: &KeyRange, from: u64, limit: usize) -> Result<(Vec<Arc<Event>>, Revision), Error> {
        let committed = self.committed().0;
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut looked_at = 0;
        let mut next = committed + 1;
        let (start, mut last) = (Place { revision: from, sub: 0 }, from);
        let kept = self.volatile.read().from(start, HISTORY_RECORDS);
        let read = self.past(start, kept, HISTORY_RECORDS, &mut |place, write| {
            let full = events.len() >= limit || looked_at >= HISTORY_RECORDS;
            if place.revision > committed || (full && place.revision > last) {
                next = place.revision.min(committed + 1);
                return Ok(false);
            }
            last = place.revision;
            looked_at += 1;
            if range.contains(write.key()) {
                events.push(Arc::new(self.event(place, write)?));
            }
            Ok(true)
        });
        // Compaction may have taken away what was to be read.
        if Revision(from) < self.compacted() {
            return Err(Error::Compacted(self.compacted()));
        }
        if let Some(place) = read? {
            next = place.revision.min(committed + 1);
        }
        Ok((events, Revision(next)))
    }

    fn event(&self, place: Place, write: &Past<'_>) -> Result<Event, Error> {
        let value = if write.deleted() { Bytes::new() } else { self.value(place)? };
        let previous = self.index.read().before(write.key(), place.revision);
        let previous = previous.and_then(|version| {
            let value = self.value(version.place()).ok()?;
            Some(key_value(write.key(), &version, value))
        });
        Ok(Event { kind: write.kind(), kv: write.kv(place, value), previous })
    }
}

/// A watch's way to history.
pub struct Handle(pub Arc<Shared>);

#[async_trait]
impl History for Handle {
    async fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Revision), Error> {
        let (shared, range) = (self.0.clone(), range.clone());
        let read = task::Group::blocking(move || shared.read_history(&range, from.0, limit)).await;
        read.map_err(|e| Error::Failed { step: "reading history", message: e.to_string() })?
    }
}

/// A revision that a read looks at: nothing of it is removed meanwhile.
pub struct Pin {
    pub shared: Arc<Shared>,
    revision: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        if let Some(count) = pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.revision);
            }
        }
    }
}

/// A read whose keys are known and whose values are still to be fetched.
pub struct Reading {
    response: RangeResponse,
    missing: Vec<(Place, usize)>,
    pin: Pin,
}

impl Reading {
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Fetch what is missing. Blocks.
    pub fn finish(mut self) -> Result<RangeResponse, Error> {
        if self.missing.is_empty() {
            return Ok(self.response);
        }
        let shared = &self.pin.shared;
        let (mut elsewhere, mut positions) = (Vec::new(), Vec::new());
        for (place, position) in std::mem::take(&mut self.missing) {
            match shared.volatile.read().get(place) {
                Some(kept) => self.response.kvs[position].value = kept.value.clone().unwrap_or_default(),
                None => {
                    elsewhere.push(place);
                    positions.push(position);
                }
            }
        }
        let kvs = &mut self.response.kvs;
        shared.engine.values(&elsewhere, &mut |at, value| {
            shared.values.lock().offer(elsewhere[at], &value);
            kvs[positions[at]].value = value;
        })?;
        Ok(self.response)
    }
}

pub fn key_value(key: &[u8], version: &Version, value: Bytes) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key),
        value,
        create_revision: Revision(version.create),
        mod_revision: Revision(version.revision),
        version: version.version,
        lease: version.lease,
    }
}

/// Have the allocator give free memory back to the system; some do so by themselves.
fn give_back_memory() {
    // SAFETY: takes no pointers; the function may be called at any time from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
