//! The engine on sled 0.34. It keeps every promise about what survives, but writes about twice what etcd does for single
//! puts, writes MiBs when it is opened, and keeps pages of what was read in memory (docs/figures.md): so it is no longer
//! the default.
//!
//! - `entries.rs`: what is in sled. `census.rs`: what has to be there.
//! - `files.rs`: room, traces of crashes. `open.rs`: sled itself. `read.rs`: reading it through.
//! - `barrier.rs`: what is needed from sled is that after a crash it holds a prefix of what was inserted, at least up to
//!   the last flush. For power loss that takes this.

mod barrier;
mod census;
mod entries;
mod files;
mod open;
mod read;

use super::Error;
use super::local::Options;
use super::local::engine::{Above, Changes, Engine, Opened, Purpose, Visit, damaged, missing};
use super::local::index::Superseded;
use super::local::record::Place;
use bytes::Bytes;
use census::Batch;
#[cfg(fuzzing)]
pub use entries::is_readable as entry_is_readable;
use entries::{decode, key, record_place};
use files::Files;
use open::{
    Open, Pages, TRIM_PAGES, caught, fetch, flush, last_record, open_sled, pieces, sled_error, trim_page_cache,
};
use parking_lot::{Mutex, RwLock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tracing::{error, info, warn};

/// Bytes that sled's log grows by, at most, per byte inserted (measured: 8 to 11).
const LOG_GROWTH: usize = 12;

/// Room that is claimed beyond what a batch is expected to write: sled begins segments early and moves pages.
const SPARE_BYTES: usize = 4 << 20;

/// What a removal, a lease or a note is taken to insert.
const SMALL_BYTES: usize = 128;

/// Records read from sled after which a trim has sled let go of pages.
const TRIM_FETCHES: usize = 1000;

/// What the file takes at most for each byte that is kept in it; above that it has room to be used again.
const ROOM_FACTOR: u64 = 3;

/// What the file may take beyond that: room is claimed ahead of writes.
const ROOM_BYTES: u64 = 24 << 20;

pub(super) struct Sled {
    files: Files,
    options: Options,
    /// `None` once closed, and while it could not be opened again after an error.
    open: RwLock<Option<Open>>,
    closed: std::sync::atomic::AtomicBool,
    /// Why it has to be opened again before the next write.
    broken: Mutex<Option<Error>>,
    /// Revision of the last record behind a barrier.
    durable: AtomicU64,
    /// Records read since the last trim.
    fetched: AtomicUsize,
    written: AtomicU64,
}

/// Open the files in a directory, or make new ones.
pub(super) fn open(path: &Path, options: &Options) -> Result<Opened, Error> {
    let files = Files::new(path);
    let (open, content) = caught(|| {
        let open = open_sled(&files, options)?;
        let content = read::read(&open, path)?;
        flush(&open)?;
        Ok((open, content))
    })?;
    files.keep_room();
    let read::Content { index, last, leases, notes } = content;
    if index.len() >= TRIM_FETCHES {
        trim_page_cache(&open, &index.sample(TRIM_PAGES))?;
    }
    let engine = Sled {
        files,
        options: options.clone(),
        open: RwLock::new(Some(open)),
        closed: false.into(),
        broken: Mutex::default(),
        durable: AtomicU64::new(last),
        fetched: AtomicUsize::new(0),
        written: AtomicU64::new(0),
    };
    Ok(Opened { engine: Arc::new(engine), index, last, leases, notes, damage: None })
}

impl Engine for Sled {
    fn commit(&self, changes: Changes) -> Result<(), Error> {
        let (purpose, small) = (changes.purpose(), changes.leases.len() * SMALL_BYTES);
        let last = changes.records.last().map(|(place, _)| place.revision);
        let mut batch = Batch::default();
        changes.records.iter().for_each(|(place, encoded)| batch.add(*place, encoded));
        changes.leases.iter().for_each(|(id, change)| batch.change_lease(*id, *change));
        read::write_notes(&mut batch, &changes.notes);
        self.with_open(|open| {
            open.file.reserve(((changes.bytes() + small) * LOG_GROWTH + SPARE_BYTES) as u64, purpose)?;
            self.guarded(|| {
                open.apply(batch)?;
                self.barrier(open)
            })
        })?;
        self.durable.fetch_max(last.unwrap_or(0), Ordering::SeqCst);
        Ok(())
    }

    fn forget(&self, gone: &[Superseded], more: bool) -> Result<(), Error> {
        self.with_open(|open| {
            open.file.reserve((gone.len() * SMALL_BYTES * LOG_GROWTH + SPARE_BYTES) as u64, Purpose::Empty)?;
            self.guarded(|| {
                let mut batch = Batch::default();
                for entry in gone {
                    // Only long values can be in pieces.
                    let long = entry.stored as usize > entries::ITEM_BYTES / 2;
                    batch.remove(entry.place, if long { pieces(open, entry.place)? } else { 0 });
                }
                open.apply(batch)?;
                if more { Ok(()) } else { self.barrier(open) }
            })
        })
    }

    fn value(&self, place: Place) -> Result<Option<Bytes>, Error> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.with_open(|open| fetch(open, place))
    }

    /// In the order of the pages.
    fn values(&self, places: &[Place], give: &mut dyn FnMut(usize, Bytes)) -> Result<(), Error> {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_unstable_by_key(|at| places[*at]);
        let mut pages = Pages::default();
        for position in order {
            let place = places[position];
            give(position, self.value(place)?.ok_or_else(|| missing(place))?);
            self.with_open(|open| pages.visited(&open.sled, place))?;
        }
        Ok(())
    }

    fn scan(&self, from: Place, visit: &mut Visit<'_>) -> Result<(), Error> {
        self.with_open(|open| {
            let mut pages = Pages::default();
            for entry in open.sled.range(key(from)..) {
                let (key, stored) = entry.map_err(|e| sled_error("reading history", e))?;
                let Some(place) = record_place(&key) else { return Ok(()) };
                pages.visited(&open.sled, place)?;
                if !visit(place, &decode(&stored).ok_or_else(|| damaged(place))?.record)? {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    fn mend(&self, above: &Above<'_>) -> Result<(), Error> {
        let Some(cause) = self.broken.lock().clone() else { return Ok(()) };
        if let Err(error) = self.open_again(above) {
            warn!(%error, %cause, "the store cannot be opened again yet");
            return Err(error);
        }
        info!(%cause, "the store works again");
        *self.broken.lock() = None;
        Ok(())
    }

    /// Put new files in the place of sled's, if those are much longer than what is in them needs. Reads go on but for
    /// the last moment. Needs room on disk for what is kept.
    fn defragment(&self, above: &Above<'_>) -> Result<(), Error> {
        if self.bytes() <= above.stored * ROOM_FACTOR + ROOM_BYTES {
            return Ok(());
        }
        let made = Files::new(&above.directory.restoring()?);
        if let Err(error) = self.with_open(|open| rewrite(open, &made, &self.options)) {
            above.directory.restoring()?;
            return Err(error);
        }
        let mut open = self.open.write();
        *open = None;
        let kind = super::local::engine::Kind::Sled;
        let swapped = above.directory.swap(made.path(), kind, kind);
        // Whichever files are there now.
        match read::resume(&self.files, &self.options, above.committed, &(above.in_memory)()) {
            Ok(again) => *open = Some(again),
            Err(error) => {
                *self.broken.lock() = Some(error.clone());
                return Err(error);
            }
        }
        self.files.keep_room();
        swapped
    }

    fn trim(&self, sample: &dyn Fn(usize) -> Vec<Place>) {
        if self.fetched.swap(0, Ordering::Relaxed) >= TRIM_FETCHES {
            let sample = sample(TRIM_PAGES);
            // What cannot be read now is read by the next one who asks, who learns why.
            let _ = self.with_open(|open| trim_page_cache(open, &sample));
        }
    }

    fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// sled's file does not shrink by itself, but has the room of what was removed used again.
    fn used_bytes(&self, stored: u64) -> u64 {
        self.bytes().min(stored * ROOM_FACTOR)
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        let mut open = self.open.write();
        let result = open.as_ref().map_or(Ok(()), |open| flush(open).map(drop));
        *open = None;
        result
    }
}

impl Sled {
    /// Run with sled open.
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.open.read() {
            Some(open) => caught(|| work(open)),
            None if self.closed.load(Ordering::SeqCst) => Err(Error::Closed),
            None => Err(Error::Failed {
                step: "reading the store",
                message: "it could not be opened again after an error".into(),
            }),
        }
    }

    fn barrier(&self, open: &Open) -> Result<(), Error> {
        let bytes = flush(open)?;
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Run what writes; after an error or a panic in there, sled is opened again before the next write.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(Error::Failed { step: "writing to the store", message: "the database library panicked".into() })
        });
        if let Err(error) = &result {
            error!(%error, "the store cannot write");
            *self.broken.lock() = Some(error.clone());
        }
        result
    }

    /// Back at the last committed revision. While that has no prospect, what is open stays for reading.
    fn open_again(&self, above: &Above<'_>) -> Result<(), Error> {
        self.files.probe()?;
        let mut open = self.open.write();
        *open = None;
        let again = read::resume(&self.files, &self.options, above.committed, &(above.in_memory)())?;
        let last = last_record(&again)?.map_or(1, |place| place.revision).max(again.census.get().compacted);
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
}

/// Bytes of entries between two barriers while files are made anew, and the room that is claimed for them: the longest
/// value may come on top, and sled writes more than it is given.
const REWRITE_BYTES: usize = 1 << 20;
const REWRITE_ROOM_BYTES: u64 = 32 << 20;

/// Make the same store in new files.
fn rewrite(from: &Open, files: &Files, options: &Options) -> Result<(), Error> {
    let io = |e| sled_error("copying the store", e);
    let to = open_sled(files, options)?;
    let (mut bytes, mut pages) = (0, Pages::default());
    for entry in from.sled.iter() {
        let (key, value) = entry.map_err(io)?;
        if [read::FORMAT_KEY, census::CENSUS_KEY].contains(&&*key) {
            continue;
        }
        if bytes == 0 {
            to.file.reserve(REWRITE_ROOM_BYTES, Purpose::Fill)?;
        }
        bytes += key.len() + value.len();
        to.sled.insert(&key, value).map_err(io)?;
        if let Some(place) = entries::place(&key) {
            pages.visited_key(&from.sled, place.revision, &key)?;
        }
        if bytes >= REWRITE_BYTES {
            flush(&to)?;
            bytes = 0;
        }
    }
    flush(&to)?;
    let counted = from.census.get();
    if census::count(&to)? != counted.sum {
        return Err(Error::Damaged("writes in the middle are missing".to_owned()));
    }
    read::set_up(&to, counted)?;
    flush(&to)?;
    to.file.release()
}

#[cfg(test)]
mod tests;
