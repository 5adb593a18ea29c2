//! Whose watches a key may be of, without asking each.
//!
//! Nearly all watches are of one key or of a prefix: their range begins with what all keys in it begin with. Those are
//! found by looking up a key's beginnings, as many as there are lengths of such prefixes. The few others are asked.

use super::KeyRange;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Default)]
pub(super) struct Interest {
    by_start: HashMap<Bytes, BTreeSet<u64>>,
    /// Lengths of the keys of `by_start`, with how many there are of each.
    lengths: BTreeMap<usize, usize>,
    others: BTreeSet<u64>,
}

impl Interest {
    pub fn insert(&mut self, id: u64, range: &KeyRange) {
        if !range.is_within(&range.start) {
            self.others.insert(id);
            return;
        }
        let ids = self.by_start.entry(range.start.clone()).or_default();
        if ids.is_empty() {
            *self.lengths.entry(range.start.len()).or_default() += 1;
        }
        ids.insert(id);
    }

    pub fn remove(&mut self, id: u64, range: &KeyRange) {
        let Some(ids) = self.by_start.get_mut(&range.start).filter(|ids| ids.contains(&id)) else {
            self.others.remove(&id);
            return;
        };
        ids.remove(&id);
        if ids.is_empty() {
            self.by_start.remove(&range.start);
            let count = self.lengths.entry(range.start.len()).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.lengths.remove(&range.start.len());
            }
        }
    }

    /// Watches whose range may hold a key: all that do, and some that do not.
    pub fn candidates(&self, key: &[u8]) -> impl Iterator<Item = u64> {
        let starts = self.lengths.keys().map_while(|&length| key.get(..length));
        let found = starts.filter_map(|start| self.by_start.get(start)).flatten();
        found.chain(&self.others).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watch_of_a_key_is_found_and_most_others_are_not() {
        let range = |start: &'static str, end: &'static [u8]| KeyRange { start: start.into(), end: end.into() };
        let ranges = [
            KeyRange::prefix("/a/"),
            KeyRange::prefix("/a/b/"),
            KeyRange::prefix("/a/b/"),
            KeyRange::prefix(""),
            KeyRange::key("/a/b/c"),
            KeyRange::key("/a/b"),
            range("/a/b/", b"/a/b/m"),
            range("/a/x", b"/c"),
            range("/a/b", KeyRange::END),
            range("\u{7f}", b"\x80"),
        ];
        let keys = ["", "/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/z", "/a/x", "/b", "/c", "/z", "\u{7f}q"];
        let mut interest = Interest::default();
        ranges.iter().enumerate().for_each(|(id, range)| interest.insert(id as u64, range));
        for left in (0..=ranges.len()).rev() {
            for key in keys {
                let found: BTreeSet<u64> = interest.candidates(key.as_bytes()).collect();
                for (id, range) in ranges.iter().enumerate() {
                    let id_found = found.contains(&(id as u64));
                    assert!(id_found || id >= left || !range.contains(key.as_bytes()), "{range:?} of {key:?}");
                    assert!(!id_found || id < left, "{range:?} has been removed");
                }
            }
            if let Some(last) = left.checked_sub(1) {
                interest.remove(last as u64, &ranges[last]);
            }
        }
        assert!(interest.by_start.is_empty() && interest.lengths.is_empty() && interest.others.is_empty());
        interest.insert(1, &KeyRange::key("/other"));
        assert_eq!(interest.candidates(b"/a/b").count(), 0);
    }
}
