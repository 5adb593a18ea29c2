//! Growing pauses between tries: crashed containers (10 s to 5 min) and failed image pulls (upstream's numbers).

use jiff::{SignedDuration, Timestamp};

const FIRST: i64 = 10;
const LONGEST: i64 = 300;

/// One thing that keeps failing.
#[derive(Clone, Debug)]
pub struct Backoff {
    seconds: i64,
    updated: Timestamp,
}

impl Backoff {
    /// The first pause.
    pub fn new(now: Timestamp) -> Self {
        Backoff { seconds: FIRST, updated: now }
    }

    /// It is tried again: the next pause is twice as long. What went well for twice the longest pause starts anew.
    pub fn next(&mut self, failed: Timestamp, now: Timestamp) {
        self.seconds = if self.expired(failed) { FIRST } else { (self.seconds * 2).min(LONGEST) };
        self.updated = now;
    }

    /// The end of the pause after a failure, and its length; None: over.
    pub fn until(&self, failed: Timestamp, now: Timestamp) -> Option<(Timestamp, u64)> {
        if self.expired(failed) {
            return None;
        }
        let until = failed + SignedDuration::from_secs(self.seconds);
        (until > now).then_some((until, self.seconds as u64))
    }

    /// The end of the pause since the last try, for what has no time of failure of its own.
    pub fn since_update(&self, now: Timestamp) -> Option<Timestamp> {
        self.until(self.updated, now).map(|(until, _)| until)
    }

    fn expired(&self, failed: Timestamp) -> bool {
        failed.duration_since(self.updated) > SignedDuration::from_secs(2 * LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn pauses_double_to_five_minutes_and_start_anew() {
        let mut backoff = Backoff::new(at(0));
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let (until, seconds) = backoff.until(at(now), at(now)).unwrap();
            assert_eq!(until, at(now + seconds as i64));
            assert_eq!(backoff.until(at(now), until), None);
            pauses.push(seconds);
            now += seconds as i64;
            backoff.next(at(now), at(now));
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        let much_later = now + 601;
        assert_eq!(backoff.until(at(much_later), at(much_later)), None);
        backoff.next(at(much_later), at(much_later));
        assert_eq!(backoff.until(at(much_later), at(much_later)).unwrap().1, 10);
    }
}
