//! What readers and the writer share: opening and repair, reads, the history behind watches.

use super::Options;
use super::files::Directory;
use super::index::{Index, Superseded, Version};
use super::mark::{Mark, Noted};
use super::open::{
    Open, Pages, TRIM_PAGES, caught, damaged, fetch, flush, last_record, missing, trim_page_cache, value_of,
};
use super::past::{Past, PastWrite, Source};
use super::recent::{Recent, Written};
use super::record::{Place, decode};
use super::recovery::{self, Loaded};
use super::snapshot::{STEP_BYTES, STEP_RECORDS};
use super::values::Values;
use super::volatile::Volatile;
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
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Records read from sled after which a trim has sled let go of pages.
const TRIM_FETCHES: usize = 1000;

/// Records that one step of reading history looks at, at least (it ends between revisions).
const HISTORY_RECORDS: usize = 1024;

/// What the file takes at most for each byte that is kept in it; above that it has room to be used again.
const ROOM_FACTOR: u64 = 3;

/// What the file may take beyond that: room is claimed ahead of writes.
const SPARE_BYTES: u64 = 24 << 20;

pub struct Shared {
    options: Options,
    /// `None` once closed.
    directory: Mutex<Option<Directory>>,
    /// `None` once closed, and while sled could not be opened again after an error.
    pub open: RwLock<Option<Open>>,
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
    written: AtomicU64,
    closed: AtomicBool,
    mark: Mark,
    pub rolling: Arc<Rolling>,
    losses: Vec<Loss>,
    commits: Mutex<Recent>,
    rate: Mutex<Written>,
    /// Why the last write failed, if it did.
    alarm: Mutex<Option<String>>,
    /// Records read from sled since the last trim.
    fetched: AtomicUsize,
    /// Revisions that reads under way look at, with how many.
    pins: Mutex<BTreeMap<u64, usize>>,
    pub leases: Book,
    pub quota: Quota,
    pub hub: Arc<Hub>,
}

impl Shared {
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let directory = Directory::open(path)?;
        let (Loaded { open, index, reached, committed, compacted, floor, leases }, mark) =
            recovery::open(&directory, &options)?;
        mark.set(Noted { durable: reached, reserved: 0 });
        let quota_bytes = options.quota_bytes;
        if index.len() >= TRIM_FETCHES {
            trim_page_cache(&open, &index.sample(TRIM_PAGES))?;
            give_back_memory();
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
            open: RwLock::new(Some(open)),
            index: RwLock::new(index),
            volatile: RwLock::default(),
            committed: AtomicU64::new(committed),
            durable: AtomicU64::new(reached),
            reserved: AtomicU64::new(0),
            floor,
            compacted: AtomicU64::new(compacted),
            written: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            fetched: AtomicUsize::new(0),
            pins: Mutex::default(),
            leases,
            quota: Quota::new(quota_bytes),
            hub: Hub::new(Revision(committed)),
        })
    }

    /// Open sled again after an error, back at the last committed revision. While that has no prospect, the old one stays
    /// for reading.
    pub fn repair(&self) -> Result<(), Error> {
        let directory = self.directory.lock();
        let directory = directory.as_ref().ok_or(Error::Closed)?;
        directory.probe()?;
        let mut open = self.open.write();
        *open = None;
        let in_memory = self.volatile.read().places();
        let again = recovery::resume(&directory.sled(), &self.options, self.committed().0, &in_memory)?;
        let last = last_record(&again)?.map_or(1, |place| place.revision).max(self.compacted().0);
        let durable = self.durable.load(Ordering::SeqCst);
        if last < durable {
            return Err(Error::Failed {
                step: "repairing the store",
                message: format!("revision {durable} was written, but only {last} is there"),
            });
        }
        flush(&again)?;
        *open = Some(again);
        Ok(())
    }

    /// Put new files in the place of sled's, if those are much longer than what is in them needs. Only the writer may call
    /// it; reads go on but for the last moment. Needs room on disk for what is kept.
    pub fn give_space_back(&self) -> Result<(), Error> {
        let kept = self.index.read().stored_bytes();
        if self.disk_bytes() <= kept * ROOM_FACTOR + SPARE_BYTES {
            return Ok(());
        }
        let (files, made) = self.with_directory(|directory| Ok((directory.sled(), directory.restoring()?)))?;
        if let Err(error) = self.with_open(|open| recovery::rewrite(open, &made, &self.options)) {
            self.with_directory(|directory| directory.restoring().map(drop))?;
            return Err(error);
        }
        let mut open = self.open.write();
        *open = None;
        let swapped = self.with_directory(|directory| directory.swap(&made));
        // Whichever files are there now.
        let in_memory = self.volatile.read().places();
        *open = Some(recovery::resume(&files, &self.options, self.committed().0, &in_memory)?);
        swapped
    }

    fn with_directory<T>(&self, work: impl FnOnce(&Directory) -> Result<T, Error>) -> Result<T, Error> {
        work(self.directory.lock().as_ref().ok_or(Error::Closed)?)
    }

    pub fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        self.hub.close();
        let mut open = self.open.write();
        let result = open.as_ref().map_or(Ok(()), |open| flush(open).map(|_| ()));
        *open = None;
        drop(open);
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
        self.directory.lock().as_ref().map_or(0, Directory::bytes)
    }

    /// Bytes on disk that are in use. sled's file does not shrink by itself, but has the room of what was removed used again.
    pub fn used_bytes(&self) -> u64 {
        self.disk_bytes().min(self.index.read().stored_bytes() * ROOM_FACTOR)
    }

    pub fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn add_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Give back memory, also what others in this process have freed: objects are small and of mixed age, so the
    /// allocator by itself keeps what a burst of requests took. Blocks for some milliseconds if that is much.
    pub fn trim(&self) {
        self.values.lock().age();
        self.rate.lock().sample(Instant::now(), self.written_bytes());
        if self.fetched.swap(0, Ordering::Relaxed) >= TRIM_FETCHES {
            // What cannot be read now is read by the next one who asks, who learns why.
            let sample = self.index.read().sample(TRIM_PAGES);
            let _ = self.with_open(|open| trim_page_cache(open, &sample));
        }
        give_back_memory();
    }

    /// Run with sled open.
    pub fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.open.read() {
            Some(open) => caught(|| work(open)),
            None if self.closed.load(Ordering::SeqCst) => Err(Error::Closed),
            None => Err(Error::Failed {
                step: "reading the store",
                message: "it could not be opened again after an error".into(),
            }),
        }
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

    /// The first half of a read: keys and recently used values. What is left needs sled.
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
        let mut writes = Vec::new();
        let (mut looked_at, mut bytes) = (0, 0);
        self.with_open(|open| {
            let mut past = self.past(open, from, STEP_RECORDS);
            while let Some((place, write)) = past.next()? {
                if place.revision > revision.0 {
                    return Ok(None);
                }
                if looked_at >= STEP_RECORDS || bytes >= STEP_BYTES {
                    return Ok(Some(place));
                }
                looked_at += 1;
                let current = || self.index.read().get(&write.key, compacted.0).map(|version| version.place());
                if place.revision <= compacted.0 && current() != Some(place) {
                    continue;
                }
                let value = match write.source {
                    Source::Memory(ref value) => value.clone(),
                    Source::Disk(ref stored) => value_of(open, place, &decode(stored).ok_or_else(|| damaged(place))?)?,
                };
                bytes += value.len() + write.key.len();
                writes.push(Write { sub: place.sub, kind: write.kind(), kv: write.into_kv(place, value) });
            }
            Ok(past.cut_at())
        })
        .map(|next| (writes, next))
    }

    /// Everything written from a place on, in order. Memory comes first: what is written back meanwhile is then met
    /// twice, not never.
    fn past(&self, open: &Open, from: Place, limit: usize) -> Past {
        let kept = self.volatile.read().from(from, limit);
        let end = if kept.len() >= limit { kept.last().map(|(place, _)| place.revision) } else { None };
        Past::new(from, kept, &open.sled, end)
    }

    /// A value, recently used or from sled.
    pub fn value(&self, place: Place) -> Result<Bytes, Error> {
        if let Some(value) = self.values.lock().get(place) {
            return Ok(value);
        }
        self.fetch(place)
    }

    /// A value from the memory tier or sled.
    fn fetch(&self, place: Place) -> Result<Bytes, Error> {
        if let Some(kept) = self.volatile.read().get(place) {
            return Ok(kept.value.clone().unwrap_or_default());
        }
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let value = self.with_open(|open| fetch(open, place)?.ok_or_else(|| missing(place)))?;
        self.values.lock().offer(place, &value);
        Ok(value)
    }

    /// Events from history, see [`History::events`].
    fn read_history(&self, range: &KeyRange, from: u64, limit: usize) -> Result<(Vec<Arc<Event>>, Revision), Error> {
        let committed = self.committed().0;
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut looked_at = 0;
        let mut next = committed + 1;
        let read = self.with_open(|open| {
            let mut last = from;
            let mut past = self.past(open, Place { revision: from, sub: 0 }, HISTORY_RECORDS);
            while let Some((place, write)) = past.next()? {
                let full = events.len() >= limit || looked_at >= HISTORY_RECORDS;
                if place.revision > committed || (full && place.revision > last) {
                    next = place.revision.min(committed + 1);
                    return Ok(());
                }
                last = place.revision;
                looked_at += 1;
                if range.contains(&write.key) {
                    events.push(Arc::new(self.event(place, write)?));
                }
            }
            if let Some(place) = past.cut_at() {
                next = place.revision.min(committed + 1);
            }
            Ok(())
        });
        // Compaction may have taken away what was to be read.
        if Revision(from) < self.compacted() {
            return Err(Error::Compacted(self.compacted()));
        }
        read?;
        Ok((events, Revision(next)))
    }

    fn event(&self, place: Place, write: PastWrite) -> Result<Event, Error> {
        let value = if write.deleted { Bytes::new() } else { self.value(place)? };
        let previous = self.index.read().before(&write.key, place.revision);
        let previous = previous.and_then(|version| {
            let value = self.value(version.place()).ok()?;
            Some(key_value(&write.key, &version, value))
        });
        Ok(Event { kind: write.kind(), kv: write.into_kv(place, value), previous })
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
        // In the order of the pages.
        self.missing.sort_unstable();
        let mut pages = Pages::default();
        for (place, position) in std::mem::take(&mut self.missing) {
            let value = self.pin.shared.fetch(place)?;
            self.pin.shared.with_open(|open| pages.visited(&open.sled, place))?;
            if let Some(kv) = self.response.kvs.get_mut(position) {
                kv.value = value;
            }
        }
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
