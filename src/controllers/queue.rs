//! The work queue of one controller: each key once, never twice at a time, failures with growing pauses.
//!
//! Pure: time comes in as an argument, the driver owns the clock and the tasks.

use crate::cache::Key;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Pause after the first failure of a key; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Keys to work on. Bounded by the number of objects: each key is held once.
#[derive(Default)]
pub struct Queue {
    ready: VecDeque<Key>,
    /// In `ready`, or changed while being worked on.
    dirty: HashSet<Key>,
    running: HashSet<Key>,
    later: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    /// Something about `key` may have changed.
    pub fn add(&mut self, key: Key) {
        if self.dirty.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Look at `key` at `when`, or earlier if something happens.
    pub fn add_at(&mut self, key: Key, when: Instant) {
        if let Some(old) = self.due.insert(key.clone(), when) {
            self.later.remove(&(old, key.clone()));
        }
        self.later.insert((when, key));
    }

    /// The next key to work on; the caller reports its end with one of the `done` functions.
    pub fn pop(&mut self, now: Instant) -> Option<Key> {
        while let Some((when, key)) = self.later.first().cloned().filter(|(when, _)| *when <= now) {
            self.later.remove(&(when, key.clone()));
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        if let Some(when) = self.due.remove(&key) {
            self.later.remove(&(when, key.clone()));
        }
        self.running.insert(key.clone());
        Some(key)
    }

    /// When a key that waits for its time becomes ready.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(when, _)| *when)
    }

    pub fn done(&mut self, key: &Key) {
        self.failures.remove(key);
        self.finish(key);
    }

    /// The work on `key` failed: try again after a pause.
    pub fn failed(&mut self, key: &Key, now: Instant) -> Duration {
        let tries = self.failures.entry(key.clone()).or_insert(0);
        let pause = RETRY_MAX.min(RETRY_MIN * 2u32.saturating_pow((*tries).min(20)));
        *tries = tries.saturating_add(1);
        self.finish(key);
        self.add_at(key.clone(), now + pause);
        pause
    }

    fn finish(&mut self, key: &Key) {
        self.running.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// Keys ready and waiting for a worker.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn a_key_is_worked_on_once_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.pop(now), Some(key("a")));
        queue.add(key("a"));
        assert_eq!(queue.pop(now), Some(key("b")));
        assert_eq!(queue.pop(now), None, "a is being worked on");
        queue.done(&key("a"));
        assert_eq!(queue.pop(now), Some(key("a")), "it changed meanwhile");
    }

    #[test]
    fn failures_wait_longer_each_time_and_success_forgets_them() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut pauses = Vec::new();
        queue.add(key("a"));
        for _ in 0..3 {
            let at = queue.next_due().unwrap_or(now);
            assert_eq!(queue.pop(at), Some(key("a")));
            pauses.push(queue.failed(&key("a"), at).as_millis());
        }
        assert_eq!(pauses, [20, 40, 80]);
        assert_eq!(queue.pop(now), None);
        queue.add(key("a"));
        assert_eq!(queue.pop(now), Some(key("a")), "news do not wait");
        assert_eq!(queue.next_due(), None);
        queue.done(&key("a"));
        queue.add(key("a"));
        queue.pop(now);
        assert_eq!(queue.failed(&key("a"), now).as_millis(), 20);
    }

    #[test]
    fn the_later_time_is_replaced() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add_at(key("a"), now + Duration::from_secs(9));
        queue.add_at(key("a"), now + Duration::from_secs(3));
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(3)));
        assert_eq!(queue.pop(now + Duration::from_secs(3)), Some(key("a")));
        assert_eq!(queue.next_due(), None);
    }
}
