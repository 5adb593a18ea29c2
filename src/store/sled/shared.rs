//! What readers and the writer share: opening and repair, reads, the history behind watches.

use super::Options;
use super::files::{Database, Directory, failed};
use super::index::{Index, Key, Version};
use super::record::{Place, Record, Value, decode, decode_lease, unpack};
use super::snapshot::{STEP_BYTES, STEP_RECORDS};
use super::values::Values;
use crate::store::hub::{History, Hub};
use crate::store::lease::Book;
use crate::store::quota::Quota;
use crate::store::txn::check_revision;
use crate::store::{Error, Event, EventKind, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision, Write};
use crate::task;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Layout of the entries. Older ones are read as they are and then called this; others are refused.
const FORMAT: &[u8] = b"2";

/// Without leases.
const FORMAT_1: &[u8] = b"1";

/// How long to wait for sled's threads to let go of its files before they are opened again.
const REOPEN_TRIES: u32 = 40;
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// Records read from sled after which a trim has sled let go of pages.
const TRIM_FETCHES: usize = 1000;

/// sled looks at the limit of its page cache only when 64 accesses to one of its 256 shards have come together (pages
/// are dealt to shards in turn), so pages read once stay for ever. These many accesses on these many neighbouring
/// pages, with a record of each, make every shard look.
const PRESS_ACCESSES: usize = 66;
const PRESS_PAGES: usize = 512;
const PRESS_RECORDS_PER_PAGE: usize = 8;

/// Records that one step of reading history looks at, at least (it ends between revisions).
const HISTORY_RECORDS: usize = 1024;

/// sled and the file under it.
pub struct Open {
    pub sled: ::sled::Db,
    pub file: Database,
}

pub struct Shared {
    options: Options,
    /// `None` once closed.
    directory: Mutex<Option<Directory>>,
    /// `None` once closed, and while sled could not be opened again after an error.
    pub open: RwLock<Option<Open>>,
    pub index: RwLock<Index>,
    pub values: Mutex<Values>,
    committed: AtomicU64,
    compacted: AtomicU64,
    written: AtomicU64,
    closed: AtomicBool,
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
        let open = open_sled(&directory, &options)?;
        let compacted = read_metadata(&open, path)?;
        let (index, last) = read_index(&open, path)?;
        let committed = last.max(compacted);
        remove_after(&open, committed)?;
        let leases = read_leases(&open)?;
        flush(&open)?;
        let quota_bytes = options.quota_bytes;
        if index.len() >= TRIM_FETCHES {
            press_page_cache(&open)?;
            give_back_memory();
        }
        Ok(Shared {
            values: Mutex::new(Values::new(options.value_cache_bytes)),
            options,
            directory: Mutex::new(Some(directory)),
            open: RwLock::new(Some(open)),
            index: RwLock::new(index),
            committed: AtomicU64::new(committed),
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
        let mut tries = 0;
        let again = loop {
            match open_sled(directory, &self.options) {
                Ok(again) => break again,
                // sled's threads may hold its files a little longer.
                Err(_) if tries < REOPEN_TRIES => {
                    tries += 1;
                    std::thread::sleep(REOPEN_PAUSE);
                }
                Err(error) => return Err(error),
            }
        };
        let committed = self.committed().0;
        let last = last_record(&again)?.map_or(1, |place| place.revision);
        if last < committed.min(self.newest_in_index()) {
            return Err(Error::Failed {
                step: "repairing the store",
                message: format!("revision {committed} was written, but only {last} is there"),
            });
        }
        remove_after(&again, committed)?;
        flush(&again)?;
        *open = Some(again);
        Ok(())
    }

    fn newest_in_index(&self) -> u64 {
        self.index.read().newest()
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

    pub fn set_committed(&self, revision: u64) {
        self.committed.store(revision, Ordering::SeqCst);
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
        if self.fetched.swap(0, Ordering::Relaxed) >= TRIM_FETCHES {
            // What cannot be read now is read by the next one who asks, who learns why.
            let _ = self.with_open(press_page_cache);
        }
        give_back_memory();
    }

    /// Run with sled open.
    pub fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.open.read() {
            Some(open) => work(open),
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
            for entry in open.sled.range(from.key()..) {
                let (key, stored) = entry.map_err(|e| sled_error("reading a snapshot", e))?;
                let Some(place) = record_place(&key).filter(|place| place.revision <= revision.0) else { break };
                if looked_at >= STEP_RECORDS || bytes >= STEP_BYTES {
                    return Ok(Some(place));
                }
                looked_at += 1;
                let record = decode(&stored).ok_or_else(|| damaged(place))?;
                let current = || self.index.read().get(record.key, compacted.0).map(|version| version.place());
                if place.revision <= compacted.0 && current() != Some(place) {
                    continue;
                }
                let value = value_of(open, place, &record)?;
                bytes += value.len() + record.key.len();
                writes.push(Write { sub: place.sub, kind: kind(&record), kv: record_kv(place, &record, value) });
            }
            Ok(None)
        })
        .map(|next| (writes, next))
    }

    /// A value, recently used or from sled.
    pub fn value(&self, place: Place) -> Result<Bytes, Error> {
        if let Some(value) = self.values.lock().get(place) {
            return Ok(value);
        }
        self.fetch(place)
    }

    /// A value from sled.
    fn fetch(&self, place: Place) -> Result<Bytes, Error> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let value = self.with_open(|open| fetch(open, place)?.ok_or_else(|| missing(place)))?;
        self.values.lock().insert(place, value.clone());
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
            for entry in open.sled.range(Place { revision: from, sub: 0 }.key()..) {
                let (key, bytes) = entry.map_err(|e| sled_error("reading history", e))?;
                let Some(place) = record_place(&key) else { break };
                let full = events.len() >= limit || looked_at >= HISTORY_RECORDS;
                if place.revision > committed || (full && place.revision > last) {
                    next = place.revision.min(committed + 1);
                    break;
                }
                last = place.revision;
                looked_at += 1;
                let record = decode(&bytes).ok_or_else(|| damaged(place))?;
                if range.contains(record.key) {
                    let value = if record.deleted { Bytes::new() } else { self.value(place)? };
                    events.push(Arc::new(self.event(place, &record, value)));
                }
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

    fn event(&self, place: Place, record: &Record<'_>, value: Bytes) -> Event {
        let previous = self.index.read().before(record.key, place.revision);
        let previous = previous.and_then(|version| {
            let value = self.value(version.place()).ok()?;
            Some(key_value(record.key, &version, value))
        });
        Event { kind: kind(record), kv: record_kv(place, record, value), previous }
    }
}

fn kind(record: &Record<'_>) -> EventKind {
    if record.deleted { EventKind::Delete } else { EventKind::Put }
}

fn record_kv(place: Place, record: &Record<'_>, value: Bytes) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(record.key),
        value,
        create_revision: Revision(record.create),
        mod_revision: Revision(place.revision),
        version: record.version,
        lease: record.lease,
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
        for (place, position) in std::mem::take(&mut self.missing) {
            let value = self.pin.shared.fetch(place)?;
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

/// The value of a record in sled; `None` if the record is not there.
fn fetch(open: &Open, place: Place) -> Result<Option<Bytes>, Error> {
    let bytes = open.sled.get(place.key()).map_err(|e| sled_error("reading a value", e))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let record = decode(&bytes).ok_or_else(|| damaged(place))?;
    value_of(open, place, &record).map(Some)
}

fn value_of(open: &Open, place: Place, record: &Record<'_>) -> Result<Bytes, Error> {
    let value = match record.value {
        Value::Inline { raw, bytes } => unpack(bytes, raw),
        Value::Pieces { raw, count } => {
            let mut stored = Vec::new();
            for piece in 0..count {
                let bytes = open.sled.get(place.piece_key(piece)).map_err(|e| sled_error("reading a value", e))?;
                stored.extend_from_slice(&bytes.ok_or_else(|| missing(place))?);
            }
            unpack(&stored, raw)
        }
    };
    value.map_err(|_| damaged(place))
}

/// Have sled keep its page cache within its limit: see [`PRESS_ACCESSES`].
fn press_page_cache(open: &Open) -> Result<(), Error> {
    let io = |e| sled_error("trimming the page cache", e);
    let keys = open.sled.scan_prefix(b"r").keys().step_by(PRESS_RECORDS_PER_PAGE).take(PRESS_PAGES);
    for key in keys.collect::<Result<Vec<_>, _>>().map_err(io)? {
        for _ in 0..PRESS_ACCESSES {
            open.sled.get(&key).map_err(io)?;
        }
    }
    Ok(())
}

/// Have the allocator give free memory back to the system; some do so by themselves.
fn give_back_memory() {
    // SAFETY: takes no pointers; the function may be called at any time from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Pieces of a record's value.
pub fn pieces(open: &Open, place: Place) -> Result<u16, Error> {
    let bytes = open.sled.get(place.key()).map_err(|e| sled_error("reading a record", e))?;
    match bytes.as_deref().and_then(decode).map(|record| record.value) {
        Some(Value::Pieces { count, .. }) => Ok(count),
        _ => Ok(0),
    }
}

/// Have sled write everything out and wait for the disk. Returns how many bytes it wrote.
pub fn flush(open: &Open) -> Result<usize, Error> {
    open.sled.flush().map_err(|e| sled_error("writing to disk", e))
}

fn open_sled(directory: &Directory, options: &Options) -> Result<Open, Error> {
    directory.prepare()?;
    let path = directory.sled();
    let config = ::sled::Config::default()
        .path(&path)
        .cache_capacity(options.page_cache_bytes)
        .flush_every_ms(None)
        .mode(::sled::Mode::LowSpace);
    // A damaged file can make sled panic.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
    let sled = match opened {
        Ok(Ok(sled)) => sled,
        Ok(Err(::sled::Error::Io(error))) => return Err(failed("opening the store", &path, &error)),
        Ok(Err(error)) => {
            return Err(Error::Failed { step: "opening the store", message: format!("{}: {error}", path.display()) });
        }
        Err(_) => {
            return Err(Error::Failed {
                step: "opening the store",
                message: format!("{}: its files are damaged", path.display()),
            });
        }
    };
    let file = directory.settle()?;
    let open = Open { sled, file };
    prove_barrier(&open)?;
    Ok(open)
}

/// Refuse to work where the disk barrier is missing (a matter of how the executable was linked).
fn prove_barrier(open: &Open) -> Result<(), Error> {
    let proven = super::barrier::proven(|| {
        let count = |old: Option<&[u8]>| {
            let old = old.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
            Some(old.wrapping_add(1).to_be_bytes().to_vec())
        };
        let counted = open.sled.update_and_fetch(OPENED_KEY, count);
        counted.map_err(|e| sled_error("writing to disk", e))?;
        flush(open).map(|_| ())
    })?;
    match proven {
        true => Ok(()),
        false => Err(Error::Failed { step: "opening the store", message: "writes do not reach the disk".into() }),
    }
}

/// After the key of every piece.
const LAST_PIECE: [u8; 15] = [b'q'; 15];
const FORMAT_KEY: &[u8] = b"mformat";
const OPENED_KEY: &[u8] = b"mopened";
pub const COMPACTED_KEY: &[u8] = b"mcompacted";

/// Check the format (or set it in a new store) and give the compacted revision.
fn read_metadata(open: &Open, path: &Path) -> Result<u64, Error> {
    let io = |e| sled_error("reading the store's metadata", e);
    match open.sled.get(FORMAT_KEY).map_err(io)? {
        Some(format) if &*format == FORMAT => {}
        Some(format) if &*format == FORMAT_1 => {
            open.sled.insert(FORMAT_KEY, FORMAT).map_err(io)?;
        }
        // Nothing but what opening has just written.
        None if open.sled.len() == 1 => {
            open.sled.insert(FORMAT_KEY, FORMAT).map_err(io)?;
        }
        _ => {
            return Err(Error::Failed {
                step: "opening the store",
                message: format!("{}: not a store of this version", path.display()),
            });
        }
    }
    let compacted = open.sled.get(COMPACTED_KEY).map_err(io)?;
    Ok(compacted.and_then(|bytes| Some(u64::from_be_bytes((*bytes).try_into().ok()?))).unwrap_or(1))
}

fn read_leases(open: &Open) -> Result<Book, Error> {
    let (book, now) = (Book::default(), Instant::now());
    for entry in open.sled.scan_prefix(b"l") {
        let (key, value) = entry.map_err(|e| sled_error("reading leases", e))?;
        match decode_lease(&key, &value) {
            Some((id, granted, remaining)) => book.enter(id, granted, remaining, now),
            None => {
                let message = format!("entry {} is damaged", key.escape_ascii());
                return Err(Error::Failed { step: "reading leases", message });
            }
        }
    }
    Ok(book)
}

/// Read the index and the last complete revision (1 if there is none).
fn read_index(open: &Open, path: &Path) -> Result<(Index, u64), Error> {
    let mut index = Index::default();
    let mut last = 1;
    // The writes of one revision; entered when the next begins, as the newest may be incomplete.
    let mut group: Vec<(Key, Version)> = Vec::new();
    let mut complete = false;
    let mut enter = |group: &mut Vec<(Key, Version)>| {
        for (key, version) in group.drain(..) {
            last = version.revision;
            index.push(&key, version);
        }
    };
    for entry in open.sled.scan_prefix(b"r") {
        let (key, bytes) = entry.map_err(|e| sled_error("reading the index", e))?;
        let place = record_place(&key);
        let (Some(place), Some(record)) = (place, decode(&bytes)) else {
            let message = format!("{}: entry {} is damaged", path.display(), key.escape_ascii());
            return Err(Error::Failed { step: "reading the index", message });
        };
        if group.first().is_some_and(|(_, first)| first.revision != place.revision) {
            enter(&mut group);
        }
        complete = record.last;
        group.push((Key::from(record.key), version(place, &record, bytes.len())));
    }
    if complete {
        enter(&mut group);
    }
    Ok((index, last))
}

fn version(place: Place, record: &Record<'_>, len: usize) -> Version {
    let pieces = match record.value {
        Value::Inline { .. } => 0,
        Value::Pieces { count, .. } => u32::from(count) * super::record::ITEM_BYTES as u32,
    };
    Version {
        revision: place.revision,
        sub: place.sub,
        stored: len as u32 + pieces,
        create: record.create,
        version: if record.deleted { 0 } else { record.version },
        lease: record.lease,
    }
}

/// Remove what a writer that never got to its barrier has left behind.
fn remove_after(open: &Open, revision: u64) -> Result<(), Error> {
    let io = |e| sled_error("removing unfinished writes", e);
    let from = Place { revision: revision + 1, sub: 0 };
    // Records first: an incomplete transaction must not look complete, nor lack pieces.
    for range in [open.sled.range(from.key()..), open.sled.range(from.piece_key(0)..LAST_PIECE)] {
        for key in range.keys() {
            open.sled.remove(key.map_err(io)?).map_err(io)?;
        }
    }
    Ok(())
}

fn last_record(open: &Open) -> Result<Option<Place>, Error> {
    match open.sled.scan_prefix(b"r").next_back() {
        Some(entry) => Ok(record_place(&entry.map_err(|e| sled_error("reading the last record", e))?.0)),
        None => Ok(None),
    }
}

fn record_place(key: &[u8]) -> Option<Place> {
    if key.first() == Some(&b'r') { Place::parse(key) } else { None }
}

fn damaged(place: Place) -> Error {
    Error::Failed { step: "reading a value", message: format!("record {}/{} is damaged", place.revision, place.sub) }
}

fn missing(place: Place) -> Error {
    Error::Failed { step: "reading a value", message: format!("record {}/{} is missing", place.revision, place.sub) }
}

pub fn sled_error(step: &'static str, error: ::sled::Error) -> Error {
    match error {
        ::sled::Error::Io(error) => failed(step, Path::new("store"), &error),
        other => Error::Failed { step, message: other.to_string() },
    }
}
