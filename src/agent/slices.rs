//! systemd slices of pods, made and removed by systemd itself.
//!
//! Where systemd owns the cgroup tree, it may reset or remove a directory that it did not make: limits written to
//! files are lost when it next looks at the slice. So slices are transient units with the limits as properties, as
//! upstream's systemd driver has them. They are asked for over D-Bus by systemd's own `busctl`.

use super::cgroups::{CPU_PERIOD_US, Limits};
use std::io;
use std::process::{Command, Stdio};

/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;
/// systemd keeps CPU quotas in whole percents: this many µs of each second.
const PERCENT_US: u64 = 10_000;

/// Make a slice, or change the limits of the one that is there. Blocks for some milliseconds.
pub fn set(name: &str, limits: &Limits) -> io::Result<()> {
    let properties = properties(limits);
    let made = {
        let all = arguments(properties.iter().chain(&[
            ("Description", "s", "pods of kedge".to_owned()),
            // Without this, they would be stopped early at shutdown and started with the machine's own slices.
            ("DefaultDependencies", "b", "false".to_owned()),
            ("CPUAccounting", "b", "true".to_owned()),
            ("MemoryAccounting", "b", "true".to_owned()),
            ("TasksAccounting", "b", "true".to_owned()),
        ]));
        let mut arguments = vec!["StartTransientUnit".into(), "ssa(sv)a(sa(sv))".into(), name.into(), "fail".into()];
        arguments.extend(all);
        arguments.push("0".into());
        manager(&arguments)
    };
    let Err(error) = made else { return Ok(()) };
    // It is there, from this or an earlier kedge. "true": for this boot only.
    let mut change = vec!["SetUnitProperties".to_owned(), "sba(sv)".into(), name.into(), "true".into()];
    change.extend(arguments(properties.iter()));
    // The first error tells more when both fail.
    manager(&change).map_err(|_| error)
}

/// Stop a slice and everything below it; a transient unit is gone then.
pub fn stop(name: &str) -> io::Result<()> {
    manager(&["StopUnit".into(), "ss".into(), name.into(), "replace".into()])
}

/// Names, D-Bus types and values of the properties that hold limits. All are always there, so that a limit that was
/// taken away is reset.
fn properties(limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let or_infinity = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(INFINITY).to_string();
    let quota = limits.cpu_quota_us.and_then(|us| u64::try_from(us).ok()).map_or(INFINITY, |us| {
        let per_second = us.saturating_mul(1_000_000 / CPU_PERIOD_US as u64);
        per_second.next_multiple_of(PERCENT_US)
    });
    let weight = limits.cpu_shares.map(super::cgroups::weight_of_shares);
    vec![
        ("CPUQuotaPerSecUSec", "t", quota.to_string()),
        ("CPUWeight", "t", or_infinity(weight)),
        ("MemoryMax", "t", or_infinity(limits.memory_bytes)),
        ("TasksMax", "t", or_infinity(limits.pids)),
    ]
}

/// An array of properties in busctl's notation: its length, then name, type and value of each.
fn arguments<'a>(properties: impl Iterator<Item = &'a (&'static str, &'static str, String)>) -> Vec<String> {
    let flat: Vec<String> = properties.flat_map(|(n, t, v)| [(*n).to_owned(), (*t).to_owned(), v.clone()]).collect();
    let mut out = vec![(flat.len() / 3).to_string()];
    out.extend(flat);
    out
}

/// Call a method of systemd's manager.
fn manager(arguments: &[String]) -> io::Result<()> {
    const MANAGER: [&str; 5] = [
        "--quiet",
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    ];
    let output = Command::new("busctl").args(MANAGER).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("busctl {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_properties() {
        let limits =
            Limits { cpu_shares: Some(51), cpu_quota_us: Some(50_100), memory_bytes: Some(64 << 20), pids: None };
        let all = "18446744073709551615";
        let some = ["4", "CPUQuotaPerSecUSec", "t", "510000", "CPUWeight", "t", "2", "MemoryMax", "t", "67108864"];
        let none = ["4", "CPUQuotaPerSecUSec", "t", all, "CPUWeight", "t", all, "MemoryMax", "t", all];
        for (limits, wanted) in [(limits, some), (Limits::default(), none)] {
            let got = arguments(properties(&limits).iter());
            assert_eq!(got[..10], wanted);
            assert_eq!(got[10..], ["TasksMax", "t", all]);
        }
    }
}
