//! sled and the file under it: opening, reading, the barrier, and what its errors mean.

use super::census::Census;
use super::entries::{Stored, decode, key, piece_key, record_place};
use super::files::{Database, Files};
use crate::store::Error;
use crate::store::local::Options;
use crate::store::local::directory::failed;
use crate::store::local::engine::{damaged, missing};
use crate::store::local::record::{Place, unpack};
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

/// How long to wait for sled's threads to let go of its files before they are opened again.
const REOPEN_TRIES: u32 = 40;
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// sled looks at the limit of its page cache only when 64 accesses to one of its 256 shards have come together (pages
/// are dealt to shards in turn). Whoever reads many pages once would have them all stay; so each is accessed this much
/// more often, and no more than four new ones come together in a shard.
const PRESS_ACCESSES: usize = 15;

/// Records that are in one page, at least while nothing has been removed.
const PAGE_RECORDS: u64 = 16;

/// Accesses that have sled look at a shard whatever was there before.
const TRIM_ACCESSES: usize = 66;

/// Pages, taken from everywhere, that are in nearly all shards (all but one in 55).
pub const TRIM_PAGES: usize = 1024;

/// An open sled.
pub struct Open {
    pub sled: ::sled::Db,
    pub file: Database,
    pub census: Census,
}

/// The value of a record in sled; `None` if the record is not there.
pub fn fetch(open: &Open, place: Place) -> Result<Option<Bytes>, Error> {
    let bytes = open.sled.get(key(place)).map_err(|e| sled_error("reading a value", e))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let Stored { record, pieces, .. } = decode(&bytes).ok_or_else(|| damaged(place))?;
    let value = match record.value() {
        Some(value) => value,
        None => unpack(&stored_pieces(open, place, pieces)?, record.raw),
    };
    value.map(Some).map_err(|_| damaged(place))
}

fn stored_pieces(open: &Open, place: Place, count: u16) -> Result<Vec<u8>, Error> {
    let (mut stored, mut pages) = (Vec::new(), Pages::default());
    for piece in 0..count {
        let key = piece_key(place, piece);
        let bytes = open.sled.get(key).map_err(|e| sled_error("reading a value", e))?;
        stored.extend_from_slice(&bytes.ok_or_else(|| missing(place))?);
        pages.visited_key(&open.sled, 0, &key)?;
    }
    Ok(stored)
}

/// The pages that one reader of many records comes by, in order: sled's page cache is to stay within its limit
/// meanwhile, see [`PRESS_ACCESSES`].
#[derive(Default)]
pub struct Pages {
    current: Option<u64>,
    records: u64,
}

impl Pages {
    /// To be told after a record was read.
    pub fn visited(&mut self, open: &::sled::Tree, place: Place) -> Result<(), Error> {
        self.visited_key(open, place.revision / PAGE_RECORDS, &key(place))
    }

    /// The same, of another kind of keys. `part` differs at least where keys are far from each other.
    pub fn visited_key(&mut self, open: &::sled::Tree, part: u64, key: &[u8]) -> Result<(), Error> {
        let same = self.current.replace(part) == Some(part);
        self.records = if same { self.records + 1 } else { 0 };
        match self.records.is_multiple_of(PAGE_RECORDS) {
            true => press(open, key, PRESS_ACCESSES),
            false => Ok(()),
        }
    }
}

fn press(sled: &::sled::Tree, key: &[u8], accesses: usize) -> Result<(), Error> {
    let access = |_| sled.get(key).map(drop).map_err(|e| sled_error("reading a page", e));
    (0..accesses).try_for_each(access)
}

/// Have sled let go of pages; these are of records everywhere in the store, [`TRIM_PAGES`] or so.
pub fn trim_page_cache(open: &Open, places: &[Place]) -> Result<(), Error> {
    places.iter().try_for_each(|place| press(&open.sled, &key(*place), TRIM_ACCESSES))
}

/// Pieces of a record's value.
pub fn pieces(open: &Open, place: Place) -> Result<u16, Error> {
    let bytes = open.sled.get(key(place)).map_err(|e| sled_error("reading a record", e))?;
    Ok(bytes.as_deref().and_then(decode).map_or(0, |stored| stored.pieces))
}

/// Have sled write everything out and wait for the disk. Returns how many bytes it wrote.
pub fn flush(open: &Open) -> Result<usize, Error> {
    open.sled.flush().map_err(|e| sled_error("writing to disk", e))
}

/// Run what calls sled: damaged files can make it panic.
pub fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Damaged("the database library cannot read its files".into())))
}

/// Open sled, on a full disk with the room that was kept for this; while another instance in this process lets go of its files, again.
pub fn open_sled(files: &Files, options: &Options) -> Result<Open, Error> {
    let mut tries = 0;
    loop {
        match try_open_sled(files, options) {
            Err(Error::Failed { step: LOCKED, .. }) if tries < REOPEN_TRIES => {
                tries += 1;
                std::thread::sleep(REOPEN_PAUSE);
            }
            Err(Error::NoSpace(_)) if files.give_room() => {}
            other => return other,
        }
    }
}

fn try_open_sled(files: &Files, options: &Options) -> Result<Open, Error> {
    files.prepare()?;
    let path = files.path();
    let config = ::sled::Config::default()
        .path(path)
        .cache_capacity(options.page_cache_bytes)
        .flush_every_ms(None)
        .mode(::sled::Mode::LowSpace);
    let sled = caught(|| config.open().map_err(|error| open_error(path, error)))?;
    let file = files.settle()?;
    let open = Open { sled, file, census: Census::default() };
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

const OPENED_KEY: &[u8] = b"mopened";

pub fn last_record(open: &Open) -> Result<Option<Place>, Error> {
    match open.sled.scan_prefix(b"r").next_back() {
        Some(entry) => Ok(record_place(&entry.map_err(|e| sled_error("reading the last record", e))?.0)),
        None => Ok(None),
    }
}

fn open_error(path: &Path, error: ::sled::Error) -> Error {
    match sled_error("opening the store", error) {
        Error::Damaged(what) => Error::Damaged(format!("{}: {what}", path.display())),
        Error::Failed { step, message } => Error::Failed { step, message: format!("{}: {message}", path.display()) },
        other => other,
    }
}

/// Step of the error that says that sled's files are still in use.
const LOCKED: &str = "locking the store's files";

/// What went wrong inside sled. It reports most damage as I/O errors that no system call gave.
pub fn sled_error(step: &'static str, error: ::sled::Error) -> Error {
    match error {
        // Not even this one comes with the system's number.
        ::sled::Error::Io(error) if error.to_string().contains("acquire lock") => {
            Error::Failed { step: LOCKED, message: error.to_string() }
        }
        ::sled::Error::Io(error) => match error.raw_os_error() {
            None | Some(libc::EIO) => Error::Damaged(error.to_string()),
            Some(_) => failed(step, Path::new("store"), &error),
        },
        ::sled::Error::Corruption { .. } => Error::Damaged("a checksum is wrong".into()),
        other => Error::Damaged(other.to_string()),
    }
}
