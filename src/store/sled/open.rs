//! sled and the file under it: opening, reading, the barrier, and what its errors mean.

use super::Options;
use super::census::Census;
use super::files::{Database, Files, failed};
use super::record::{Place, Record, Value, decode, unpack};
use crate::store::Error;
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

/// How long to wait for sled's threads to let go of its files before they are opened again.
const REOPEN_TRIES: u32 = 40;
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// sled looks at the limit of its page cache only when 64 accesses to one of its 256 shards have come together (pages
/// are dealt to shards in turn), so pages read once stay for ever. These many accesses on these many neighbouring
/// pages, with a record of each, make every shard look.
const PRESS_ACCESSES: usize = 66;
const PRESS_PAGES: usize = 512;
const PRESS_RECORDS_PER_PAGE: usize = 8;

/// An open sled.
pub struct Open {
    pub sled: ::sled::Db,
    pub file: Database,
    pub census: Census,
}

/// The value of a record in sled; `None` if the record is not there.
pub fn fetch(open: &Open, place: Place) -> Result<Option<Bytes>, Error> {
    let bytes = open.sled.get(place.key()).map_err(|e| sled_error("reading a value", e))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let record = decode(&bytes).ok_or_else(|| damaged(place))?;
    value_of(open, place, &record).map(Some)
}

pub fn value_of(open: &Open, place: Place, record: &Record<'_>) -> Result<Bytes, Error> {
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
pub fn press_page_cache(open: &Open) -> Result<(), Error> {
    let io = |e| sled_error("trimming the page cache", e);
    let keys = open.sled.scan_prefix(b"r").keys().step_by(PRESS_RECORDS_PER_PAGE).take(PRESS_PAGES);
    for key in keys.collect::<Result<Vec<_>, _>>().map_err(io)? {
        for _ in 0..PRESS_ACCESSES {
            open.sled.get(&key).map_err(io)?;
        }
    }
    Ok(())
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

/// Run what calls sled: damaged files can make it panic.
pub fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Damaged("the database library cannot read its files".into())))
}

/// Open sled; while another instance in this process lets go of its files, again.
pub fn open_sled(files: &Files, options: &Options) -> Result<Open, Error> {
    let mut tries = 0;
    loop {
        match try_open_sled(files, options) {
            Err(Error::Failed { step: LOCKED, .. }) if tries < REOPEN_TRIES => {
                tries += 1;
                std::thread::sleep(REOPEN_PAUSE);
            }
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

pub fn record_place(key: &[u8]) -> Option<Place> {
    if key.first() == Some(&b'r') { Place::parse(key) } else { None }
}

pub fn damaged(place: Place) -> Error {
    Error::Damaged(format!("{place} cannot be read"))
}

pub fn missing(place: Place) -> Error {
    Error::Damaged(format!("{place} is missing"))
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
