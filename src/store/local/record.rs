//! One write of one key as bytes, the same in every engine: flags, key, numbers as varints, then the value, compressed if
//! that makes it clearly shorter.

use crate::store::varint::{put_varint, varint};
use crate::store::{LeaseId, MAX_TXN_BYTES};
use bytes::{BufMut, Bytes};

/// Shortest value that is worth compressing.
const COMPRESS_BYTES: usize = 256;

/// zstd's fastest level with entropy coding: decompression speed is what lists pay for.
pub const COMPRESS_LEVEL: i32 = 1;

/// Longest value that is unpacked: no transaction can write a longer one.
const MAX_RAW_BYTES: usize = MAX_TXN_BYTES;

/// Flags. 2 and 8 are for an engine's own use.
const DELETED: u8 = 1;
const COMPRESSED: u8 = 4;
/// The lease follows the version.
const LEASED: u8 = 16;

/// Where a write is: its transaction's revision and its position there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub revision: u64,
    pub sub: u32,
}

impl Place {
    /// The first one behind it.
    pub fn next(self) -> Place {
        match self.sub.checked_add(1) {
            Some(sub) => Place { sub, ..self },
            None => Place { revision: self.revision + 1, sub: 0 },
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}/{}", self.revision, self.sub)
    }
}

/// One write of one key, decoded but for its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    pub deleted: bool,
    pub key: &'a [u8],
    pub create: u64,
    pub version: u64,
    pub lease: LeaseId,
    /// Uncompressed length of the value; 0 if it is not compressed.
    pub raw: usize,
    /// The value as it is stored; `None`: the engine has it elsewhere.
    pub stored: Option<&'a [u8]>,
}

impl Record<'_> {
    /// The value, if it is here.
    pub fn value(&self) -> Option<std::io::Result<Bytes>> {
        self.stored.map(|stored| unpack(stored, self.raw))
    }
}

/// A record to write.
pub struct Encoded {
    bytes: Vec<u8>,
    value_at: usize,
}

impl Encoded {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is before the value, and the value.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.value_at)
    }

    /// Bytes that go to disk.
    pub fn stored(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is a key's deletion.
    pub fn deletes(&self) -> bool {
        self.bytes.first().is_some_and(|flags| flags & DELETED != 0)
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
        let mut bytes = Vec::with_capacity(1 + 5 * 10 + write.key.len() + stored.len());
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        bytes.push(
            flag(write.value.is_none(), DELETED)
                | flag(compressed.is_some(), COMPRESSED)
                | flag(!write.lease.is_none(), LEASED),
        );
        put_varint(&mut bytes, write.key.len() as u64);
        bytes.put_slice(write.key);
        put_varint(&mut bytes, write.create);
        put_varint(&mut bytes, write.version);
        if !write.lease.is_none() {
            put_varint(&mut bytes, write.lease.0 as u64);
        }
        if compressed.is_some() {
            put_varint(&mut bytes, value.len() as u64);
        }
        let value_at = bytes.len();
        bytes.put_slice(stored);
        Encoded { bytes, value_at }
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
    Some(Record { deleted: flags & DELETED != 0, key, create, version, lease, raw, stored: Some(rest) })
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
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn records_survive_a_round_trip() {
        let mut random = StdRng::seed_from_u64(1);
        let mut noise = |len: usize| (0..len).map(|_| random.random()).collect::<Vec<u8>>();
        let long_key = vec![b'k'; 2048];
        type Case<'a> = (&'a [u8], Option<Vec<u8>>, i64);
        let cases: [Case; 7] = [
            (b"/registry/a", None, 0),
            (b"/registry/a", Some(vec![]), -5),
            (b"/registry/a", Some(b"{}".to_vec()), 0),
            (b"/registry/a", Some(vec![b'x'; 100_000]), 7),
            (b"/registry/a", Some(noise(6_000)), 0),
            (&long_key, Some(noise(5_000)), 1),
            (b"/registry/a", Some(noise(3 << 20)), 0),
        ];
        for (key, value, lease) in cases {
            let lease = LeaseId(lease);
            let write = Write { key, value: value.as_deref(), create: 7, version: u64::MAX, lease };
            let encoded = Encoder::new().encode(&write);
            let record = decode(encoded.bytes()).expect("decodes");
            assert_eq!((record.key, record.create, record.version), (key, 7, u64::MAX));
            assert_eq!((record.deleted, record.lease, encoded.deletes()), (value.is_none(), lease, value.is_none()));
            assert_eq!(record.stored, Some(encoded.parts().1));
            assert_eq!(record.value().expect("is here").expect("unpacks"), value.unwrap_or_default());
        }
    }

    #[test]
    fn damaged_records_do_not_decode() {
        let write = Write { key: b"/k", value: Some(b"v"), create: 1, version: 1, lease: LeaseId::NONE };
        let encoded = Encoder::new().encode(&write);
        for cut in 0..4 {
            assert_eq!(decode(&encoded.bytes()[..cut]), None);
        }
        assert_eq!(decode(&[0, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
