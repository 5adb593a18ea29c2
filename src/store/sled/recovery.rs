//! Opening, and what to do when files are damaged.
//!
//! What sled gives is read through once, and must reach as far as the [`Mark`] says that writes were acknowledged.
//! Otherwise the store goes on with what is newer: the part that sled still has (always a prefix of what was written),
//! or the newest rolling snapshot that is whole. Either way the loss is put on record, the damaged files are kept, and
//! revisions jump ahead, so that no client takes an old one for a new one.

use super::Options;
use super::census::{self, Census, Changes, Counted};
use super::files::{Directory, Files, Purpose, failed};
use super::index::{Index, Key, Version};
use super::mark::{Mark, Noted};
use super::open::{Open, Pages, caught, flush, open_sled, pieces, record_place, sled_error};
use super::record::{Encoder, ITEM_BYTES, Place, Record, Value, Write, decode, decode_lease, encode_lease};
use crate::store::condition::Loss;
use crate::store::lease::Book;
use crate::store::snapshots;
use crate::store::snapshots::format::{Item, Reader};
use crate::store::{Error, EventKind, Revision};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::{error, info, warn};

/// How far revisions jump when writes were lost: more than can have been given out since the last note that reached the
/// disk.
pub const REVISION_JUMP: u64 = 1_000_000;

/// Bytes of records between two barriers while a snapshot is read in.
const FILL_BYTES: usize = 1 << 20;

/// Room that is claimed for them: the longest value may come on top, and sled writes more than it is given.
const FILL_ROOM_BYTES: u64 = 32 << 20;

/// A store's content, read through.
pub struct Loaded {
    pub open: Open,
    pub index: Index,
    /// The last revision that is on disk.
    pub reached: u64,
    pub committed: u64,
    pub compacted: u64,
    /// What the memory tier held below this revision may be lost.
    pub floor: u64,
    pub leases: Book,
}

/// Open the store in a directory, and repair it if it is damaged.
pub fn open(directory: &Directory, options: &Options) -> Result<(Loaded, Mark), Error> {
    let path = directory.mark();
    let (mark, noted) = Mark::open(&path).map_err(|e| failed("opening the note of the last write", &path, &e))?;
    let loaded = match load_in_room(directory, options) {
        Ok(loaded) if loaded.reached >= noted.durable => loaded,
        Ok(loaded) => lost_the_end(directory, options, &loaded, noted)?,
        // Nothing says that there ever was a store of ours.
        Err(Error::Damaged(cause)) if noted == Noted::default() && snapshots(directory).is_empty() => {
            return Err(Error::Damaged(cause));
        }
        Err(Error::Damaged(cause)) => from_snapshot(directory, options, noted, &cause)?,
        Err(other) => return Err(other),
    };
    directory.keep_room();
    Ok((loaded, mark))
}

/// On a full disk, with the room that was kept for this.
fn load_in_room(directory: &Directory, options: &Options) -> Result<Loaded, Error> {
    match load(&directory.sled(), options) {
        Err(Error::NoSpace(_)) if directory.give_room() => load(&directory.sled(), options),
        other => other,
    }
}

fn load(files: &Files, options: &Options) -> Result<Loaded, Error> {
    caught(|| load_checked(files, options))
}

fn load_checked(files: &Files, options: &Options) -> Result<Loaded, Error> {
    let open = open_sled(files, options)?;
    let format = read_format(&open, files.path())?;
    let (index, last, records) = read_index(&open, files.path())?;
    let (leases, of_leases) = read_leases(&open)?;
    let compacted = take_census(&open, format, records.wrapping_add(of_leases), files.path())?;
    let reached = last.max(compacted);
    let (committed, floor) = settle_reserved(&open, reached)?;
    remove_after(&open, committed)?;
    flush(&open)?;
    Ok(Loaded { open, index, reached, committed, compacted, floor, leases })
}

/// sled opened, but without the last writes. What it has goes into new files: it would find the end at the same place
/// again, whatever is written behind.
fn lost_the_end(directory: &Directory, options: &Options, loaded: &Loaded, noted: Noted) -> Result<Loaded, Error> {
    let cause = format!("the store's files end at revision {}", loaded.reached);
    let newest = snapshots(directory).into_iter().find_map(|path| whole(&path));
    if newest.is_some_and(|revision| revision.0 > loaded.reached) {
        return from_snapshot(directory, options, noted, &cause);
    }
    let (first_lost, continues_at) = (loaded.reached + 1, continues_at(loaded.committed, noted));
    let restoring = directory.restoring()?;
    copy(&loaded.open, &restoring, options, continues_at)?;
    let kept = directory.replace(&restoring)?;
    let loss = Loss {
        time: crate::time::now_seconds(),
        cause,
        first_lost,
        last_lost: noted.durable,
        restored: "what was left of them".to_owned(),
        kept: Some(kept.display().to_string()),
        continues_at,
    };
    record(directory, loss)?;
    load(&directory.sled(), options)
}

/// Make a new store out of what another one holds.
fn copy(from: &Open, files: &Files, options: &Options, continues_at: u64) -> Result<(), Error> {
    // Metadata is made anew.
    let to = copy_entries(from, files, options, |key| !key.starts_with(b"m"))?;
    finish(&to, continues_at)
}

/// Make the same store in new files.
pub fn rewrite(from: &Open, files: &Files, options: &Options) -> Result<(), Error> {
    let to = copy_entries(from, files, options, |key| key != FORMAT_KEY && key != census::CENSUS_KEY)?;
    let counted = from.census.get();
    finish(&to, counted.compacted)?;
    match to.census.get() == counted {
        true => Ok(()),
        false => Err(Error::Damaged("writes in the middle are missing".to_owned())),
    }
}

/// Those entries of a store whose keys are wanted, in new files; nothing that is taken for a store yet.
fn copy_entries(from: &Open, files: &Files, options: &Options, wanted: impl Fn(&[u8]) -> bool) -> Result<Open, Error> {
    let io = |e| sled_error("copying the store", e);
    let to = open_sled(files, options)?;
    let (mut bytes, mut pages) = (0, Pages::default());
    for entry in from.sled.iter() {
        let (key, value) = entry.map_err(io)?;
        if !wanted(&key) {
            continue;
        }
        if bytes == 0 {
            to.file.reserve(FILL_ROOM_BYTES, Purpose::Fill)?;
        }
        bytes += key.len() + value.len();
        to.sled.insert(&key, value).map_err(io)?;
        if let Some(place) = Place::parse(&key) {
            pages.visited_key(&from.sled, place.revision, &key)?;
        }
        if bytes >= FILL_BYTES {
            flush(&to)?;
            bytes = 0;
        }
    }
    Ok(to)
}

/// From now on it is a store.
fn finish(open: &Open, continues_at: u64) -> Result<(), Error> {
    flush(open)?;
    set_up(open, Counted { sum: census::count(open)?, compacted: continues_at })?;
    flush(open)?;
    open.file.release()
}

/// Note the format, and what there is.
fn set_up(open: &Open, counted: Counted) -> Result<(), Error> {
    open.census.set(counted);
    let mut changes = Changes::default();
    changes.set(FORMAT_KEY, FORMAT);
    open.apply(changes)
}

/// Put the newest whole snapshot in the place of damaged files.
fn from_snapshot(directory: &Directory, options: &Options, noted: Noted, cause: &str) -> Result<Loaded, Error> {
    for path in snapshots(directory) {
        let Some(revision) = whole(&path) else { continue };
        let continues_at = continues_at(revision.0, noted);
        let restoring = directory.restoring()?;
        let io = |e| failed("reading a snapshot", &path, &e);
        fill(&restoring, options, &mut snapshots::open(&path).map_err(io)?, continues_at)?;
        let kept = directory.replace(&restoring)?;
        let loss = Loss {
            time: crate::time::now_seconds(),
            cause: cause.to_owned(),
            first_lost: revision.0 + 1,
            last_lost: noted.durable.max(revision.0),
            restored: format!("the snapshot of revision {revision}"),
            kept: Some(kept.display().to_string()),
            continues_at,
        };
        record(directory, loss)?;
        return load(&directory.sled(), options);
    }
    Err(Error::Damaged(format!(
        "{cause}; there is no whole snapshot to repair it from: restore a backup (kedge backup restore)"
    )))
}

fn continues_at(last: u64, noted: Noted) -> u64 {
    last.max(noted.durable).max(noted.reserved) + REVISION_JUMP
}

fn snapshots(directory: &Directory) -> Vec<PathBuf> {
    snapshots::list(&directory.snapshots())
}

/// The revision of a snapshot that can be used.
fn whole(path: &Path) -> Option<Revision> {
    match snapshots::check(path) {
        Ok(summary) => Some(summary.revision),
        Err(error) => {
            warn!(path = %path.display(), %error, "this snapshot cannot be used");
            None
        }
    }
}

/// Say loudly what was lost: in the log and in a file; the store's condition shows it from there.
fn record(directory: &Directory, loss: Loss) -> Result<(), Error> {
    error!("THE STORE WAS DAMAGED: {loss}");
    directory.add_loss(loss)
}

/// Make a new store out of a snapshot. Its revisions go on from `continues_at`, older ones count as compacted. What a
/// crash leaves of it is not taken for a store.
pub fn fill(
    files: &Files,
    options: &Options,
    snapshot: &mut Reader<impl Read>,
    continues_at: u64,
) -> Result<(), Error> {
    let open = open_sled(files, options)?;
    let mut encoder = Encoder::new();
    let mut changes = Changes::default();
    let mut bytes = 0;
    loop {
        let read = snapshot.frame().map_err(|e| Error::Damaged(format!("a snapshot: {e}")))?;
        let Some(items) = read else { break };
        for item in items {
            if bytes == 0 {
                open.file.reserve(FILL_ROOM_BYTES, Purpose::Fill)?;
            }
            match item {
                Item::Lease(lease) => {
                    changes.add_lease(lease.id, encode_lease(lease.granted, Some(lease.remaining.max(1))));
                }
                Item::Write(write) => {
                    let kv = &write.kv;
                    let mut encoded = encoder.encode(&Write {
                        key: &kv.key,
                        value: (write.kind == EventKind::Put).then_some(&kv.value[..]),
                        create: kv.create_revision.0,
                        version: kv.version,
                        lease: kv.lease,
                    });
                    encoded.mark_last();
                    bytes += encoded.stored();
                    changes.add(Place { revision: kv.mod_revision.0, sub: write.sub }, &encoded);
                }
            }
            if bytes >= FILL_BYTES {
                open.apply(std::mem::take(&mut changes))?;
                flush(&open)?;
                bytes = 0;
            }
        }
    }
    open.apply(changes)?;
    finish(&open, continues_at)?;
    info!(revision = continues_at, "the store is filled from a snapshot");
    Ok(())
}

/// Layout of the entries. Older ones are read as they are and then called this; others are refused.
const FORMAT: &[u8] = b"3";

/// Without leases.
const FORMAT_1: &[u8] = b"1";

/// Without a census.
const FORMAT_2: &[u8] = b"2";

const FORMAT_KEY: &[u8] = b"mformat";

/// Where older formats have the compacted revision.
const COMPACTED_KEY: &[u8] = b"mcompacted";

enum Format {
    Counted,
    /// By an older version, or new.
    Uncounted,
}

fn read_format(open: &Open, path: &Path) -> Result<Format, Error> {
    let io = |e| sled_error("reading the store's metadata", e);
    match open.sled.get(FORMAT_KEY).map_err(io)? {
        Some(format) if &*format == FORMAT => Ok(Format::Counted),
        Some(format) if [FORMAT_1, FORMAT_2].contains(&&*format) => Ok(Format::Uncounted),
        // Nothing but what opening has just written.
        None if open.sled.len() == 1 => Ok(Format::Uncounted),
        _ => Err(Error::Damaged(format!("{}: not a store of this version", path.display()))),
    }
}

/// Compare what is there (`sum`: see [`Counted::sum`]) with what has to be, or note it for the first time. Gives the
/// compacted revision.
fn take_census(open: &Open, format: Format, sum: u64, path: &Path) -> Result<u64, Error> {
    match format {
        Format::Uncounted => {
            let compacted = open.sled.get(COMPACTED_KEY).map_err(|e| sled_error("reading the store's metadata", e))?;
            let compacted = compacted.and_then(|bytes| Some(u64::from_be_bytes((*bytes).try_into().ok()?)));
            let compacted = compacted.unwrap_or(Census::default().get().compacted);
            set_up(open, Counted { sum, compacted })?;
        }
        Format::Counted => match Counted::read(open)? {
            Some(counted) if counted.sum == sum => open.census.set(counted),
            _ => return Err(Error::Damaged(format!("{}: writes in the middle are missing", path.display()))),
        },
    }
    Ok(open.census.get().compacted)
}

/// What was reserved when the store was last used, as (current revision, floor of the memory tier). After an unclean
/// stop every reserved revision counts as given out, and what was only in memory is lost.
fn settle_reserved(open: &Open, reached: u64) -> Result<(u64, u64), Error> {
    let io = |e| sled_error("reading the store's metadata", e);
    let get = |key: &[u8]| open.sled.get(key).map_err(io);
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?));
    let floor = get(FLOOR_KEY)?.and_then(|bytes| number(&bytes)).unwrap_or(0);
    let Some(reserved) = get(RESERVED_KEY)? else { return Ok((reached, floor)) };
    let reserved_to = number(&reserved).unwrap_or(0);
    if reserved.get(8) == Some(&CLEAN) {
        return Ok((reached.max(reserved_to), floor));
    }
    // One that nobody was given: history from there on is whole.
    let committed = reached.max(reserved_to) + 1;
    let mut changes = Changes::default();
    changes.set(FLOOR_KEY, &committed.to_be_bytes());
    set_reserved(&mut changes, committed, CLEAN);
    open.apply(changes)?;
    flush(open)?;
    Ok((committed, committed))
}

/// Note that no revision above was given out without being on disk.
pub fn reserve(changes: &mut Changes, revision: u64) {
    set_reserved(changes, revision, IN_USE);
}

/// Note that everything up to a revision is on disk, and pass the barrier.
pub fn release(open: &Open, revision: u64) -> Result<(), Error> {
    let mut changes = Changes::default();
    set_reserved(&mut changes, revision, CLEAN);
    open.apply(changes)?;
    flush(open).map(drop)
}

fn set_reserved(changes: &mut Changes, revision: u64, state: u8) {
    changes.set(RESERVED_KEY, &[&revision.to_be_bytes()[..], &[state]].concat());
}

const RESERVED_KEY: &[u8] = b"mreserved";
const FLOOR_KEY: &[u8] = b"mfloor";
/// Behind the reserved revision.
const CLEAN: u8 = 1;
const IN_USE: u8 = 0;

/// Read the leases, and what their keys weigh together.
fn read_leases(open: &Open) -> Result<(Book, u64), Error> {
    let (book, now, mut sum) = (Book::default(), Instant::now(), 0_u64);
    for entry in open.sled.scan_prefix(b"l") {
        let (key, value) = entry.map_err(|e| sled_error("reading leases", e))?;
        sum = sum.wrapping_add(census::weigh(&key));
        match decode_lease(&key, &value) {
            Some((id, granted, remaining)) => book.enter(id, granted, remaining, now),
            None => {
                return Err(Error::Damaged(format!("entry {} is damaged", key.escape_ascii())));
            }
        }
    }
    Ok((book, sum))
}

/// Read the index, the last complete revision (1 if there is none), and what the keys of all records weigh together.
fn read_index(open: &Open, path: &Path) -> Result<(Index, u64, u64), Error> {
    let mut sum = 0_u64;
    let mut index = Index::default();
    let mut last = 1;
    // The writes of one revision; entered when the next begins, as the newest may be incomplete.
    let mut group: Vec<(Key, Version)> = Vec::new();
    let mut complete = false;
    // Values in pieces, of each key the newest.
    let mut in_pieces: HashMap<Key, (Place, u16)> = HashMap::new();
    let mut enter = |group: &mut Vec<(Key, Version)>| {
        for (key, version) in group.drain(..) {
            last = version.revision;
            index.push(&key, version);
        }
    };
    let mut pages = Pages::default();
    for entry in open.sled.scan_prefix(b"r") {
        let (key, bytes) = entry.map_err(|e| sled_error("reading the index", e))?;
        sum = sum.wrapping_add(census::weigh(&key));
        let place = record_place(&key);
        let (Some(place), Some(record)) = (place, decode(&bytes)) else {
            return Err(Error::Damaged(format!("{}: entry {} is damaged", path.display(), key.escape_ascii())));
        };
        pages.visited(&open.sled, place)?;
        if group.first().is_some_and(|(_, first)| first.revision != place.revision) {
            enter(&mut group);
        }
        complete = record.last;
        let name = Key::from(record.key);
        match record.value {
            Value::Pieces { count, .. } => drop(in_pieces.insert(name.clone(), (place, count))),
            Value::Inline { .. } => drop(in_pieces.remove(&name)),
        }
        group.push((name, version(place, &record, bytes.len())));
    }
    if complete {
        enter(&mut group);
    }
    in_pieces.retain(|_, (place, _)| place.revision <= last);
    check_pieces(open, path, in_pieces.into_values().collect())?;
    Ok((index, last, sum))
}

/// Whether the pieces of these values are there and can be read.
fn check_pieces(open: &Open, path: &Path, mut wanted: HashMap<Place, u16>) -> Result<(), Error> {
    let mut pages = Pages::default();
    for entry in open.sled.scan_prefix(b"p").keys() {
        let key = entry.map_err(|e| sled_error("reading values", e))?;
        pages.visited_key(&open.sled, 0, &key)?;
        if let Some(left) = Place::parse(&key).and_then(|place| wanted.get_mut(&place)) {
            *left = left.saturating_sub(1);
        }
    }
    match wanted.iter().find(|(_, left)| **left > 0) {
        Some((place, _)) => Err(Error::Damaged(format!("{}: {place} has lost a part", path.display()))),
        None => Ok(()),
    }
}

fn version(place: Place, record: &Record<'_>, len: usize) -> Version {
    let pieces = match record.value {
        Value::Inline { .. } => 0,
        Value::Pieces { count, .. } => u32::from(count) * ITEM_BYTES as u32,
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

/// Open sled again after an error: compare the census, and remove what was never acknowledged, as well as what memory
/// still has (it is written back later).
pub fn resume(files: &Files, options: &Options, committed: u64, in_memory: &[Place]) -> Result<Open, Error> {
    let open = open_sled(files, options)?;
    take_census(&open, Format::Counted, census::count(&open)?, files.path())?;
    remove_after(&open, committed)?;
    let mut changes = Changes::default();
    for place in in_memory {
        if open.sled.contains_key(place.key()).map_err(|e| sled_error("reading a record", e))? {
            changes.remove(*place, pieces(&open, *place)?);
        }
    }
    open.apply(changes)?;
    Ok(open)
}

/// After the key of every piece.
const LAST_PIECE: &[u8] = b"q";

/// Remove what a writer that never got to its barrier has left behind.
fn remove_after(open: &Open, revision: u64) -> Result<(), Error> {
    let io = |e| sled_error("removing unfinished writes", e);
    let from = Place { revision: revision + 1, sub: 0 };
    let (records, pieces) = (from.key(), from.piece_key(0));
    let mut changes = Changes::default();
    for key in open.sled.range(&records[..]..census::CENSUS_KEY).keys() {
        if let Some(place) = record_place(&key.map_err(io)?) {
            changes.remove(place, 0);
        }
    }
    for key in open.sled.range(&pieces[..]..LAST_PIECE).keys() {
        changes.unset(&key.map_err(io)?);
    }
    open.apply(changes)
}

#[cfg(test)]
mod tests;
