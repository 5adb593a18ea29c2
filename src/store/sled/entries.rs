//! How the store's entries look in sled: five kinds of keys in one keyspace.
//!
//! | key | value |
//! |---|---|
//! | `l` id | a lease: seconds granted, seconds remaining (if noted down) |
//! | `m` name | metadata: `format`, `reserved` and `floor` of the memory tier |
//! | `p` revision sub piece | part of a value that is too long for its record |
//! | `r` revision sub | one write of one key: a [`Record`], with [`LAST`] |
//! | `s` | the census, with the compacted revision |
//!
//! Revision, sub (position of the write in its transaction) and piece are big endian, so `r` entries are the history in
//! order, and writes append. What shares a barrier is one batch of sled's, there or not there as a whole. (Older versions
//! wrote one by one, and marked only a transaction's last record with [`LAST`]: a transaction without it was never
//! acknowledged, and is removed on open.)

use crate::store::LeaseId;
use crate::store::local::engine::LeaseEntry;
use crate::store::local::record::{self, Encoded, Place, Record};
use crate::store::varint::{put_varint, varint};

/// Longest value that is ever given to sled. Its leaves split by count: a leaf holds up to 16 entries, 19 after a merge
/// with a sibling of three, and one more before it is split; a leaf of a quarter segment (128 KiB) or more would go to
/// a file of its own that sled never syncs. 20 x (6000 + keys) stays below.
pub const ITEM_BYTES: usize = 6000;

/// Last write of its transaction.
const LAST: u8 = 2;
/// The value is in pieces; their number is in its place.
const PIECES: u8 = 8;

/// Key of a record.
pub fn key(place: Place) -> [u8; 13] {
    let mut key = [b'r'; 13];
    key[1..9].copy_from_slice(&place.revision.to_be_bytes());
    key[9..].copy_from_slice(&place.sub.to_be_bytes());
    key
}

pub fn piece_key(place: Place, piece: u16) -> [u8; 15] {
    let mut key = [b'p'; 15];
    key[1..13].copy_from_slice(&self::key(place)[1..]);
    key[13..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// The place in a record's or piece's key.
pub fn place(key: &[u8]) -> Option<Place> {
    let revision = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let sub = u32::from_be_bytes(key.get(9..13)?.try_into().ok()?);
    Some(Place { revision, sub })
}

/// The same, only of a record's key.
pub fn record_place(key: &[u8]) -> Option<Place> {
    if key.first() == Some(&b'r') { place(key) } else { None }
}

/// What is inserted for a record, and the pieces of its value, which have to be there first.
pub fn split(encoded: &Encoded) -> (Vec<u8>, impl Iterator<Item = &[u8]>) {
    let (head, value) = encoded.parts();
    let in_pieces = encoded.stored() > ITEM_BYTES;
    let mut bytes = if in_pieces { head.to_vec() } else { encoded.bytes().to_vec() };
    if let Some(flags) = bytes.first_mut() {
        *flags |= LAST | if in_pieces { PIECES } else { 0 };
    }
    if in_pieces {
        put_varint(&mut bytes, value.len().div_ceil(ITEM_BYTES) as u64);
    }
    (bytes, value.chunks(ITEM_BYTES).filter(move |_| in_pieces))
}

/// A record as sled has it.
#[derive(Debug, PartialEq)]
pub struct Stored<'a> {
    pub record: Record<'a>,
    pub last: bool,
    pub pieces: u16,
}

/// Decode a record; `None` if the bytes are not one.
pub fn decode(bytes: &[u8]) -> Option<Stored<'_>> {
    let flags = *bytes.first()?;
    let mut record = record::decode(bytes)?;
    let mut pieces = 0;
    if flags & PIECES != 0 {
        let mut rest = record.stored.take()?;
        pieces = u16::try_from(varint(&mut rest)?).ok()?;
    }
    Some(Stored { record, last: flags & LAST != 0, pieces })
}

/// Whether these are key and value of an entry that can be read.
#[cfg(fuzzing)]
pub fn is_readable(key: &[u8], value: &[u8]) -> bool {
    let record = || decode(value)?.record.value().unwrap_or_else(|| Ok(Default::default())).ok();
    match key.first() {
        Some(b'l') => decode_lease(key, value).is_some(),
        _ => place(key).is_some() && record().is_some(),
    }
}

/// Key of a lease.
pub fn lease_key(id: LeaseId) -> [u8; 9] {
    let mut key = [b'l'; 9];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

pub fn encode_lease(entry: LeaseEntry) -> Vec<u8> {
    let mut out = entry.granted.to_be_bytes().to_vec();
    out.extend(entry.remaining.into_iter().flat_map(u32::to_be_bytes));
    out
}

/// A lease from its key and value; `None` if they are not one.
pub fn decode_lease(key: &[u8], value: &[u8]) -> Option<(LeaseId, LeaseEntry)> {
    let id = LeaseId(i64::from_be_bytes(key.strip_prefix(b"l")?.try_into().ok()?));
    let (granted, remaining) = value.split_first_chunk()?;
    let remaining = if remaining.is_empty() { None } else { Some(u32::from_be_bytes(remaining.try_into().ok()?)) };
    Some((id, LeaseEntry { granted: u32::from_be_bytes(*granted), remaining }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::record::{Encoder, Write};

    #[test]
    fn long_values_are_in_pieces() {
        // Bytes that do not compress.
        let mut state = 1u64;
        let noise: Vec<u8> = (0..1 << 20)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u8
            })
            .collect();
        let long_key = vec![b'k'; 2048];
        let cases: [(&[u8], usize, usize); 5] =
            [(b"/a", 0, 0), (b"/a", 5_900, 0), (b"/a", 6_000, 1), (&long_key, 5_000, 1), (b"/a", 1 << 20, 175)];
        for (key, length, pieces) in cases {
            let write = Write { key, value: Some(&noise[..length]), create: 7, version: 8, lease: LeaseId(-5) };
            let encoded = Encoder::new().encode(&write);
            let (bytes, values) = split(&encoded);
            let values: Vec<&[u8]> = values.collect();
            assert!(bytes.len() <= ITEM_BYTES && values.iter().all(|piece| piece.len() <= ITEM_BYTES));
            let Stored { record, last, pieces: count } = decode(&bytes).expect("decodes");
            assert_eq!((values.len(), count as usize, last), (pieces, pieces, true));
            assert_eq!((record.key, record.create, record.version, record.lease), (key, 7, 8, LeaseId(-5)));
            let stored = record.stored.map_or_else(|| values.concat(), <[u8]>::to_vec);
            assert_eq!(stored, noise[..length]);
        }
    }

    #[test]
    fn leases_survive_a_round_trip() {
        for (id, granted, remaining) in [(1, 5, None), (i64::MAX, u32::MAX, Some(7)), (-3, 1, Some(0))] {
            let (id, entry) = (LeaseId(id), LeaseEntry { granted, remaining });
            let value = encode_lease(entry);
            assert_eq!(decode_lease(&lease_key(id), &value), Some((id, entry)));
            assert_eq!(decode_lease(&lease_key(id), &value[..3]), None);
        }
    }

    #[test]
    fn keys_sort_as_places_do() {
        let places = [(0, 0), (0, 1), (1, 0), (255, 3), (256, 0), (u64::MAX, u32::MAX)];
        let keys: Vec<_> = places.map(|(revision, sub)| key(Place { revision, sub })).into();
        assert!(keys.is_sorted());
        for (key, (revision, sub)) in keys.iter().zip(places) {
            assert_eq!(place(key), Some(Place { revision, sub }));
        }
    }
}
