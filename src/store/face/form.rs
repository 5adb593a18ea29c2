//! How etcd keeps a write in its database file, and the hash over that (`HashKV`): equal histories have equal hashes,
//! here and in etcd.

use super::kv::key_value;
use crate::store::proto;
use crate::store::{Error, EventKind, Revision, Snapshot, Write};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;

/// Name of the bucket of all writes.
pub const KEY_BUCKET: &[u8] = b"key";

/// Longest key of a write: revision, `_`, position, `t` for a deletion.
const WRITE_KEY_BYTES: usize = 18;

/// A revision with a position in it, as etcd writes them.
pub fn revision_key(revision: Revision, sub: u32) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[9..].copy_from_slice(&u64::from(sub).to_be_bytes());
    key
}

fn write_key(write: &Write) -> Vec<u8> {
    let mut key = Vec::with_capacity(WRITE_KEY_BYTES);
    key.extend_from_slice(&revision_key(write.kv.mod_revision, write.sub));
    if write.kind == EventKind::Delete {
        key.push(b't');
    }
    key
}

fn message(write: Write) -> proto::KeyValue {
    match write.kind {
        EventKind::Put => key_value(write.kv),
        EventKind::Delete => proto::KeyValue { key: write.kv.key, ..proto::KeyValue::default() },
    }
}

/// Key and value of a write.
pub fn entry(write: Write) -> (Vec<u8>, Vec<u8>) {
    (write_key(&write), message(write).encode_to_vec())
}

/// Key and length of the value of a write.
pub fn sizes(write: &Write) -> (Vec<u8>, usize) {
    (write_key(write), message(write.clone()).encoded_len())
}

/// CRC-32C over everything up to a revision, but for what compaction would take away if it were done there. Meanwhile it
/// holds the keys that have been written since compaction.
pub async fn hash(snapshot: &mut dyn Snapshot, up_to: Revision) -> Result<u32, Error> {
    let compacted = snapshot.head().compacted;
    let changed = changed(snapshot, up_to).await?;
    // If there is no key at all at that revision, etcd counts everything.
    let any = changed.values().any(|there| *there) || {
        let mut unchanged = false;
        each(snapshot, up_to, |write| unchanged |= !changed.contains_key(&write.kv.key)).await?;
        unchanged
    };
    let mut crc = Crc32c::new();
    crc.add(KEY_BUCKET);
    each(snapshot, up_to, |write| {
        if write.kv.mod_revision > compacted || !any || !changed.contains_key(&write.kv.key) {
            let (key, value) = entry(write);
            crc.add(&key);
            crc.add(&value);
        }
    })
    .await?;
    Ok(crc.value())
}

/// Keys that have been written between compaction and a revision, and whether they are there at its end.
async fn changed(snapshot: &mut dyn Snapshot, up_to: Revision) -> Result<HashMap<Bytes, bool>, Error> {
    let compacted = snapshot.head().compacted;
    let mut changed = HashMap::new();
    each(snapshot, up_to, |write| {
        if write.kv.mod_revision > compacted {
            // A copy: the key may be a small part of a large record.
            changed.insert(Bytes::copy_from_slice(&write.kv.key), write.kind == EventKind::Put);
        }
    })
    .await?;
    Ok(changed)
}

/// Every write up to a revision, from the beginning.
async fn each(snapshot: &mut dyn Snapshot, up_to: Revision, mut take: impl FnMut(Write)) -> Result<(), Error> {
    snapshot.rewind();
    loop {
        let writes = snapshot.next().await?;
        if writes.is_empty() {
            return Ok(());
        }
        writes.into_iter().filter(|write| write.kv.mod_revision <= up_to).for_each(&mut take);
    }
}

/// CRC-32C (Castagnoli), a byte at a time.
struct Crc32c(u32);

impl Crc32c {
    fn new() -> Self {
        Crc32c(!0)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8));
    }

    fn value(&self) -> u32 {
        !self.0
    }
}

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_usual_text() {
        let mut crc = Crc32c::new();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.value(), 0xe306_9283);
    }
}
