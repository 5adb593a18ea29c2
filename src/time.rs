//! Time as the API writes it (RFC 3339), the process clock with its floor (DESIGN D11), and short ages (`5m3s`).

use jiff::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No clock is right that says less: no executable of this source existed before 2026-06-01 (Unix seconds), unless the
/// build says better.
const RELEASE_SECONDS: i64 = 1_780_272_000;

/// Raised by what was last seen on disk; see [`raise_floor`].
static FLOOR: AtomicI64 = AtomicI64::new(RELEASE_SECONDS);

/// The time this executable was built (`SOURCE_DATE_EPOCH` of the build, else a constant of the version).
pub fn build_floor() -> SystemTime {
    let seconds = option_env!("SOURCE_DATE_EPOCH").and_then(|s| s.parse().ok()).unwrap_or(RELEASE_SECONDS as u64);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Time is known to have been at least this (Unix seconds): certificates and stored objects say so.
pub fn raise_floor(seconds: i64) {
    FLOOR.fetch_max(seconds, Ordering::Relaxed);
}

/// The clock, never below the floor: a board without a battery starts in 1970.
pub fn now() -> Timestamp {
    let floor = Timestamp::from_second(FLOOR.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::now().max(floor)
}

/// [`now`] in Unix seconds.
pub fn now_seconds() -> i64 {
    now().as_second()
}

/// `2026-03-04T05:06:07Z`: metav1.Time.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-03-04T05:06:07.123456Z`: metav1.MicroTime.
pub fn rfc3339_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Any RFC 3339 time; None where the text is none.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// [`parse`] in Unix seconds.
pub fn parse_seconds(text: &str) -> Option<i64> {
    parse(text).map(Timestamp::as_second)
}

/// A span of seconds as kubectl's AGE column shows it (upstream `duration.HumanDuration`): about two significant
/// units. A little below zero is clock skew (`0s`), more is `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    let with_rest = |big: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{rest}{rest_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => with_rest(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The age of something made at an RFC 3339 time; `<unknown>` where there is none.
pub fn age(created: &str, now_seconds: i64) -> String {
    match parse_seconds(created) {
        Some(then) => human_duration(now_seconds - then),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_as_kubectl_shows_them() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (64_000_000, "2y10d"),
            (300_000_000, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_on_the_wire() {
        let time = parse("2026-03-04T06:06:07.123456789+01:00").unwrap();
        assert_eq!(rfc3339(time), "2026-03-04T05:06:07Z");
        assert_eq!(rfc3339_micro(time), "2026-03-04T05:06:07.123456Z");
        assert_eq!(parse("yesterday"), None);
        assert_eq!(age("", 5), "<unknown>");
    }
}
