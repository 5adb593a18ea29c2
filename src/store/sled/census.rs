//! What has to be there: a sum over the keys of all records and leases, written in one step with each change of them.
//!
//! sled recovers a prefix of what was written when the end of its log is torn. When something else of the log is damaged,
//! it may leave out just that: a segment with a broken header counts as free, the rest of a segment behind a broken
//! message as never written. Pages are then a little too old, and nothing in sled says so. The census does: it lies on
//! the page of the newest records, so it is as new as they are, and tells of records that are missing elsewhere, or there
//! again although they were removed.

use super::entries::{encode_lease, key, lease_key, piece_key, split};
use super::open::{Open, sled_error};
use crate::store::local::engine::{LeaseChange, LeaseEntry};
use crate::store::local::record::{Encoded, Place};
use crate::store::{Error, LeaseId};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where it is: behind the newest record.
pub const CENSUS_KEY: &[u8] = b"s";

/// The census of an open store, as its disk has it or will have it with the next barrier.
pub struct Census {
    sum: AtomicU64,
    compacted: AtomicU64,
}

/// What is noted on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Wrapping sum of [`weigh`] over the keys that are there.
    pub sum: u64,
    /// The compacted revision.
    pub compacted: u64,
}

impl Default for Census {
    fn default() -> Self {
        Census { sum: AtomicU64::new(0), compacted: AtomicU64::new(1) }
    }
}

impl Census {
    pub fn set(&self, counted: Counted) {
        self.sum.store(counted.sum, Ordering::SeqCst);
        self.compacted.store(counted.compacted, Ordering::SeqCst);
    }

    pub fn get(&self) -> Counted {
        Counted { sum: self.sum.load(Ordering::SeqCst), compacted: self.compacted.load(Ordering::SeqCst) }
    }
}

impl Counted {
    pub fn read(open: &Open) -> Result<Option<Self>, Error> {
        let bytes = open.sled.get(CENSUS_KEY).map_err(|e| sled_error("reading the census", e))?;
        Ok(bytes.and_then(|bytes| Counted::decode(&bytes)))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (sum, compacted) = bytes.split_first_chunk()?;
        Some(Counted { sum: u64::from_be_bytes(*sum), compacted: u64::from_be_bytes(compacted.try_into().ok()?) })
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.sum.to_be_bytes());
        bytes[8..].copy_from_slice(&self.compacted.to_be_bytes());
        bytes
    }
}

/// What a key adds to the sum: its bytes, well mixed (the finalizer of SplitMix64 after each eight).
pub fn weigh(key: &[u8]) -> u64 {
    key.chunks(8).fold(key.len() as u64, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mut mixed = (state ^ u64::from_le_bytes(word)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// The sum over everything that is there.
pub fn count(open: &Open) -> Result<u64, Error> {
    let mut sum = 0_u64;
    for prefix in [b"l", b"r"] {
        for key in open.sled.scan_prefix(prefix).keys() {
            sum = sum.wrapping_add(weigh(&key.map_err(|e| sled_error("counting records", e))?));
        }
    }
    Ok(sum)
}

/// Changes that are made together or not at all: [`Open::apply`].
#[derive(Default)]
pub struct Batch {
    batch: ::sled::Batch,
    sum: u64,
    compacted: Option<u64>,
}

impl Batch {
    /// A record that is not there yet.
    pub fn add(&mut self, place: Place, encoded: &Encoded) {
        let (record, pieces) = split(encoded);
        for (number, piece) in pieces.enumerate() {
            self.batch.insert(&piece_key(place, number as u16), piece);
        }
        self.batch.insert(&key(place), record);
        self.sum = self.sum.wrapping_add(weigh(&key(place)));
    }

    /// A record that is there, with this many pieces.
    pub fn remove(&mut self, place: Place, pieces: u16) {
        (0..pieces).for_each(|piece| self.batch.remove(&piece_key(place, piece)));
        self.batch.remove(&key(place));
        self.sum = self.sum.wrapping_sub(weigh(&key(place)));
    }

    pub fn change_lease(&mut self, id: LeaseId, change: LeaseChange) {
        let key = lease_key(id);
        let put = |batch: &mut ::sled::Batch, entry: LeaseEntry| batch.insert(&key, encode_lease(entry));
        match change {
            LeaseChange::Add(entry) => {
                put(&mut self.batch, entry);
                self.sum = self.sum.wrapping_add(weigh(&key));
            }
            LeaseChange::Note(entry) => put(&mut self.batch, entry),
            LeaseChange::Remove => {
                self.batch.remove(&key);
                self.sum = self.sum.wrapping_sub(weigh(&key));
            }
        }
    }

    pub fn compact(&mut self, revision: u64) {
        self.compacted = Some(revision);
    }

    /// An entry that is not counted.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        self.batch.insert(key, value);
    }

    /// Remove an entry that is not counted.
    pub fn unset(&mut self, key: &[u8]) {
        self.batch.remove(key);
    }
}

impl Open {
    /// Make changes, and note what is there then. They take effect on disk with the next barrier.
    pub fn apply(&self, mut changes: Batch) -> Result<(), Error> {
        let before = self.census.get();
        let counted = Counted {
            sum: before.sum.wrapping_add(changes.sum),
            compacted: changes.compacted.unwrap_or(before.compacted),
        };
        changes.set(CENSUS_KEY, &counted.encode());
        self.sled.apply_batch(changes.batch).map_err(|e| sled_error("writing records", e))?;
        self.census.set(counted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_key_weighs() {
        let key = key(Place { revision: 7, sub: 3 });
        let mut weights = vec![weigh(&key), weigh(&key[..12])];
        for at in 0..key.len() {
            for bit in 0..8 {
                let mut other = key;
                other[at] ^= 1 << bit;
                weights.push(weigh(&other));
            }
        }
        let count = weights.len();
        weights.sort_unstable();
        weights.dedup();
        assert_eq!(weights.len(), count);
    }

    #[test]
    fn what_is_noted_comes_back() {
        let counted = Counted { sum: u64::MAX - 5, compacted: 77 };
        assert_eq!(Counted::decode(&counted.encode()), Some(counted));
        assert_eq!(Counted::decode(&counted.encode()[..15]), None);
    }
}
