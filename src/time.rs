//! Time as the API writes it (RFC 3339), the process clock with its floor (DESIGN D11), and short ages (`5m3s`).

use jiff::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No clock is right that says less: no executable of this source existed before 2026-06-01 (Unix seconds), unless the
/// build says better.
const RELEASE_SECONDS: i64 = 1_780_272_000;

const NANOSECONDS: i64 = 1_000_000_000;

/// The least time that it was when the process began, in nanoseconds since 1970; raised by what was last seen on disk
/// ([`raise_floor`]).
static FLOOR: AtomicI64 = AtomicI64::new(RELEASE_SECONDS * NANOSECONDS);
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time this executable was built (`SOURCE_DATE_EPOCH` of the build, else a constant of the version).
pub fn build_floor() -> SystemTime {
    let seconds = option_env!("SOURCE_DATE_EPOCH").and_then(|s| s.parse().ok()).unwrap_or(RELEASE_SECONDS as u64);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Time is known to have been at least this (Unix seconds): certificates and stored objects say so.
pub fn raise_floor(seconds: i64) {
    FLOOR.fetch_max(seconds.saturating_mul(NANOSECONDS).saturating_sub(running()), Ordering::Relaxed);
}

/// For how long the process runs, in nanoseconds.
fn running() -> i64 {
    i64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// The clock, never below the floor: a board without a battery starts in 1970. The floor goes on with the time, or
/// heartbeats would look like silence.
pub fn now() -> Timestamp {
    floored(Timestamp::now(), FLOOR.load(Ordering::Relaxed), running())
}

/// [`now`], where the machine's clock is wrong about it.
pub fn corrected() -> Option<Timestamp> {
    let clock = Timestamp::now();
    Some(floored(clock, FLOOR.load(Ordering::Relaxed), running())).filter(|now| *now > clock)
}

/// As HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
pub fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// What the clock says, but at least the floor of the process' beginning and the time since, in nanoseconds.
fn floored(clock: Timestamp, floor: i64, running: i64) -> Timestamp {
    clock.max(Timestamp::from_nanosecond(floor.saturating_add(running).into()).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A time that another program (the container runtime) took from the machine's clock: while that is not set, as many
/// seconds later as [`now`] is.
pub fn of_machine(time: Timestamp) -> Timestamp {
    static BEHIND: OnceLock<jiff::SignedDuration> = OnceLock::new();
    if time.as_second() >= RELEASE_SECONDS {
        return time;
    }
    let whole = |d: jiff::SignedDuration| jiff::SignedDuration::from_secs(d.as_secs());
    let behind = BEHIND.get_or_init(|| whole(now().duration_since(Timestamp::now())));
    time.checked_add(*behind).unwrap_or(time)
}

/// Wait for so long, or until the clock says so: it may be set while we wait.
pub async fn wait(period: Duration) {
    /// The clock is looked at this often.
    const LOOK_EVERY: Duration = Duration::from_secs(30);
    let (end, until) = (tokio::time::Instant::now() + period, now_seconds().saturating_add_unsigned(period.as_secs()));
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() || now_seconds() > until {
            return;
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
    }
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
    fn the_floor_goes_on_with_the_time() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let in_seconds = |clock: i64, floor: i64, running: i64| {
            floored(at(clock), floor * NANOSECONDS, running * NANOSECONDS).as_second()
        };
        assert_eq!(in_seconds(7, 1000, 0), 1000);
        assert_eq!(in_seconds(12, 1000, 5), 1005);
        assert_eq!(in_seconds(2000, 1000, 5), 2000);
        assert!(floored(at(0), i64::MAX, 1) > at(0));
    }

    #[test]
    fn times_in_http() {
        assert_eq!(http_date(Timestamp::from_second(784_111_777).unwrap()), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn times_of_an_unset_clock() {
        let set = Timestamp::from_second(RELEASE_SECONDS + 5).unwrap();
        assert_eq!(of_machine(set), set);
        let (early, later) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(12).unwrap());
        assert_eq!(of_machine(later).duration_since(of_machine(early)), jiff::SignedDuration::from_secs(2));
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
