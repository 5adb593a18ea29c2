//! Which keys there are and were: everything but the values, in memory.
//!
//! One ordered map from key to its versions, about 180 bytes per key, and 50 to 130 per older version. It is
//! multi-version itself: the writer enters versions before they are durable, readers look at the last committed revision,
//! and a failed commit is undone.

use super::record::Place;
use crate::store::{KeyRange, LeaseId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub type Key = Arc<[u8]>;

/// One state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: u64,
    pub sub: u32,
    /// Bytes that it takes in sled.
    pub stored: u32,
    pub create: u64,
    /// 0: deleted.
    pub version: u64,
    pub lease: LeaseId,
}

impl Version {
    pub fn place(&self) -> Place {
        Place { revision: self.revision, sub: self.sub }
    }

    pub fn deleted(&self) -> bool {
        self.version == 0
    }
}

struct Versions {
    latest: Version,
    /// Oldest first.
    #[expect(clippy::box_collection, reason = "most keys have none, and there are many keys")]
    older: Option<Box<VecDeque<Version>>>,
}

impl Versions {
    /// The version that was current at a revision, deleted or not.
    fn at(&self, revision: u64) -> Option<&Version> {
        if self.latest.revision <= revision {
            return Some(&self.latest);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|version| version.revision <= revision);
        older.get(after.checked_sub(1)?)
    }

    fn push(&mut self, version: Version) -> Version {
        let old = std::mem::replace(&mut self.latest, version);
        self.older.get_or_insert_with(|| Box::new(VecDeque::with_capacity(1))).push_back(old);
        old
    }

    /// Take an older one from an end.
    fn pop(&mut self, take: impl FnOnce(&mut VecDeque<Version>) -> Option<Version>) -> Option<Version> {
        let taken = take(self.older.as_mut()?);
        self.older.take_if(|older| older.is_empty());
        taken
    }
}

/// A version that nobody needs once everything below `until` has been forgotten.
pub struct Superseded {
    pub until: u64,
    pub place: Place,
    pub stored: u32,
    pub key: Key,
}

#[derive(Default)]
pub struct Index {
    keys: BTreeMap<Key, Versions>,
    /// In order of `until`, but for a deletion's own entry, which may stand one before its neighbours.
    superseded: VecDeque<Superseded>,
    superseded_bytes: u64,
    /// Bytes in sled of all versions.
    stored_bytes: u64,
    /// Keys that are attached to a lease now.
    attached: BTreeSet<(LeaseId, Key)>,
}

/// What a range holds at a revision.
#[derive(Default)]
pub struct Found {
    pub versions: Vec<(Key, Version)>,
    pub count: usize,
    pub more: bool,
}

impl Index {
    /// The live state of a key at a revision.
    pub fn get(&self, key: &[u8], revision: u64) -> Option<Version> {
        self.keys.get(key)?.at(revision).filter(|version| !version.deleted()).copied()
    }

    /// The newest state of a key, deleted or not.
    pub fn latest(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key).map(|versions| versions.latest)
    }

    /// Live keys in a range at a revision, at most `limit` of them (0: all), all of them counted.
    pub fn range(&self, range: &KeyRange, revision: u64, limit: usize) -> Found {
        let mut found = Found::default();
        if range.is_empty() {
            return found;
        }
        for (key, versions) in self.keys.range::<[u8], _>(range.bounds()) {
            let Some(version) = versions.at(revision).filter(|version| !version.deleted()) else { continue };
            found.count += 1;
            if limit == 0 || found.versions.len() < limit {
                found.versions.push((key.clone(), *version));
            } else {
                found.more = true;
            }
        }
        found
    }

    /// Live keys in a range at a revision.
    pub fn count(&self, range: &KeyRange, revision: u64) -> usize {
        if range.is_empty() {
            return 0;
        }
        let all = self.keys.range::<[u8], _>(range.bounds());
        all.filter(|(_, versions)| versions.at(revision).is_some_and(|version| !version.deleted())).count()
    }

    /// Enter the next version of a key. Versions come in the order of their places.
    pub fn push(&mut self, key: &[u8], version: Version) -> Key {
        self.push_known(self.known(key).unwrap_or_else(|| Key::from(key)), version)
    }

    /// The same, without a copy of a key that is new.
    pub fn push_key(&mut self, key: Key, version: Version) {
        self.push_known(self.known(&key).unwrap_or(key), version);
    }

    fn known(&self, key: &[u8]) -> Option<Key> {
        self.keys.get_key_value(key).map(|(key, _)| key.clone())
    }

    fn push_known(&mut self, key: Key, version: Version) -> Key {
        self.stored_bytes += u64::from(version.stored);
        match self.keys.get_mut(&key) {
            Some(versions) => {
                let old = versions.push(version);
                self.detach(old.lease, &key);
                if !old.deleted() {
                    self.supersede(version.revision, old, key.clone());
                }
            }
            None => {
                self.keys.insert(key.clone(), Versions { latest: version, older: None });
            }
        }
        if version.deleted() {
            self.supersede(version.revision + 1, version, key.clone());
        }
        self.attach(version.lease, &key);
        key
    }

    fn attach(&mut self, lease: LeaseId, key: &Key) {
        if !lease.is_none() {
            self.attached.insert((lease, key.clone()));
        }
    }

    fn detach(&mut self, lease: LeaseId, key: &Key) {
        if !lease.is_none() {
            self.attached.remove(&(lease, key.clone()));
        }
    }

    /// Keys that are attached to a lease now.
    pub fn attached(&self, lease: LeaseId) -> impl Iterator<Item = &Key> {
        let from = (lease, Key::from(&[][..]));
        self.attached.range(from..).take_while(move |(id, _)| *id == lease).map(|(_, key)| key)
    }

    /// Take back the last [`Index::push`] of a key. Pushes are taken back in reverse order.
    pub fn undo(&mut self, key: &[u8]) {
        let Some((key, _)) = self.keys.get_key_value(key) else { return };
        let key = key.clone();
        let Some(versions) = self.keys.get_mut(&key) else { return };
        let undone = versions.latest;
        self.stored_bytes -= u64::from(undone.stored);
        let before = versions.pop(VecDeque::pop_back);
        match before {
            Some(old) => versions.latest = old,
            None => {
                self.keys.remove(&key);
            }
        }
        self.detach(undone.lease, &key);
        self.attach(before.map_or(LeaseId::NONE, |old| old.lease), &key);
        let entries = usize::from(undone.deleted()) + usize::from(before.is_some_and(|old| !old.deleted()));
        for _ in 0..entries {
            if let Some(entry) = self.superseded.pop_back() {
                self.superseded_bytes -= u64::from(entry.stored);
            }
        }
    }

    fn supersede(&mut self, until: u64, version: Version, key: Key) {
        self.superseded_bytes += u64::from(version.stored);
        self.superseded.push_back(Superseded { until, place: version.place(), stored: version.stored, key });
    }

    /// Forget up to `limit` versions that no revision from `horizon` on needs, oldest first; they are to be removed from
    /// disk in the same order.
    pub fn purge(&mut self, horizon: u64, limit: usize) -> Vec<Superseded> {
        let (mut gone, mut ahead) = (Vec::new(), Vec::new());
        // Deletions of the horizon's own revision stay, and stand among what they have superseded.
        while gone.len() < limit && self.superseded.front().is_some_and(|entry| entry.until <= horizon + 1) {
            let Some(entry) = self.superseded.pop_front() else { break };
            if entry.until > horizon {
                ahead.push(entry);
                continue;
            }
            self.superseded_bytes -= u64::from(entry.stored);
            self.stored_bytes -= u64::from(entry.stored);
            self.forget(&entry);
            gone.push(entry);
        }
        ahead.into_iter().rev().for_each(|entry| self.superseded.push_front(entry));
        gone
    }

    fn forget(&mut self, entry: &Superseded) {
        let Some(versions) = self.keys.get_mut(&entry.key) else { return };
        let oldest = versions.older.as_ref().and_then(|older| older.front());
        if oldest.is_some_and(|version| version.place() == entry.place) {
            versions.pop(VecDeque::pop_front);
        } else if versions.latest.place() == entry.place {
            self.keys.remove(&entry.key);
        }
    }

    /// Bytes in sled of versions that are no longer current.
    pub fn superseded_bytes(&self) -> u64 {
        self.superseded_bytes
    }

    /// Where the newest states of about so many keys are, taken from everywhere.
    pub fn sample(&self, count: usize) -> Vec<Place> {
        let step = (self.keys.len() / count.max(1)).max(1);
        self.keys.values().step_by(step).map(|versions| versions.latest.place()).collect()
    }

    /// Bytes in sled of all versions, current or not.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// How many keys there are, deleted ones that are not forgotten yet among them.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The state of a key before a revision, if it is still known.
    pub fn before(&self, key: &[u8], revision: u64) -> Option<Version> {
        self.get(key, revision.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_revision_deleted_goes_together() {
        let mut index = Index::default();
        let version =
            |revision, sub, version| Version { revision, sub, stored: 10, create: 2, version, lease: LeaseId::NONE };
        let keys = [&b"a"[..], b"b", b"c"];
        for (sub, key) in keys.iter().enumerate() {
            index.push(key, version(2, sub as u32, 1));
        }
        for (sub, key) in keys.iter().enumerate() {
            index.push(key, version(3, sub as u32, 0));
        }
        assert_eq!((index.stored_bytes(), index.superseded_bytes()), (60, 60));
        let revisions = |gone: Vec<Superseded>| gone.iter().map(|entry| entry.place.revision).collect::<Vec<_>>();
        assert_eq!(revisions(index.purge(3, 2)), [2, 2]);
        assert_eq!(revisions(index.purge(3, 100)), [2]);
        // Who watches from revision 3 on still has to hear of the deletions.
        assert_eq!((index.len(), index.stored_bytes(), index.superseded_bytes()), (3, 30, 30));
        index.push(b"c", version(4, 0, 1));
        assert_eq!(revisions(index.purge(4, 100)), [3, 3, 3]);
        assert_eq!((index.len(), index.stored_bytes(), index.superseded_bytes()), (1, 10, 0));
    }
}
