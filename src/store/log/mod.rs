//! The default engine: an append-only log in segment files, and in memory where each record is.
//!
//! ```text
//!  oldest segment ─────────────────────────► newest segment      spares
//!  [head][frame][frame]…[head][frame]…       [head][frame]→ next
//! ```
//!
//! A commit is one frame (`frame.rs`), one write and one disk barrier; a value is one read. Each segment (`segment.rs`)
//! begins with a head: all leases and notes as they were then. So nothing but records has to be kept of old segments:
//! when more than half of the log is garbage, the records of the oldest segment that are still needed are written
//! again at the end, and it is dropped (`clean.rs`). Segments go strictly in order; so what says that a record is gone
//! is never dropped before the record itself, and a record that is gone cannot come back. A dropped segment's file
//! becomes a spare, and then the next segment: blocks that were written before cost the file system no metadata.
//!
//! Opening (`open.rs`) reads everything once and writes nothing. Frames form a chain, and at most one of them was not
//! acknowledged: a bad frame with a good one behind it, or in another than the newest segment, is damage and no torn
//! end.

mod clean;
mod frame;
mod open;
mod segment;
#[cfg(test)]
mod tests;

use super::local::engine::{Above, Changes, Engine, LeaseChange, LeaseEntry, Notes, Purpose, Visit, damaged};
use super::local::index::Superseded;
use super::local::record::{Place, decode};
use super::{Error, LeaseId};
use bytes::Bytes;
use clean::Cleaning;
#[cfg(fuzzing)]
pub use frame::is_readable as frame_is_readable;
use frame::{Frame, Link};
pub(super) use open::open;
use parking_lot::{Mutex, RwLock};
use segment::{Slot, Window};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{error, info};

/// Bytes of a segment: an eighth of what is kept, within these.
const LEAST_SEGMENT_BYTES: u64 = 2 << 20;
const MOST_SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENT_PART: u64 = 8;

/// Spare segments that writes which fill the store leave. Those that empty it leave one less, and what gives space back
/// may take the last: so a full disk can be emptied.
const SPARES: usize = 2;

/// Removals that go with one commit; the rest goes with the next ones.
const COMMIT_GONE: usize = 4096;

/// Places that a scan looks up at a time.
const SCAN_STEP: usize = 256;

/// The file system notes in its journal when a claimed block is written for the first time: three blocks for each time.
/// So a frame that is shorter than this takes this much of zeros with it, which the next ones are written over.
const AHEAD_BYTES: usize = 128 << 10;

/// The buffer for frames is let go when it has become longer than this.
const BUFFER_BYTES: usize = 1 << 20;

pub(super) struct Log {
    path: PathBuf,
    table: RwLock<Table>,
    tail: Mutex<Tail>,
    /// Bytes of all files.
    bytes: AtomicU64,
    written: AtomicU64,
}

/// Where a record is: its CRC, which its bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Location {
    segment: u32,
    at: u32,
    length: u32,
}

/// What readers need.
#[derive(Default)]
struct Table {
    records: BTreeMap<Place, Location>,
    /// By number, oldest first.
    segments: BTreeMap<u32, Arc<Slot>>,
    /// Bytes of all records.
    live: u64,
}

impl Table {
    fn insert(&mut self, place: Place, location: Location) {
        self.live += u64::from(location.length);
        if let Some(old) = self.records.insert(place, location) {
            self.live -= u64::from(old.length);
        }
    }

    fn remove(&mut self, place: Place) {
        if let Some(old) = self.records.remove(&place) {
            self.live -= u64::from(old.length);
        }
    }

    fn find(&self, place: Place) -> Option<(Location, Arc<Slot>)> {
        let location = *self.records.get(&place)?;
        Some((location, self.segments.get(&location.segment)?.clone()))
    }
}

/// What the writer needs.
struct Tail {
    /// Where the next frame goes.
    next: Next,
    leases: BTreeMap<LeaseId, LeaseEntry>,
    notes: Notes,
    /// The oldest segment that is needed, as the disk has it.
    oldest: u64,
    /// Removals that the disk has not heard of.
    gone: Vec<Place>,
    spares: Vec<Slot>,
    /// The highest name of a file so far.
    last_name: u64,
    /// The disk had no room for a spare.
    pressed: bool,
    /// A record could not be read: no more space is given back until the store is opened again, and repaired.
    stuck: bool,
    /// A frame that failed may be here, and has to be erased before the next one is written.
    failed: Option<Failed>,
    cleaning: Option<Cleaning>,
    buffer: Vec<u8>,
}

struct Failed {
    slot: Arc<Slot>,
    at: u64,
}

#[derive(Clone)]
struct Next {
    slot: Arc<Slot>,
    at: u64,
    link: Link,
    /// Up to here the file has been written before.
    prepared: u64,
}

impl Next {
    fn segment(&self) -> u32 {
        self.link.segment as u32
    }

    /// Add to what is written here, up to `end`, what prepares the file for the next writes. Gives up to where it is then.
    fn prepare(&self, end: u64, bytes: &mut Vec<u8>) -> u64 {
        if end <= self.prepared || bytes.len() >= AHEAD_BYTES {
            return self.prepared.max(end);
        }
        let prepared = (end + AHEAD_BYTES as u64).min(self.slot.length).max(end);
        bytes.resize((prepared - self.at) as usize, 0);
        prepared
    }
}

/// What a frame is written for: how many spares stay.
#[derive(Clone, Copy)]
enum Room {
    For(Purpose),
    /// To give space back.
    Clean,
}

impl Room {
    fn spares(self) -> usize {
        match self {
            Room::For(Purpose::Fill) => SPARES,
            Room::For(Purpose::Empty) => SPARES - 1,
            Room::Clean => 0,
        }
    }
}

impl Engine for Log {
    fn commit(&self, changes: Changes) -> Result<(), Error> {
        let mut tail = self.tail.lock();
        let room = Room::For(changes.purpose());
        let mut frame = Frame::new(std::mem::take(&mut tail.buffer));
        let gone = tail.gone.len().min(COMMIT_GONE);
        tail.gone[..gone].iter().for_each(|place| frame.gone(*place));
        let records: Vec<(Place, usize, u32)> = changes
            .records
            .iter()
            .map(|(place, encoded)| {
                let bytes = encoded.bytes();
                (*place, frame.record(*place, crc32fast::hash(bytes), bytes), bytes.len() as u32)
            })
            .collect();
        changes.leases.iter().for_each(|(id, change)| frame.lease(*id, *change));
        frame.notes(&changes.notes);
        if frame.is_empty() {
            return Ok(());
        }
        let (segment, at) = self.append(&mut tail, frame, room)?;
        tail.gone.drain(..gone);
        for (id, change) in changes.leases {
            match change {
                LeaseChange::Add(entry) | LeaseChange::Note(entry) => drop(tail.leases.insert(id, entry)),
                LeaseChange::Remove => drop(tail.leases.remove(&id)),
            }
        }
        tail.notes = tail.notes.with(changes.notes);
        let mut table = self.table.write();
        for (place, offset, length) in records {
            table.insert(place, Location { segment, at: (at + offset as u64) as u32, length });
        }
        Ok(())
    }

    fn forget(&self, gone: &[Superseded], _more: bool) -> Result<(), Error> {
        let mut tail = self.tail.lock();
        tail.gone.extend(gone.iter().map(|entry| entry.place));
        let mut table = self.table.write();
        gone.iter().for_each(|entry| table.remove(entry.place));
        Ok(())
    }

    fn value(&self, place: Place) -> Result<Option<Bytes>, Error> {
        let Some((location, slot)) = self.table.read().find(place) else { return Ok(None) };
        let bytes = slot.read(location.at.into(), 4 + location.length as usize)?;
        let record = checked(&bytes).and_then(decode).and_then(|record| record.value()?.ok());
        record.map(Some).ok_or_else(|| damaged(place))
    }

    fn scan(&self, from: Place, visit: &mut Visit<'_>) -> Result<(), Error> {
        let (mut next, mut window, mut current) = (Some(from), Window::default(), None);
        while let Some(from) = next {
            // What is behind these records may be written later.
            window.forget();
            let found: Vec<(Place, Location, Option<Arc<Slot>>)> = {
                let table = self.table.read();
                let slot = |location: &Location| table.segments.get(&location.segment).cloned();
                table.records.range(from..).take(SCAN_STEP).map(|(place, at)| (*place, *at, slot(at))).collect()
            };
            next = found.last().filter(|_| found.len() == SCAN_STEP).map(|(place, ..)| place.next());
            for (place, location, slot) in found {
                if current.replace(location.segment) != Some(location.segment) {
                    window.forget();
                }
                let slot = slot.ok_or_else(|| damaged(place))?;
                let bytes = window.read(&slot, location.at.into(), 4 + location.length as usize)?;
                let record = checked(bytes).and_then(decode).ok_or_else(|| damaged(place))?;
                if !visit(place, &record)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn tidy(&self) -> Result<bool, Error> {
        self.clean(&mut self.tail.lock())
    }

    fn mend(&self, _above: &Above<'_>) -> Result<(), Error> {
        let mut tail = self.tail.lock();
        let Some(Failed { slot, at }) = &tail.failed else { return Ok(()) };
        slot.erase(*at)?;
        info!("the store works again");
        if let Some(failed) = tail.failed.take() {
            tail.take_back(failed);
        }
        Ok(())
    }

    fn defragment(&self, _above: &Above<'_>) -> Result<(), Error> {
        self.clean_all(&mut self.tail.lock())
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn used_bytes(&self, stored: u64) -> u64 {
        self.bytes().min(stored * clean::GARBAGE_FACTOR)
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn close(&self) -> Result<(), Error> {
        *self.table.write() = Table::default();
        Ok(())
    }
}

/// A record's bytes behind their CRC, if they are what was written.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (crc, bytes) = bytes.split_first_chunk()?;
    (crc32fast::hash(bytes) == u32::from_le_bytes(*crc)).then_some(bytes)
}

impl Log {
    /// Write a frame and wait until the disk has it. Gives where it is.
    fn append(&self, tail: &mut Tail, frame: Frame, room: Room) -> Result<(u32, u64), Error> {
        // Nothing is in the first segment of a new log yet.
        let head = if tail.next.at == 0 { tail.head().room() } else { 0 };
        let start = match tail.next.at + (head + frame.room()) as u64 <= tail.next.slot.length {
            true => tail.next.clone(),
            false => self.next_segment(tail, frame.room(), room)?,
        };
        let (mut bytes, mut link) = (Vec::new(), start.link);
        if start.at == 0 {
            let (head, crc) = tail.head().finish(link);
            (bytes, link) = (head, link.next(crc));
        }
        let at = start.at + bytes.len() as u64;
        let (frame, crc) = frame.finish(link);
        // Both frames of a new segment go at once.
        let mut bytes = if bytes.is_empty() { frame } else { [bytes, frame].concat() };
        let end = start.at + bytes.len() as u64;
        let prepared = start.prepare(end, &mut bytes);
        if let Err(error) = start.slot.write(&bytes, start.at) {
            error!(%error, "the store cannot write");
            tail.failed_at(start);
            return Err(error);
        }
        let segment = start.segment();
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if start.at == 0 {
            self.table.write().segments.insert(segment, start.slot.clone());
        }
        if bytes.capacity() <= BUFFER_BYTES {
            tail.buffer = bytes;
        }
        tail.next = Next { slot: start.slot, at: end, link: link.next(crc), prepared };
        Ok((segment, at))
    }

    /// The beginning of the next segment, in a spare file that has room for its head and a frame.
    fn next_segment(&self, tail: &mut Tail, frame: usize, room: Room) -> Result<Next, Error> {
        let needed = (tail.head().room() + frame) as u64;
        let length = self.segment_bytes().max(needed.next_multiple_of(LEAST_SEGMENT_BYTES));
        while tail.spares.iter().all(|slot| slot.length < needed) || tail.spares.len() <= room.spares() {
            match self.new_spare(tail, length) {
                Ok(slot) => tail.spares.push(slot),
                Err(Error::NoSpace(why)) => {
                    tail.pressed = true;
                    return Err(Error::NoSpace(format!("{why}: {needed} bytes are needed")));
                }
                Err(other) => return Err(other),
            }
        }
        let found = tail.spares.iter().position(|slot| slot.length >= needed).unwrap_or(0);
        let slot = Arc::new(tail.spares.swap_remove(found));
        // A first segment that is too short for the first frame was never begun; its file is found to be spare later.
        let segment = tail.next.link.segment + u64::from(tail.next.at > 0);
        let link = Link { segment, nonce: rand::random(), ..tail.next.link };
        let prepared = if slot.used { slot.length } else { 0 };
        Ok(Next { slot, at: 0, link, prepared })
    }

    fn new_spare(&self, tail: &mut Tail, length: u64) -> Result<Slot, Error> {
        tail.last_name += 1;
        let slot = Slot::create(&self.path, tail.last_name, length)?;
        self.bytes.fetch_add(slot.length, Ordering::Relaxed);
        tail.pressed = false;
        Ok(slot)
    }

    fn remove(&self, slot: &Slot) {
        slot.remove();
        self.bytes.fetch_sub(slot.length, Ordering::Relaxed);
    }

    /// How long a new segment is.
    fn segment_bytes(&self) -> u64 {
        let part = self.table.read().live / SEGMENT_PART;
        part.next_power_of_two().clamp(LEAST_SEGMENT_BYTES, MOST_SEGMENT_BYTES)
    }
}

impl Tail {
    /// What a segment begins with.
    fn head(&self) -> Frame {
        let mut frame = Frame::new(Vec::new());
        frame.head();
        frame.oldest(self.oldest);
        frame.notes(&self.notes);
        self.leases.iter().for_each(|(id, entry)| frame.lease(*id, LeaseChange::Add(*entry)));
        frame
    }

    /// A frame could not be written here: it must not be found there later.
    fn failed_at(&mut self, place: Next) {
        let failed = Failed { slot: place.slot, at: place.at };
        match failed.slot.erase(failed.at) {
            Ok(()) => self.take_back(failed),
            Err(_) => self.failed = Some(failed),
        }
    }

    /// The file of a segment that was not begun after all is spare again.
    fn take_back(&mut self, failed: Failed) {
        if failed.at == 0
            && let Some(slot) = Arc::into_inner(failed.slot)
        {
            self.spares.push(slot);
        }
    }
}
