//! The quota of bytes on disk: what puts is refused once it is used up, until room has been made.

use super::{Alarm, Error};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How often the bytes on disk are looked up, at most, while the store is written to.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The alarm ends by itself when no more than this part of the quota (in percent) is used.
const CALM_PERCENT: u64 = 90;

pub(super) struct Quota {
    /// Bytes on disk that the store may use; 0: no limit.
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    alarm: bool,
}

impl Quota {
    pub fn new(bytes: u64) -> Self {
        Quota { bytes, state: Mutex::default() }
    }

    /// Whether something may be put now. `used` looks up the bytes on disk.
    pub fn admit(&self, now: Instant, used: impl FnOnce() -> u64) -> Result<(), Error> {
        if self.bytes == 0 {
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY) {
            state.looked = Some(now);
            let used = used();
            state.alarm = if state.alarm { used > self.bytes / 100 * CALM_PERCENT } else { used > self.bytes };
        }
        match state.alarm {
            true => Err(Error::NoSpace(format!("its quota of {} bytes is used up", self.bytes))),
            false => Ok(()),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn alarm(&self) -> Option<Alarm> {
        self.state.lock().alarm.then_some(Alarm::NoSpace)
    }

    /// End the alarm; the next [`Quota::admit`] looks again.
    pub fn disarm(&self) {
        *self.state.lock() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_comes_at_the_quota_and_goes_well_below_it() {
        let quota = Quota::new(1000);
        let start = Instant::now();
        // (half seconds since the start, bytes used, admitted)
        let cases =
            [(0, 1000, true), (1, 5000, true), (2, 1001, false), (4, 999, false), (5, 0, false), (6, 900, true)];
        for (halves, used, admitted) in cases {
            let now = start + Duration::from_millis(500) * halves;
            assert_eq!(quota.admit(now, || used).is_ok(), admitted, "{used} bytes after {halves}/2 s");
            assert_eq!(quota.alarm().is_none(), admitted);
        }
        assert!(quota.admit(start + Duration::from_secs(9), || 2000).is_err());
        quota.disarm();
        assert!(quota.alarm().is_none());
        assert!(quota.admit(start + Duration::from_secs(9), || 2000).is_err(), "the cause is still there");
        assert!(Quota::new(0).admit(start, || u64::MAX).is_ok());
    }
}
