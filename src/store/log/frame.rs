//! Frames: what is written at once and is there as a whole or not at all.
//!
//! A frame begins on a block boundary and takes whole blocks, so that a block that was acknowledged is never written
//! again (flash that loses power while it writes may lose what was there before):
//!
//! | bytes | |
//! |---|---|
//! | 4 | `kdgl` |
//! | 4 | length of the entries |
//! | 4 | CRC-32 over everything but itself |
//! | 4 | CRC-32 of the frame before, also across segments: frames are a chain |
//! | 8 | number of the frame |
//! | 8 | number of the segment |
//! | 8 | a random number of the segment, so that no value looks like a frame |
//! | … | entries, one after the other, each a kind and its fields; zeros up to the end of the block |
//!
//! Numbers of fixed length are little endian, others varints. A record's own CRC-32 covers its bytes: it is checked when one
//! value is read.

use crate::store::LeaseId;
use crate::store::local::engine::{LeaseChange, LeaseEntry, Notes, Reserved};
use crate::store::local::record::Place;
use crate::store::varint::{put_varint, varint};

/// Frames begin at multiples of this. A file system's usual block, and what flash programs at least.
pub const BLOCK: usize = 4096;

pub const HEADER: usize = 40;

const MAGIC: [u8; 4] = *b"kdgl";

/// Longest frame that is believed: the longest transaction with its records' overhead, and more removals than can wait.
pub const MAX_ENTRIES: usize = 64 << 20;

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub number: u64,
    /// CRC of the frame before.
    pub previous: u32,
    pub segment: u64,
    pub nonce: u64,
}

impl Link {
    /// Of the frame behind the one with this link and CRC.
    pub fn next(self, crc: u32) -> Link {
        Link { number: self.number + 1, previous: crc, ..self }
    }
}

/// A frame's header, which may be anything before its CRC was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of entries.
    pub length: usize,
    pub crc: u32,
    pub link: Link,
}

impl Header {
    /// `None`: no frame begins here.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let length = word(4)? as usize;
        if bytes.get(..4)? != MAGIC || length > MAX_ENTRIES {
            return None;
        }
        let link = Link { number: long(16)?, previous: word(12)?, segment: long(24)?, nonce: long(32)? };
        Some(Header { length, crc: word(8)?, link })
    }

    /// Bytes of the file that the frame takes.
    pub fn room(&self) -> usize {
        room(self.length)
    }
}

/// Bytes of the file that a frame with so many bytes of entries takes.
pub fn room(entries: usize) -> usize {
    (HEADER + entries).next_multiple_of(BLOCK)
}

/// Whether the bytes of a frame (header and entries) are what was written.
pub fn is_whole(frame: &[u8], header: &Header) -> bool {
    frame.len() == HEADER + header.length && crc_of(frame) == header.crc
}

fn crc_of(frame: &[u8]) -> u32 {
    let (before, behind) = (&frame[..8], &frame[12..]);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(before);
    hasher.update(behind);
    hasher.finalize()
}

/// A frame in the making.
pub struct Frame(Vec<u8>);

impl Frame {
    /// `buffer`: to be used again.
    pub fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER, 0);
        Frame(buffer)
    }

    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER
    }

    /// Bytes of the file that it takes.
    pub fn room(&self) -> usize {
        room(self.0.len() - HEADER)
    }

    /// Add a record. Gives where in the frame its CRC is, which its bytes follow.
    pub fn record(&mut self, place: Place, crc: u32, bytes: &[u8]) -> usize {
        self.0.push(RECORD);
        put_varint(&mut self.0, place.revision);
        put_varint(&mut self.0, place.sub.into());
        put_varint(&mut self.0, bytes.len() as u64);
        let at = self.0.len();
        self.0.extend_from_slice(&crc.to_le_bytes());
        self.0.extend_from_slice(bytes);
        at
    }

    pub fn gone(&mut self, place: Place) {
        self.0.push(GONE);
        put_varint(&mut self.0, place.revision);
        put_varint(&mut self.0, place.sub.into());
    }

    pub fn lease(&mut self, id: LeaseId, change: LeaseChange) {
        let (LeaseChange::Add(entry) | LeaseChange::Note(entry)) = change else {
            self.0.push(LEASE_GONE);
            return self.0.extend_from_slice(&id.0.to_le_bytes());
        };
        self.0.push(if entry.remaining.is_some() { LEASE_LEFT } else { LEASE });
        self.0.extend_from_slice(&id.0.to_le_bytes());
        put_varint(&mut self.0, entry.granted.into());
        if let Some(remaining) = entry.remaining {
            put_varint(&mut self.0, remaining.into());
        }
    }

    pub fn notes(&mut self, notes: &Notes) {
        let mut number = |kind: u8, value: u64| {
            self.0.push(kind);
            put_varint(&mut self.0, value);
        };
        if let Some(revision) = notes.compacted {
            number(COMPACTED, revision);
        }
        if let Some(Reserved { revision, clean }) = notes.reserved {
            number(if clean { RESERVED_CLEAN } else { RESERVED }, revision);
        }
        if let Some(revision) = notes.floor {
            number(FLOOR, revision);
        }
    }

    /// The oldest segment that is needed.
    pub fn oldest(&mut self, segment: u64) {
        self.0.push(OLDEST);
        put_varint(&mut self.0, segment);
    }

    /// Say that a segment begins here; leases and notes follow as they are now.
    pub fn head(&mut self) {
        self.0.extend_from_slice(&[HEAD, FORMAT]);
    }

    /// The bytes to be written, and the frame's CRC.
    pub fn finish(mut self, link: Link) -> (Vec<u8>, u32) {
        let length = (self.0.len() - HEADER) as u32;
        let header = &mut self.0[..HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[12..16].copy_from_slice(&link.previous.to_le_bytes());
        header[16..24].copy_from_slice(&link.number.to_le_bytes());
        header[24..32].copy_from_slice(&link.segment.to_le_bytes());
        header[32..40].copy_from_slice(&link.nonce.to_le_bytes());
        let crc = crc_of(&self.0);
        self.0[8..12].copy_from_slice(&crc.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        (self.0, crc)
    }
}

const RECORD: u8 = 1;
const GONE: u8 = 2;
const LEASE: u8 = 3;
/// A lease with its remaining seconds.
const LEASE_LEFT: u8 = 4;
const LEASE_GONE: u8 = 5;
const COMPACTED: u8 = 6;
const RESERVED: u8 = 7;
const RESERVED_CLEAN: u8 = 8;
const FLOOR: u8 = 9;
const OLDEST: u8 = 10;
const HEAD: u8 = 11;

/// Layout of entries; others are refused.
const FORMAT: u8 = 1;

/// An entry of a frame that was read.
#[derive(Debug, PartialEq)]
pub enum Entry<'a> {
    /// `at`: where in the frame its CRC is, which its bytes follow.
    Record {
        place: Place,
        at: usize,
        bytes: &'a [u8],
    },
    Gone(Place),
    /// `None`: it is gone.
    Lease(LeaseId, Option<LeaseEntry>),
    Notes(Notes),
    Oldest(u64),
    Head,
}

/// The entries of a whole frame. `None` for bytes that are no entry: those of another version.
pub struct Entries<'a> {
    length: usize,
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Of a frame's bytes: header and entries.
    pub fn of(frame: &'a [u8]) -> Self {
        Entries { length: frame.len(), rest: frame.get(HEADER..).unwrap_or_default() }
    }

    fn read(&mut self) -> Option<Entry<'a>> {
        let (&kind, mut rest) = self.rest.split_first()?;
        let length = self.length;
        let rest = &mut rest;
        let entry = match kind {
            RECORD => {
                let (place, bytes) = (read_place(rest)?, usize::try_from(varint(rest)?).ok()?);
                let at = length - rest.len();
                *rest = rest.get(4..)?;
                Entry::Record { place, at, bytes: take(rest, bytes)? }
            }
            GONE => Entry::Gone(read_place(rest)?),
            LEASE | LEASE_LEFT => {
                let (id, granted) = (read_lease_id(rest)?, u32::try_from(varint(rest)?).ok()?);
                let remaining = if kind == LEASE_LEFT { Some(u32::try_from(varint(rest)?).ok()?) } else { None };
                Entry::Lease(id, Some(LeaseEntry { granted, remaining }))
            }
            LEASE_GONE => Entry::Lease(read_lease_id(rest)?, None),
            COMPACTED => Entry::Notes(Notes { compacted: Some(varint(rest)?), ..Notes::default() }),
            RESERVED | RESERVED_CLEAN => {
                let reserved = Some(Reserved { revision: varint(rest)?, clean: kind == RESERVED_CLEAN });
                Entry::Notes(Notes { reserved, ..Notes::default() })
            }
            FLOOR => Entry::Notes(Notes { floor: Some(varint(rest)?), ..Notes::default() }),
            OLDEST => Entry::Oldest(varint(rest)?),
            HEAD if take(rest, 1)? == [FORMAT] => Entry::Head,
            _ => return None,
        };
        self.rest = rest;
        Some(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_none() {
            self.rest = &[];
        }
        Some(entry)
    }
}

/// Whether these bytes are a frame all entries of which can be read.
#[cfg(fuzzing)]
pub fn is_readable(bytes: &[u8]) -> bool {
    let Some(header) = Header::decode(bytes) else { return false };
    let entries = |frame: &[u8]| {
        Entries::of(frame).all(|entry| match entry {
            Some(Entry::Record { bytes, .. }) => crate::store::local::record::decode(bytes).is_some(),
            entry => entry.is_some(),
        })
    };
    // Also what a wrong CRC would keep away.
    let readable = entries(bytes);
    readable && is_whole(bytes, &header)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(bytes)?;
    *rest = behind;
    Some(taken)
}

fn read_place(rest: &mut &[u8]) -> Option<Place> {
    Some(Place { revision: varint(rest)?, sub: u32::try_from(varint(rest)?).ok()? })
}

fn read_lease_id(rest: &mut &[u8]) -> Option<LeaseId> {
    Some(LeaseId(i64::from_le_bytes(take(rest, 8)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { number: 7, previous: 5, segment: 3, nonce: 99 };

    #[test]
    fn what_is_put_into_a_frame_comes_back() {
        let place = |revision, sub| Place { revision, sub };
        let entry = LeaseEntry { granted: 60, remaining: None };
        let left = LeaseEntry { granted: u32::MAX, remaining: Some(0) };
        let notes =
            Notes { compacted: Some(9), reserved: Some(Reserved { revision: u64::MAX, clean: false }), floor: Some(0) };
        let mut frame = Frame::new(vec![1; 100]);
        assert!(frame.is_empty());
        frame.head();
        let at = [frame.record(place(u64::MAX, 3), 11, b"first"), frame.record(place(2, u32::MAX), 12, b"")];
        frame.gone(place(8, 1));
        frame.lease(LeaseId(-4), LeaseChange::Add(entry));
        frame.lease(LeaseId(i64::MAX), LeaseChange::Note(left));
        frame.lease(LeaseId(5), LeaseChange::Remove);
        frame.notes(&notes);
        frame.oldest(300);
        let room = frame.room();
        let (bytes, crc) = frame.finish(LINK);
        assert_eq!((bytes.len(), bytes.len() % BLOCK), (room, 0));
        let header = Header::decode(&bytes).expect("is one");
        assert_eq!((header.link, header.crc, header.room()), (LINK, crc, room));
        let frame = &bytes[..HEADER + header.length];
        assert!(is_whole(frame, &header));
        let entries: Option<Vec<Entry<'_>>> = Entries::of(frame).collect();
        let mut entries = entries.expect("all are known").into_iter();
        let mut next = || entries.next().expect("one more");
        assert_eq!(next(), Entry::Head);
        assert_eq!(next(), Entry::Record { place: place(u64::MAX, 3), at: at[0], bytes: b"first" });
        assert_eq!(frame[at[0]..at[0] + 9], *b"\x0b\0\0\0first");
        assert_eq!(next(), Entry::Record { place: place(2, u32::MAX), at: at[1], bytes: b"" });
        assert_eq!(next(), Entry::Gone(place(8, 1)));
        assert_eq!(next(), Entry::Lease(LeaseId(-4), Some(entry)));
        assert_eq!(next(), Entry::Lease(LeaseId(i64::MAX), Some(left)));
        assert_eq!(next(), Entry::Lease(LeaseId(5), None));
        let noted = [next(), next(), next()].into_iter().fold(Notes::default(), |noted, entry| match entry {
            Entry::Notes(newer) => noted.with(newer),
            other => panic!("{other:?}"),
        });
        assert_eq!((noted, next()), (notes, Entry::Oldest(300)));
        assert_eq!(entries.next(), None);
    }

    #[test]
    fn every_bit_of_a_frame_counts() {
        let mut frame = Frame::new(Vec::new());
        frame.record(Place { revision: 4, sub: 0 }, 1, b"something");
        let (bytes, _) = frame.finish(LINK);
        let header = Header::decode(&bytes).expect("is one");
        let whole = &bytes[..HEADER + header.length];
        for at in 0..whole.len() * 8 {
            let mut damaged = whole.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            let found = Header::decode(&damaged);
            assert!(found.is_none_or(|header| !is_whole(&damaged, &header)), "bit {at}");
        }
        for length in 0..whole.len() {
            assert!(!is_whole(&whole[..length], &header), "{length} bytes");
        }
    }

    #[test]
    fn entries_of_another_version_are_not_guessed_at() {
        for entries in [&[0][..], &[12], &[RECORD, 1], &[RECORD, 1, 1, 9, 0, 0, 0, 0, 1], &[HEAD, FORMAT + 1], &[GONE]]
        {
            let frame = [&[0; HEADER], entries].concat();
            assert_eq!(Entries::of(&frame).collect::<Vec<_>>(), [None]);
        }
    }
}
