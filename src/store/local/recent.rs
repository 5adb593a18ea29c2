//! What happened of late: latencies of commits, and how much was written.

use crate::store::condition::{Commits, RECENT};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Two spans of [`RECENT`]: the one under way and the one before.
#[derive(Default)]
pub struct Recent {
    all: Commits,
    since: Option<Instant>,
    now: Duration,
    before: Duration,
}

impl Recent {
    pub fn observe(&mut self, took: Duration, now: Instant) {
        self.turn(now);
        self.all.observe(took);
        self.now = self.now.max(took);
    }

    pub fn commits(&mut self, now: Instant) -> Commits {
        self.turn(now);
        Commits { recent_worst: self.now.max(self.before), ..self.all }
    }

    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age < RECENT {
            return;
        }
        self.before = if age < RECENT * 2 { self.now } else { Duration::ZERO };
        (self.now, self.since) = (Duration::ZERO, Some(now));
    }
}

/// How far back the rate of writing looks, and from how much on it says anything.
const RATE_SPAN: Duration = Duration::from_secs(3600);
const RATE_LEAST: Duration = Duration::from_secs(60);
const DAY_SECONDS: u64 = 86_400;

/// How much had been written when, oldest first: one sample a minute or so.
#[derive(Default)]
pub struct Written(VecDeque<(Instant, u64)>);

impl Written {
    pub fn sample(&mut self, now: Instant, bytes: u64) {
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_SPAN) {
            self.0.pop_front();
        }
        self.0.push_back((now, bytes));
    }

    /// Bytes a day, going by the last hour.
    pub fn per_day(&self, now: Instant, bytes: u64) -> Option<u64> {
        let (at, before) = self.0.front()?;
        let span = now.saturating_duration_since(*at);
        (span >= RATE_LEAST).then(|| (bytes - before) * DAY_SECONDS / span.as_secs().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_hour() {
        let start = Instant::now();
        let minute = |n: u64| start + Duration::from_secs(60 * n);
        let mut written = Written::default();
        assert_eq!(written.per_day(start, 5), None);
        for n in 0..=90 {
            // Much at first, then 100 bytes a minute.
            written.sample(minute(n), if n == 0 { 0 } else { 1_000_000 + 100 * n });
        }
        assert_eq!(written.per_day(minute(91), 1_000_000 + 9_100), Some(144_000));
        assert!(written.0.len() <= 62);
    }

    #[test]
    fn the_worst_is_forgotten_after_a_while() {
        let start = Instant::now();
        let at = |parts: u32| start + RECENT / 2 * parts;
        let mut recent = Recent::default();
        recent.observe(Duration::from_secs(3), at(0));
        recent.observe(Duration::from_secs(1), at(1));
        let worst = |recent: &mut Recent, parts| recent.commits(at(parts)).recent_worst.as_secs();
        assert_eq!([1, 2, 3, 4, 5].map(|parts| worst(&mut recent, parts)), [3, 3, 3, 0, 0]);
        assert_eq!(recent.commits(at(9)).count, 2);
    }
}
