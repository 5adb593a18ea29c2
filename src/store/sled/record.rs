//! How the store's entries look in sled: five kinds of keys in one keyspace.
//!
//! | key | value |
//! |---|---|
//! | `l` id | a lease: seconds granted, seconds remaining (if noted down) |
//! | `m` name | metadata: `format`, `reserved` and `floor` of the memory tier |
//! | `p` revision sub piece | part of a value that is too long for its record |
//! | `r` revision sub | one write of one key: a [`Record`] |
//! | `s` | the census, with the compacted revision |
//!
//! Revision, sub (position of the write in its transaction) and piece are big endian, so `r` entries are the history in
//! order, and writes append. What shares a barrier is one batch of sled's, there or not there as a whole. (Older versions
//! wrote one by one. So the last record of a transaction carries [`LAST`]: a transaction without it was never
//! acknowledged, and is removed on open.)

use crate::store::varint::{put_varint, varint};
use crate::store::{LeaseId, MAX_TXN_BYTES};
use bytes::{BufMut, Bytes};

/// Longest value that is ever given to sled. Its leaves split by count: a leaf holds up to 16 entries, 19 after a merge
/// with a sibling of three, and one more before it is split; a leaf of a quarter segment (128 KiB) or more would go to
/// a file of its own that sled never syncs. 20 x (6000 + keys) stays below.
pub const ITEM_BYTES: usize = 6000;

/// Shortest value that is worth compressing.
const COMPRESS_BYTES: usize = 256;

/// zstd's fastest level with entropy coding: decompression speed is what lists pay for.
pub const COMPRESS_LEVEL: i32 = 1;

/// Longest value that is unpacked: no transaction can write a longer one.
const MAX_RAW_BYTES: usize = MAX_TXN_BYTES;

const DELETED: u8 = 1;
const LAST: u8 = 2;
const COMPRESSED: u8 = 4;
const PIECES: u8 = 8;
/// The lease follows the version. New with format 2.
const LEASED: u8 = 16;

/// Where a write is: its transaction's revision and its position there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub revision: u64,
    pub sub: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}/{}", self.revision, self.sub)
    }
}

impl Place {
    pub fn key(self) -> [u8; 13] {
        let mut key = [b'r'; 13];
        key[1..9].copy_from_slice(&self.revision.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    pub fn piece_key(self, piece: u16) -> [u8; 15] {
        let mut key = [b'p'; 15];
        key[1..13].copy_from_slice(&self.key()[1..]);
        key[13..].copy_from_slice(&piece.to_be_bytes());
        key
    }

    /// The place in a record's or piece's key.
    pub fn parse(key: &[u8]) -> Option<Place> {
        let revision = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
        let sub = u32::from_be_bytes(key.get(9..13)?.try_into().ok()?);
        Some(Place { revision, sub })
    }
}

/// One write of one key, decoded but for its value.
#[derive(Debug, PartialEq)]
pub struct Record<'a> {
    pub deleted: bool,
    /// Last write of its transaction.
    pub last: bool,
    pub key: &'a [u8],
    pub create: u64,
    pub version: u64,
    pub lease: LeaseId,
    pub value: Value<'a>,
}

/// Where a record's value is. `raw` is its uncompressed length; 0 if it is not compressed.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    Inline { raw: usize, bytes: &'a [u8] },
    Pieces { raw: usize, count: u16 },
}

/// A record to write, with the pieces of its value, in the order in which they have to be inserted.
pub struct Encoded {
    pub pieces: Vec<Vec<u8>>,
    pub record: Vec<u8>,
}

impl Encoded {
    /// Bytes that go to sled.
    pub fn stored(&self) -> usize {
        self.record.len() + self.pieces.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether it is a key's deletion.
    pub fn deletes(&self) -> bool {
        self.record.first().is_some_and(|flags| flags & DELETED != 0)
    }

    /// Mark the record as the last of its transaction.
    pub fn mark_last(&mut self) {
        if let Some(flags) = self.record.first_mut() {
            *flags |= LAST;
        }
    }
}

pub struct Write<'a> {
    pub key: &'a [u8],
    /// `None`: the key is deleted.
    pub value: Option<&'a [u8]>,
    pub create: u64,
    pub version: u64,
    pub lease: LeaseId,
}

/// Turns writes into records.
pub struct Encoder(Option<zstd::bulk::Compressor<'static>>);

impl Encoder {
    pub fn new() -> Self {
        Encoder(zstd::bulk::Compressor::new(COMPRESS_LEVEL).ok())
    }

    pub fn encode(&mut self, write: &Write<'_>) -> Encoded {
        let value = write.value.unwrap_or_default();
        let compressed = self.compress(value);
        let stored = compressed.as_deref().unwrap_or(value);
        let head = 1 + 5 * 10 + write.key.len();
        let in_pieces = head + stored.len() > ITEM_BYTES;
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let mut out = Vec::with_capacity(head + if in_pieces { 0 } else { stored.len() });
        out.push(
            flag(write.value.is_none(), DELETED)
                | flag(compressed.is_some(), COMPRESSED)
                | flag(in_pieces, PIECES)
                | flag(!write.lease.is_none(), LEASED),
        );
        put_varint(&mut out, write.key.len() as u64);
        out.put_slice(write.key);
        put_varint(&mut out, write.create);
        put_varint(&mut out, write.version);
        if !write.lease.is_none() {
            put_varint(&mut out, write.lease.0 as u64);
        }
        if compressed.is_some() {
            put_varint(&mut out, value.len() as u64);
        }
        if !in_pieces {
            out.put_slice(stored);
            return Encoded { pieces: Vec::new(), record: out };
        }
        let pieces: Vec<Vec<u8>> = stored.chunks(ITEM_BYTES).map(<[u8]>::to_vec).collect();
        put_varint(&mut out, pieces.len() as u64);
        Encoded { pieces, record: out }
    }

    /// The compressed value, if that is clearly shorter.
    fn compress(&mut self, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() < COMPRESS_BYTES {
            return None;
        }
        let compressed = self.0.as_mut()?.compress(value).ok()?;
        (compressed.len() < value.len() - value.len() / 8).then_some(compressed)
    }
}

/// Decode a record; `None` if the bytes are not one.
pub fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let (&flags, mut rest) = bytes.split_first()?;
    let key_len = usize::try_from(varint(&mut rest)?).ok()?;
    let (key, mut rest) = rest.split_at_checked(key_len)?;
    let create = varint(&mut rest)?;
    let version = varint(&mut rest)?;
    let lease = if flags & LEASED != 0 { LeaseId(varint(&mut rest)? as i64) } else { LeaseId::NONE };
    let raw = if flags & COMPRESSED != 0 { usize::try_from(varint(&mut rest)?).ok()? } else { 0 };
    if raw > MAX_RAW_BYTES {
        return None;
    }
    let value = if flags & PIECES != 0 {
        Value::Pieces { raw, count: u16::try_from(varint(&mut rest)?).ok()? }
    } else {
        Value::Inline { raw, bytes: rest }
    };
    Some(Record { deleted: flags & DELETED != 0, last: flags & LAST != 0, key, create, version, lease, value })
}

/// Whether these are key and value of an entry that can be read.
#[cfg(fuzzing)]
pub fn is_readable(key: &[u8], value: &[u8]) -> bool {
    let record = || match decode(value)?.value {
        Value::Inline { raw, bytes } => unpack(bytes, raw).ok().map(drop),
        Value::Pieces { .. } => Some(()),
    };
    match key.first() {
        Some(b'l') => decode_lease(key, value).is_some(),
        _ => Place::parse(key).is_some() && record().is_some(),
    }
}

/// Key of a lease.
pub fn lease_key(id: LeaseId) -> [u8; 9] {
    let mut key = [b'l'; 9];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

/// A lease's entry: seconds granted and, if noted down, remaining.
pub fn encode_lease(granted: u32, remaining: Option<u32>) -> Vec<u8> {
    let mut out = granted.to_be_bytes().to_vec();
    out.extend(remaining.into_iter().flat_map(u32::to_be_bytes));
    out
}

/// A lease from its key and value; `None` if they are not one.
pub fn decode_lease(key: &[u8], value: &[u8]) -> Option<(LeaseId, u32, Option<u32>)> {
    let id = LeaseId(i64::from_be_bytes(key.strip_prefix(b"l")?.try_into().ok()?));
    let (granted, remaining) = value.split_first_chunk()?;
    let remaining = if remaining.is_empty() { None } else { Some(u32::from_be_bytes(remaining.try_into().ok()?)) };
    Some((id, u32::from_be_bytes(*granted), remaining))
}

/// Stored bytes to value.
pub fn unpack(stored: &[u8], raw: usize) -> std::io::Result<Bytes> {
    thread_local! {
        static DECOMPRESSOR: std::cell::RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { std::cell::RefCell::new(None) };
    }
    if raw == 0 {
        return Ok(Bytes::copy_from_slice(stored));
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(zstd::bulk::Decompressor::new()?),
        };
        Ok(decompressor.decompress(stored, raw)?.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u8
            })
            .collect()
    }

    #[test]
    fn records_survive_a_round_trip() {
        let long_key = vec![b'k'; 2048];
        // (key, value, pieces beside the record)
        type Case<'a> = (&'a [u8], Option<Vec<u8>>, usize);
        let cases: [Case; 8] = [
            (b"/registry/a", None, 0),
            (b"/registry/a", Some(vec![]), 0),
            (b"/registry/a", Some(b"{}".to_vec()), 0),
            (b"/registry/a", Some(vec![b'x'; 100_000]), 0),
            (b"/registry/a", Some(noise(5_900)), 0),
            (b"/registry/a", Some(noise(6_000)), 1),
            (&long_key, Some(noise(5_000)), 1),
            (b"/registry/a", Some(noise(3 << 20)), 525),
        ];
        for (key, value, pieces) in cases {
            let lease = LeaseId(if pieces == 1 { -5 } else { 0 });
            let write = Write { key, value: value.as_deref(), create: 7, version: u64::MAX, lease };
            let mut encoded = Encoder::new().encode(&write);
            encoded.mark_last();
            assert!(encoded.record.len() <= ITEM_BYTES && encoded.pieces.iter().all(|piece| piece.len() <= ITEM_BYTES));
            assert_eq!(encoded.pieces.len(), pieces);
            let record = decode(&encoded.record).expect("decodes");
            assert_eq!((record.key, record.create, record.version, record.last), (key, 7, u64::MAX, true));
            assert_eq!((record.deleted, record.lease), (value.is_none(), lease));
            let (stored, raw) = match record.value {
                Value::Inline { raw, bytes } => (bytes.to_vec(), raw),
                Value::Pieces { raw, count } => {
                    assert_eq!(count as usize, pieces);
                    (encoded.pieces.concat(), raw)
                }
            };
            assert_eq!(unpack(&stored, raw).expect("unpacks"), value.unwrap_or_default());
        }
    }

    #[test]
    fn leases_survive_a_round_trip() {
        for (id, granted, remaining) in [(1, 5, None), (i64::MAX, u32::MAX, Some(7)), (-3, 1, Some(0))] {
            let (id, value) = (LeaseId(id), encode_lease(granted, remaining));
            assert_eq!(decode_lease(&lease_key(id), &value), Some((id, granted, remaining)));
            assert_eq!(decode_lease(&lease_key(id), &value[..3]), None);
        }
    }

    #[test]
    fn damaged_records_do_not_decode() {
        let write = Write { key: b"/k", value: Some(b"v"), create: 1, version: 1, lease: LeaseId::NONE };
        let encoded = Encoder::new().encode(&write).record;
        for cut in 0..4 {
            assert_eq!(decode(&encoded[..cut]), None);
        }
        assert_eq!(decode(&[0, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn keys_sort_as_places_do() {
        let places = [(0, 0), (0, 1), (1, 0), (255, 3), (256, 0), (u64::MAX, u32::MAX)];
        let keys: Vec<_> = places.map(|(revision, sub)| Place { revision, sub }.key()).into();
        assert!(keys.is_sorted());
        for (key, (revision, sub)) in keys.iter().zip(places) {
            assert_eq!(Place::parse(key), Some(Place { revision, sub }));
        }
    }
}
