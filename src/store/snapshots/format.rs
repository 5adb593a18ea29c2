//! The file format of a snapshot: what a [`crate::store::Snapshot`] gives, compressed, each frame under a checksum that
//! also covers all frames before it.
//!
//! ```text
//! magic, revision (u64)
//! frame: length (u32), checksum (32 bytes), zstd of records     … any number
//! end:   0 (u32),      checksum (32 bytes), number of records (u64)
//! record: 0 (put) or 1 (delete), sub, key length, key, create, mod, version, lease, value length, value
//!         2 (lease), id, seconds granted, seconds remaining                        numbers as LEB128
//! ```
//!
//! Fixed numbers are big endian. A frame's checksum is SHA-256 over the checksum before it and the bytes behind it; the
//! first one covers magic and revision.

use crate::store::varint::{put_varint, varint};
use crate::store::{EventKind, KeyValue, LeaseId, LeaseStatus, Revision, Write};
use bytes::{BufMut, Bytes};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use std::io::{self, Read};

const MAGIC: &[u8; 16] = b"kedge-snapshot-1";

/// Records are compressed together up to this size; longer values make longer frames.
pub const FRAME_BYTES: usize = 256 << 10;

/// Longest frame that is read: a value of the largest transaction with room for its key.
const MAX_FRAME_BYTES: usize = 16 << 20;

const COMPRESS_LEVEL: i32 = 3;

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Lease(LeaseStatus),
    Write(Write),
}

const PUT: u8 = 0;
const DELETE: u8 = 1;
const LEASE: u8 = 2;

type Checksum = [u8; SHA256_OUTPUT_LEN];

fn checksum(previous: &[u8], bytes: &[u8]) -> Checksum {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(bytes);
    let mut sum = Checksum::default();
    sum.copy_from_slice(context.finish().as_ref());
    sum
}

fn head(revision: Revision) -> [u8; 24] {
    let mut head = [0; 24];
    head[..16].copy_from_slice(MAGIC);
    head[16..].copy_from_slice(&revision.0.to_be_bytes());
    head
}

/// Writes a snapshot; [`Writer::finish`] makes it complete.
pub struct Writer<W> {
    out: W,
    sum: Checksum,
    frame: Vec<u8>,
    records: u64,
}

impl<W: io::Write> Writer<W> {
    pub fn new(mut out: W, revision: Revision) -> io::Result<Self> {
        let head = head(revision);
        out.write_all(&head)?;
        Ok(Writer { out, sum: checksum(&[], &head), frame: Vec::new(), records: 0 })
    }

    pub fn lease(&mut self, lease: &LeaseStatus) -> io::Result<()> {
        self.frame.push(LEASE);
        for number in [lease.id.0 as u64, lease.granted.into(), lease.remaining.into()] {
            put_varint(&mut self.frame, number);
        }
        self.end_record()
    }

    pub fn add(&mut self, write: &Write) -> io::Result<()> {
        let (frame, kv) = (&mut self.frame, &write.kv);
        frame.push(if write.kind == EventKind::Put { PUT } else { DELETE });
        put_varint(frame, write.sub.into());
        put_bytes(frame, &kv.key);
        for number in [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease.0 as u64] {
            put_varint(frame, number);
        }
        put_bytes(frame, &kv.value);
        self.end_record()
    }

    fn end_record(&mut self) -> io::Result<()> {
        self.records += 1;
        if self.frame.len() >= FRAME_BYTES { self.write_frame() } else { Ok(()) }
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let packed = zstd::bulk::compress(&self.frame, COMPRESS_LEVEL)?;
        self.frame.clear();
        self.write(packed.len(), &packed)
    }

    fn write(&mut self, length: usize, bytes: &[u8]) -> io::Result<()> {
        self.sum = checksum(&self.sum, bytes);
        self.out.write_all(&u32::try_from(length).map_err(io::Error::other)?.to_be_bytes())?;
        self.out.write_all(&self.sum)?;
        self.out.write_all(bytes)
    }

    /// Write what is left and the end; gives the number of records, and what it wrote to.
    pub fn finish(mut self) -> io::Result<(u64, W)> {
        if !self.frame.is_empty() {
            self.write_frame()?;
        }
        self.write(0, &self.records.to_be_bytes())?;
        Ok((self.records, self.out))
    }
}

/// Reads a snapshot. What it gives has passed its checksum; only after the last one is the snapshot known to be whole.
pub struct Reader<R> {
    input: R,
    revision: Revision,
    sum: Checksum,
    records: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut start = [0; 24];
        input.read_exact(&mut start)?;
        let (magic, revision) = start.split_at(16);
        let revision = Revision(u64::from_be_bytes(revision.try_into().map_err(|_| damaged())?));
        if magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a snapshot of a kedge store"));
        }
        Ok(Reader { input, revision, sum: checksum(&[], &start), records: 0 })
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The next frame's records, in order; None at the end of a whole snapshot.
    pub fn frame(&mut self) -> io::Result<Option<Vec<Item>>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(damaged());
        }
        let mut wanted = Checksum::default();
        self.input.read_exact(&mut wanted)?;
        let mut bytes = vec![0; if length == 0 { 8 } else { length }];
        self.input.read_exact(&mut bytes)?;
        self.sum = checksum(&self.sum, &bytes);
        if self.sum != wanted {
            return Err(damaged());
        }
        if length == 0 {
            let records = u64::from_be_bytes(bytes.as_slice().try_into().map_err(|_| damaged())?);
            return if records == self.records { Ok(None) } else { Err(damaged()) };
        }
        let records = zstd::bulk::decompress(&bytes, MAX_FRAME_BYTES)?;
        let mut rest = &records[..];
        let mut items = Vec::new();
        while !rest.is_empty() {
            items.push(record(&mut rest).ok_or_else(damaged)?);
        }
        self.records += items.len() as u64;
        Ok(Some(items))
    }
}

fn record(rest: &mut &[u8]) -> Option<Item> {
    let (&kind, behind) = rest.split_first()?;
    *rest = behind;
    let kind = match kind {
        PUT => EventKind::Put,
        DELETE => EventKind::Delete,
        LEASE => {
            let id = LeaseId(varint(rest)? as i64);
            let granted = u32::try_from(varint(rest)?).ok()?;
            let remaining = u32::try_from(varint(rest)?).ok()?;
            return Some(Item::Lease(LeaseStatus { id, granted, remaining }));
        }
        _ => return None,
    };
    let sub = u32::try_from(varint(rest)?).ok()?;
    let key = take_bytes(rest)?;
    let create_revision = Revision(varint(rest)?);
    let mod_revision = Revision(varint(rest)?);
    let version = varint(rest)?;
    let lease = LeaseId(varint(rest)? as i64);
    let value = take_bytes(rest)?;
    Some(Item::Write(Write { sub, kind, kv: KeyValue { key, value, create_revision, mod_revision, version, lease } }))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged")
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn take_bytes(rest: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: u64) -> Item {
        if number % 50 == 49 {
            return Item::Lease(LeaseStatus { id: LeaseId(-7), granted: 60, remaining: number as u32 });
        }
        let deleted = number % 11 == 5;
        let kv = KeyValue {
            key: format!("/registry/{number:05}").into(),
            value: vec![number as u8; if deleted { 0 } else { (number as usize % 7) * 997 }].into(),
            create_revision: Revision(number),
            mod_revision: Revision(number * 3),
            version: number % 5 + 1,
            lease: LeaseId(number as i64 % 3 - 1),
        };
        let kind = if deleted { EventKind::Delete } else { EventKind::Put };
        Item::Write(Write { sub: number as u32 % 2, kind, kv })
    }

    fn snapshot(records: u64) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), Revision(77)).expect("starts");
        for number in 0..records {
            match item(number) {
                Item::Lease(lease) => writer.lease(&lease),
                Item::Write(write) => writer.add(&write),
            }
            .expect("adds");
        }
        let (written, bytes) = writer.finish().expect("finishes");
        assert_eq!(written, records);
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<(Revision, Vec<Item>)> {
        let mut reader = Reader::new(bytes)?;
        let mut all = Vec::new();
        while let Some(items) = reader.frame()? {
            all.extend(items);
        }
        Ok((reader.revision(), all))
    }

    #[test]
    fn what_is_written_is_read() {
        for records in [0, 1, 500] {
            let (revision, all) = read(&snapshot(records)).expect("reads");
            assert_eq!((revision, all), (Revision(77), (0..records).map(item).collect()));
        }
    }

    #[test]
    fn no_damage_passes() {
        let whole = snapshot(200);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(read(&bytes).is_err(), "flipped at {at}");
        }
    }
}
