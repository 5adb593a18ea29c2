//! Recently used values, uncompressed. When full, a new write pushes out the oldest; what was only read finds no room, so
//! that a list of more than fits does not push out everything that the next one needs. [`Values::age`] makes room.

use super::record::Place;
use bytes::Bytes;
use std::collections::BTreeMap;

pub struct Values {
    kept: BTreeMap<Place, Entry>,
    bytes: usize,
    budget: usize,
}

struct Entry {
    value: Bytes,
    /// Since the last [`Values::age`].
    used: bool,
}

impl Values {
    /// `budget`: bytes that it may hold.
    pub fn new(budget: usize) -> Self {
        Values { kept: BTreeMap::new(), bytes: 0, budget }
    }

    pub fn get(&mut self, place: Place) -> Option<Bytes> {
        let entry = self.kept.get_mut(&place)?;
        entry.used = true;
        Some(entry.value.clone())
    }

    /// Keep a value that has just been written.
    pub fn insert(&mut self, place: Place, value: Bytes) {
        let weight = weight(&value);
        if weight > self.budget / 4 {
            return;
        }
        while self.bytes + weight > self.budget {
            let Some((_, oldest)) = self.kept.pop_first() else { break };
            self.bytes -= self::weight(&oldest.value);
        }
        self.enter(place, value);
    }

    /// Keep a value that has been read, if there is room.
    pub fn offer(&mut self, place: Place, value: &Bytes) {
        let weight = weight(value);
        if weight <= self.budget / 4 && self.bytes + weight <= self.budget {
            self.enter(place, value.clone());
        }
    }

    fn enter(&mut self, place: Place, value: Bytes) {
        self.bytes += weight(&value);
        if let Some(old) = self.kept.insert(place, Entry { value, used: true }) {
            self.bytes -= weight(&old.value);
        }
    }

    pub fn remove(&mut self, place: Place) {
        if let Some(entry) = self.kept.remove(&place) {
            self.bytes -= weight(&entry.value);
        }
    }

    /// Drop what has not been used since the last time.
    pub fn age(&mut self) {
        let bytes = &mut self.bytes;
        self.kept.retain(|_, entry| {
            let used = std::mem::replace(&mut entry.used, false);
            *bytes -= if used { 0 } else { weight(&entry.value) };
            used
        });
    }
}

/// What a value takes, with its place in the map (nodes are two thirds full).
fn weight(value: &Bytes) -> usize {
    value.len() + size_of::<(Place, Entry)>() * 3 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_values_push_out_the_oldest_and_read_ones_nothing() {
        let place = |revision| Place { revision, sub: 0 };
        let value = Bytes::from(vec![0; 1000]);
        let mut values = Values::new(20_000);
        (0..100).for_each(|revision| values.insert(place(revision), value.clone()));
        let held = |values: &Values| values.kept.keys().map(|place| place.revision).collect::<Vec<_>>();
        assert!(values.bytes <= 20_000 && held(&values).len() >= 17, "{}", values.bytes);
        assert_eq!(held(&values), (100 - held(&values).len() as u64..100).collect::<Vec<_>>());
        let before = held(&values);
        (0..50).for_each(|revision| values.offer(place(revision), &value));
        assert_eq!(held(&values), before);
        values.insert(place(200), Bytes::from(vec![0; 6000]));
        assert!(values.get(place(200)).is_none(), "one value must not push out all others");
    }

    #[test]
    fn what_is_not_used_goes_and_makes_room() {
        let place = |revision| Place { revision, sub: 0 };
        let value = Bytes::from(vec![0; 1000]);
        let mut values = Values::new(20_000);
        (0..100).for_each(|revision| values.insert(place(revision), value.clone()));
        values.age();
        assert_eq!(values.get(place(99)), Some(value.clone()));
        values.age();
        assert_eq!(values.kept.len(), 1);
        values.offer(place(5), &value);
        values.insert(place(99), value.clone());
        assert!(values.get(place(5)).is_some() && values.get(place(99)).is_some());
        values.remove(place(5));
        values.age();
        values.age();
        assert_eq!((values.kept.len(), values.bytes), (0, 0));
    }
}
