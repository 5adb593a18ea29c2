//! Recently used values, uncompressed. Two generations: what is used moves to the young one, and when that has half of
//! the budget (or on [`Values::age`]) the old one is dropped and the young one takes its place.

use super::record::Place;
use bytes::Bytes;
use std::collections::HashMap;

pub struct Values {
    young: HashMap<Place, Bytes>,
    old: HashMap<Place, Bytes>,
    young_bytes: usize,
    budget: usize,
}

impl Values {
    /// `budget`: bytes that both generations may hold together.
    pub fn new(budget: usize) -> Self {
        Values { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, budget }
    }

    pub fn get(&mut self, place: Place) -> Option<Bytes> {
        if let Some(value) = self.young.get(&place) {
            return Some(value.clone());
        }
        let value = self.old.remove(&place)?;
        self.insert(place, value.clone());
        Some(value)
    }

    pub fn insert(&mut self, place: Place, value: Bytes) {
        let weight = value.len() + size_of::<(Place, Bytes)>();
        if weight > self.budget / 4 {
            return;
        }
        if self.young_bytes + weight > self.budget / 2 {
            self.age();
        }
        if self.young.insert(place, value).is_none() {
            self.young_bytes += weight;
        }
    }

    pub fn remove(&mut self, place: Place) {
        if let Some(value) = self.young.remove(&place) {
            self.young_bytes -= value.len() + size_of::<(Place, Bytes)>();
        }
        self.old.remove(&place);
    }

    /// Drop what has not been used since the last time.
    pub fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.young_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_values_stay_and_others_go() {
        let place = |revision| Place { revision, sub: 0 };
        let value = Bytes::from(vec![0; 1000]);
        let mut values = Values::new(20_000);
        for revision in 0..100 {
            values.insert(place(revision), value.clone());
            assert!(values.get(place(0)).is_some(), "used all the time, gone at {revision}");
            let held: usize = values.young.len() + values.old.len();
            assert!(held * 1000 <= 20_000);
        }
        assert!(values.get(place(50)).is_none() && values.get(place(99)).is_some());
        values.insert(place(200), Bytes::from(vec![0; 6000]));
        assert!(values.get(place(200)).is_none(), "one value must not push out all others");
        values.age();
        values.age();
        assert!(values.young.is_empty() && values.old.is_empty());
    }
}
