//! The floor of the clock for certificates (DESIGN D11): a machine without a battery starts in 1970, and must neither
//! issue certificates from then nor refuse its own. Time never counts as earlier than the last time written to disk,
//! nor than this source.

use crate::durable;
use std::path::Path;
use std::time::Duration;
use tracing::warn;

/// Holds the last known time as decimal Unix seconds.
const FILE: &str = "last-time";

/// Unix seconds now, never below the floor.
pub fn now() -> i64 {
    crate::time::now_seconds()
}

/// Take the time written by an earlier run as floor. A missing or unreadable file leaves the floor as it is.
pub fn raise_floor(dir: &Path) {
    if let Some(seconds) = std::fs::read_to_string(dir.join(FILE)).ok().and_then(|text| text.trim().parse().ok()) {
        crate::time::raise_floor(seconds);
    }
}

/// Write the current time for the next start. Best effort: without it an earlier one counts.
pub fn persist_floor(dir: &Path) {
    let path = dir.join(FILE);
    if let Err(error) = durable::write(&path, now().to_string().as_bytes(), durable::PUBLIC) {
        warn!(path = %path.display(), %error, "the time cannot be written down for the next start");
    }
}

/// The floored clock for rustls.
#[derive(Debug)]
pub struct FlooredClock;

impl rustls::time_provider::TimeProvider for FlooredClock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let seconds = u64::try_from(now()).ok()?;
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
