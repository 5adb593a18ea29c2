//! Opening: every frame is read once and checked; nothing is written.

use super::frame::{BLOCK, Entries, Entry, HEADER, Header, Link, is_whole};
use super::segment::{Slot, Window};
use super::{LEAST_SEGMENT_BYTES, Location, Log, Next, Table, Tail, checked};
use crate::durable;
use crate::store::local::directory::failed;
use crate::store::local::engine::{LeaseEntry, Notes, Opened, version};
use crate::store::local::index::{Index, Key, Version};
use crate::store::local::record::{Place, decode};
use crate::store::{Error, LeaseId};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Frames of the first write of a new log: the head, and the first commit.
const FIRST_WRITE_FRAMES: u64 = 2;

/// Open the files in a directory, or make new ones.
pub fn open(path: &Path) -> Result<Opened, Error> {
    durable::create_dir(path, 0o700).map_err(|e| failed("creating the store's directory", path, &e))?;
    let (slots, last_name) = Slot::all(path)?;
    let bytes = slots.iter().map(|slot| slot.length).sum();
    // A crash while it was made may have left a file without its room.
    let slots = slots.into_iter().filter(|slot| slot.length > 0);
    let (mut segments, mut spares) = (BTreeMap::new(), Vec::new());
    for slot in slots {
        let Some(number) = number_of(&slot)? else {
            spares.push(slot);
            continue;
        };
        if segments.insert(number, slot).is_some() {
            return Err(Error::Damaged(format!("{}: segment {number} is there twice", path.display())));
        }
    }
    if segments.is_empty() {
        check_new(path, &spares)?;
    }
    let mut reading = Reading::default();
    let (mut damage, mut tail) = (None, None);
    if let Some((&newest, slot)) = segments.last_key_value() {
        let oldest = declared_oldest(newest, slot)?;
        let needed = segments.split_off(&oldest);
        // Dropped, and not used again yet.
        spares.extend(std::mem::replace(&mut segments, needed).into_values());
        (damage, tail) = reading.segments(segments, oldest, newest, path)?;
        // What was written again in what cannot be read is missing then.
        if let Some(damage) = damage.take_if(|_| reading.oldest != oldest) {
            return Err(Error::Damaged(damage));
        }
    }
    let (next, last_name, bytes) = match tail {
        Some(next) => (next, last_name, bytes),
        None => (begin(path, &mut reading, last_name + 1)?, last_name + 1, bytes + LEAST_SEGMENT_BYTES),
    };
    // A process that was killed may have written what it never waited for.
    next.slot.file.sync_data().map_err(|e| failed("opening the store's files", &next.slot.path, &e))?;
    Ok(reading.into_opened(path, next, spares, last_name, bytes, damage))
}

/// The first segment of a new log, without anything in it yet.
fn begin(path: &Path, reading: &mut Reading, name: u64) -> Result<Next, Error> {
    let slot = Slot::create(path, name, LEAST_SEGMENT_BYTES)?;
    let link = Link { number: 1, previous: 0, segment: 1, nonce: rand::random() };
    reading.oldest = 1;
    Ok(Next { slot: Arc::new(slot), at: 0, link, prepared: 0 })
}

/// Where no segment begins there was never one: no frame is behind those of the first write, which may be torn.
fn check_new(path: &Path, slots: &[Slot]) -> Result<(), Error> {
    for slot in slots {
        if good_frame_behind(slot, 0, |link| link.number > FIRST_WRITE_FRAMES)? {
            return Err(Error::Damaged(format!("{}: no segment begins in these files", path.display())));
        }
    }
    Ok(())
}

/// The number of the segment in a file; `None`: it is spare.
fn number_of(slot: &Slot) -> Result<Option<u64>, Error> {
    let mut number = None;
    walk(slot, None, &mut |_, header, _| {
        number = Some(header.link.segment);
        Ok(false)
    })?;
    Ok(number)
}

/// The oldest segment that is needed, by what the newest one says.
fn declared_oldest(newest: u64, slot: &Slot) -> Result<u64, Error> {
    let mut oldest = newest;
    walk(slot, None, &mut |_, _, frame| {
        for entry in Entries::of(frame).flatten() {
            if let Entry::Oldest(segment) = entry {
                oldest = segment;
            }
        }
        Ok(true)
    })?;
    Ok(oldest)
}

/// Told of a frame: where it is, its header, its bytes. Whether to go on.
type Visit<'a> = dyn FnMut(u64, &Header, &[u8]) -> Result<bool, Error> + 'a;

/// Where the good frames of a file end, and what the next one's link would be.
struct End {
    at: u64,
    link: Option<Link>,
}

/// Go through the frames of a file as long as they are good and follow each other. `link`: what the first one's has to be,
/// but for its segment.
fn walk(slot: &Slot, mut link: Option<Link>, visit: &mut Visit<'_>) -> Result<End, Error> {
    let (mut window, mut at) = (Window::default(), 0);
    while let Some(header) = Header::decode(window.read(slot, at, HEADER)?) {
        let follows = link.is_none_or(|link| {
            // The head of the next segment has a segment and a nonce of its own.
            let same = at == 0 || (link.segment, link.nonce) == (header.link.segment, header.link.nonce);
            same && (link.number, link.previous) == (header.link.number, header.link.previous)
        });
        let frame = window.read(slot, at, HEADER + header.length)?;
        if !follows || !is_whole(frame, &header) {
            break;
        }
        let go_on = visit(at, &header, frame)?;
        at += header.room() as u64;
        link = Some(header.link.next(header.crc));
        if !go_on {
            break;
        }
    }
    Ok(End { at, link })
}

/// Whether there is such a good frame somewhere behind a place.
fn good_frame_behind(slot: &Slot, at: u64, wanted: impl Fn(&Link) -> bool) -> Result<bool, Error> {
    let (mut window, mut at) = (Window::default(), at + BLOCK as u64);
    while at < slot.length {
        if let Some(header) = Header::decode(window.read(slot, at, HEADER)?)
            && wanted(&header.link)
            && is_whole(window.read(slot, at, HEADER + header.length)?, &header)
        {
            return Ok(true);
        }
        at += BLOCK as u64;
    }
    Ok(false)
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    records: BTreeMap<Place, (Key, Version, Location)>,
    segments: BTreeMap<u32, Arc<Slot>>,
    leases: BTreeMap<LeaseId, LeaseEntry>,
    notes: Notes,
    oldest: u64,
}

impl Reading {
    /// Read segments in their order. Gives what is wrong behind what was read, if something is, and where the log ends.
    fn segments(
        &mut self,
        mut slots: BTreeMap<u64, Slot>,
        oldest: u64,
        newest: u64,
        path: &Path,
    ) -> Result<(Option<String>, Option<Next>), Error> {
        let mut next: Option<Next> = None;
        for number in oldest..=newest {
            let Some(slot) = slots.remove(&number) else {
                return Ok((Some(format!("{}: segment {number} is missing", path.display())), next));
            };
            let slot = Arc::new(slot);
            self.segments.insert(number as u32, slot.clone());
            let link = next.as_ref().map(|next| next.link);
            let end = walk(&slot, link, &mut |at, _, frame| {
                self.frame(number as u32, at, frame)
                    .ok_or_else(|| Error::Damaged(format!("{}: not a store of this version", slot.path.display())))?;
                Ok(true)
            })?;
            let bad = Some(format!("{}: the frame at {} is damaged", slot.path.display(), end.at));
            let Some(link) = end.link.filter(|_| end.at > 0) else { return Ok((bad, next)) };
            let prepared = slot.written_from(end.at);
            next = Some(Next { slot: slot.clone(), at: end.at, link, prepared });
            // Elsewhere the next segment's head tells whether frames are missing.
            let later =
                |found: &Link| (found.segment, found.nonce) == (link.segment, link.nonce) && found.number > link.number;
            if number == newest && good_frame_behind(&slot, end.at, later)? {
                return Ok((bad, next));
            }
        }
        Ok((None, next))
    }

    /// Take in a frame. `None`: there are entries that nobody here knows.
    fn frame(&mut self, segment: u32, at: u64, frame: &[u8]) -> Option<()> {
        for entry in Entries::of(frame) {
            match entry? {
                Entry::Record { place, at: offset, bytes } => {
                    let record = decode(checked(frame.get(offset..offset + 4 + bytes.len())?)?)?;
                    let location = Location { segment, at: (at + offset as u64) as u32, length: bytes.len() as u32 };
                    let version = version(place, &record, bytes.len());
                    self.records.insert(place, (Key::from(record.key), version, location));
                }
                Entry::Gone(place) => drop(self.records.remove(&place)),
                Entry::Lease(id, Some(entry)) => drop(self.leases.insert(id, entry)),
                Entry::Lease(id, None) => drop(self.leases.remove(&id)),
                Entry::Notes(notes) => self.notes = self.notes.with(notes),
                Entry::Oldest(segment) => self.oldest = segment,
                Entry::Head => self.leases.clear(),
            }
        }
        Some(())
    }

    fn into_opened(
        self,
        path: &Path,
        next: Next,
        spares: Vec<Slot>,
        last_name: u64,
        bytes: u64,
        damage: Option<String>,
    ) -> Opened {
        let (mut index, mut last, mut live) = (Index::default(), 1, 0);
        let mut places = Vec::with_capacity(self.records.len());
        for (place, (key, version, location)) in self.records {
            index.push_key(key, version);
            places.push((place, location));
            live += u64::from(location.length);
            last = place.revision;
        }
        let records = places.into_iter().collect();
        let tail = Tail {
            next,
            leases: self.leases.clone(),
            notes: self.notes,
            oldest: self.oldest,
            gone: Vec::new(),
            spares,
            last_name,
            pressed: false,
            stuck: false,
            failed: None,
            cleaning: None,
            buffer: Vec::new(),
        };
        let engine = Log {
            path: path.to_owned(),
            table: RwLock::new(Table { records, segments: self.segments, live }),
            tail: Mutex::new(tail),
            bytes: AtomicU64::new(bytes),
            written: AtomicU64::new(0),
        };
        let (leases, notes) = (self.leases.into_iter().collect(), self.notes);
        Opened { engine: Arc::new(engine), index, last, leases, notes, damage }
    }
}
