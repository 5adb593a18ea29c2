//! Reading sled's files through when they are opened.

use super::census::{self, Batch, Census, Counted};
use super::entries::{Stored, decode, decode_lease, key, piece_key, place, record_place};
use super::files::Files;
use super::open::{Open, Pages, open_sled, pieces, sled_error};
use crate::store::local::Options;
use crate::store::local::engine::{LeaseEntry, Notes, Reserved, version};
use crate::store::local::index::{Index, Key, Version};
use crate::store::local::record::Place;
use crate::store::{Error, LeaseId};
use std::collections::HashMap;
use std::path::Path;

/// Layout of the entries. Older ones are read as they are and then called this; others are refused.
pub const FORMAT: &[u8] = b"3";

/// Without leases.
pub const FORMAT_1: &[u8] = b"1";

/// Without a census.
pub const FORMAT_2: &[u8] = b"2";

pub const FORMAT_KEY: &[u8] = b"mformat";

/// Where older formats have the compacted revision.
pub const COMPACTED_KEY: &[u8] = b"mcompacted";

const RESERVED_KEY: &[u8] = b"mreserved";
const FLOOR_KEY: &[u8] = b"mfloor";
/// Behind the reserved revision.
const CLEAN: u8 = 1;
const IN_USE: u8 = 0;

/// After the key of every piece.
const LAST_PIECE: &[u8] = b"q";

pub struct Content {
    pub index: Index,
    pub last: u64,
    pub leases: Vec<(LeaseId, LeaseEntry)>,
    pub notes: Notes,
}

/// Read everything, and compare it with the census.
pub fn read(open: &Open, path: &Path) -> Result<Content, Error> {
    let format = read_format(open, path)?;
    let (index, last, records) = read_index(open, path)?;
    let (leases, of_leases) = read_leases(open)?;
    let compacted = take_census(open, format, records.wrapping_add(of_leases), path)?;
    remove_after(open, last)?;
    let notes = Notes { compacted: Some(compacted), ..read_notes(open)? };
    Ok(Content { index, last, leases, notes })
}

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

/// Note the format, and what there is: from now on it is a store.
pub fn set_up(open: &Open, counted: Counted) -> Result<(), Error> {
    open.census.set(counted);
    let mut batch = Batch::default();
    batch.set(FORMAT_KEY, FORMAT);
    open.apply(batch)
}

/// Notes but for the compacted revision.
fn read_notes(open: &Open) -> Result<Notes, Error> {
    let get = |key: &[u8]| open.sled.get(key).map_err(|e| sled_error("reading the store's metadata", e));
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?));
    let floor = get(FLOOR_KEY)?.and_then(|bytes| number(&bytes));
    let reserved = get(RESERVED_KEY)?
        .map(|bytes| Reserved { revision: number(&bytes).unwrap_or(0), clean: bytes.get(8) == Some(&CLEAN) });
    Ok(Notes { compacted: None, reserved, floor })
}

pub fn write_notes(batch: &mut Batch, notes: &Notes) {
    if let Some(compacted) = notes.compacted {
        batch.compact(compacted);
    }
    if let Some(Reserved { revision, clean }) = notes.reserved {
        let state = if clean { CLEAN } else { IN_USE };
        batch.set(RESERVED_KEY, &[&revision.to_be_bytes()[..], &[state]].concat());
    }
    if let Some(floor) = notes.floor {
        batch.set(FLOOR_KEY, &floor.to_be_bytes());
    }
}

/// Read the leases, and what their keys weigh together.
fn read_leases(open: &Open) -> Result<(Vec<(LeaseId, LeaseEntry)>, u64), Error> {
    let (mut leases, mut sum) = (Vec::new(), 0_u64);
    for entry in open.sled.scan_prefix(b"l") {
        let (key, value) = entry.map_err(|e| sled_error("reading leases", e))?;
        sum = sum.wrapping_add(census::weigh(&key));
        let damaged = || Error::Damaged(format!("entry {} is damaged", key.escape_ascii()));
        leases.push(decode_lease(&key, &value).ok_or_else(damaged)?);
    }
    Ok((leases, sum))
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
        let (Some(place), Some(stored)) = (record_place(&key), decode(&bytes)) else {
            return Err(Error::Damaged(format!("{}: entry {} is damaged", path.display(), key.escape_ascii())));
        };
        pages.visited(&open.sled, place)?;
        if group.first().is_some_and(|(_, first)| first.revision != place.revision) {
            enter(&mut group);
        }
        complete = stored.last;
        let name = Key::from(stored.record.key);
        match stored.pieces {
            0 => drop(in_pieces.remove(&name)),
            count => drop(in_pieces.insert(name.clone(), (place, count))),
        }
        group.push((name, version(place, &stored.record, whole_length(&stored, bytes.len()))));
    }
    if complete {
        enter(&mut group);
    }
    in_pieces.retain(|_, (place, _)| place.revision <= last);
    check_pieces(open, path, in_pieces.into_values().collect())?;
    Ok((index, last, sum))
}

fn whole_length(stored: &Stored<'_>, bytes: usize) -> usize {
    bytes + usize::from(stored.pieces) * super::entries::ITEM_BYTES
}

/// Whether the pieces of these values are there and can be read.
fn check_pieces(open: &Open, path: &Path, mut wanted: HashMap<Place, u16>) -> Result<(), Error> {
    let mut pages = Pages::default();
    for entry in open.sled.scan_prefix(b"p").keys() {
        let key = entry.map_err(|e| sled_error("reading values", e))?;
        pages.visited_key(&open.sled, 0, &key)?;
        if let Some(left) = place(&key).and_then(|place| wanted.get_mut(&place)) {
            *left = left.saturating_sub(1);
        }
    }
    match wanted.iter().find(|(_, left)| **left > 0) {
        Some((place, _)) => Err(Error::Damaged(format!("{}: {place} has lost a part", path.display()))),
        None => Ok(()),
    }
}

/// Open sled again after an error: compare the census, and remove what was never acknowledged, as well as what memory
/// still has (it is written back later).
pub fn resume(files: &Files, options: &Options, committed: u64, in_memory: &[Place]) -> Result<Open, Error> {
    let open = open_sled(files, options)?;
    take_census(&open, Format::Counted, census::count(&open)?, files.path())?;
    remove_after(&open, committed)?;
    let mut batch = Batch::default();
    for place in in_memory {
        if open.sled.contains_key(key(*place)).map_err(|e| sled_error("reading a record", e))? {
            batch.remove(*place, pieces(&open, *place)?);
        }
    }
    open.apply(batch)?;
    Ok(open)
}

/// Remove what a writer that never got to its barrier has left behind.
fn remove_after(open: &Open, revision: u64) -> Result<(), Error> {
    let io = |e| sled_error("removing unfinished writes", e);
    let from = Place { revision: revision + 1, sub: 0 };
    let (records, pieces) = (key(from), piece_key(from, 0));
    let (mut batch, mut found) = (Batch::default(), false);
    for key in open.sled.range(&records[..]..census::CENSUS_KEY).keys() {
        if let Some(place) = record_place(&key.map_err(io)?) {
            batch.remove(place, 0);
            found = true;
        }
    }
    for key in open.sled.range(&pieces[..]..LAST_PIECE).keys() {
        batch.unset(&key.map_err(io)?);
        found = true;
    }
    if found { open.apply(batch) } else { Ok(()) }
}
