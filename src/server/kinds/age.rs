//! Ages in Tables, as upstream's `duration.HumanDuration` writes them.

use crate::object::{Object, ObjectExt};
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Two significant figures, roughly: `5s`, `3m20s`, `15m`, `3h5m`, `12h`, `2d3h`, `40d`, `2y31d`, `9y`.
pub fn human(seconds: i64) -> String {
    // Clocks differ: a second into the future is now.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let s = seconds.max(0);
    match s {
        ..120 => format!("{s}s"),
        120..600 => with_rest(s / MINUTE, "m", s % MINUTE, "s"),
        600..10_800 => format!("{}m", s / MINUTE),
        10_800..28_800 => with_rest(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", s / HOUR),
        172_800..691_200 => with_rest(s / DAY, "d", s % DAY / HOUR, "h"),
        _ if s < 2 * YEAR => format!("{}d", s / DAY),
        _ if s < 8 * YEAR => with_rest(s / YEAR, "y", s / DAY % 365, "d"),
        _ => format!("{}y", s / YEAR),
    }
}

fn with_rest(n: i64, unit: &str, rest: i64, rest_unit: &str) -> String {
    if rest == 0 { format!("{n}{unit}") } else { format!("{n}{unit}{rest}{rest_unit}") }
}

/// Unix seconds of an RFC 3339 time.
pub fn parse(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

/// Age of a time field: `<unknown>` where it is absent.
pub fn since(text: &str, now: i64) -> String {
    parse(text).map_or_else(|| "<unknown>".to_owned(), |then| human(now - then))
}

/// The Age cell.
pub fn age(obj: &Object, now: i64) -> Value {
    since(obj.str_at(&["metadata", "creationTimestamp"]), now).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubectl_shows_them() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (8 * DAY, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 31 * DAY, "2y31d"),
            (8 * YEAR, "8y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
        assert_eq!(since("2024-01-01T00:00:00Z", 1_704_067_205), "5s");
        assert_eq!(since("", 0), "<unknown>");
    }
}
