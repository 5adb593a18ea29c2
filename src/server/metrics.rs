//! Counters in Prometheus' text form, with labels that clients cannot multiply.

use crate::server::registry::Registry;
use crate::store::Store;
use crate::store::condition::COMMIT_BUCKETS;
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a request is counted under: words from our own tables only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    pub verb: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
}

impl Label {
    const VERBS: [&str; 15] = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "post",
        "put",
        "head",
        "options",
        "connect",
        "proxy",
        "trace",
    ];

    /// The verb if it is a known one, else "other".
    pub fn known_verb(verb: &str) -> &'static str {
        Self::VERBS.iter().find(|v| **v == verb).copied().unwrap_or("other")
    }
}

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Clone, Copy, Default)]
struct Latency {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(Label, u16), u64>,
    latencies: BTreeMap<Label, Latency>,
}

#[derive(Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
    watches: Arc<AtomicUsize>,
}

/// Counts one running watch until it is dropped.
pub struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn observe(&self, label: Label, status: StatusCode, took: Duration) {
        let mut counts = self.counts.lock();
        *counts.requests.entry((label, status.as_u16())).or_default() += 1;
        // How long a watch or stream lives is the client's choice.
        if label.verb == "watch" {
            return;
        }
        let seconds = took.as_secs_f64();
        let latency = counts.latencies.entry(label).or_default();
        latency.count += 1;
        latency.seconds += seconds;
        for (bucket, bound) in latency.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    pub fn watch_started(&self) -> Running {
        self.watches.fetch_add(1, Ordering::Relaxed);
        Running(self.watches.clone())
    }

    /// Everything as text.
    pub fn render(&self, registry: &Registry) -> String {
        let mut out = String::new();
        self.render_requests(&mut out);
        let store = registry.store();
        let watches = self.watches.load(Ordering::Relaxed);
        gauge(&mut out, "apiserver_longrunning_requests", "Running watches.", watches as f64);
        render_store(&mut out, &**store);
        render_process(&mut out);
        out
    }

    fn render_requests(&self, out: &mut String) {
        let counts = self.counts.lock();
        let _ =
            writeln!(out, "# HELP apiserver_request_total Answered requests.\n# TYPE apiserver_request_total counter");
        for ((label, code), count) in &counts.requests {
            let _ = writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {count}", words(label));
        }
        let name = "apiserver_request_duration_seconds";
        let _ = writeln!(out, "# HELP {name} Time to the answer's first byte.\n# TYPE {name} histogram");
        for (label, latency) in &counts.latencies {
            let words = words(label);
            for (count, bound) in latency.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{name}_bucket{{{words},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_bucket{{{words},le=\"+Inf\"}} {}", latency.count);
            let _ =
                writeln!(out, "{name}_sum{{{words}}} {}\n{name}_count{{{words}}} {}", latency.seconds, latency.count);
        }
    }
}

fn words(label: &Label) -> String {
    let Label { verb, group, version, resource, subresource } = label;
    let verb = verb.to_ascii_uppercase();
    format!(
        "verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\""
    )
}

fn gauge(out: &mut String, name: &str, help: &str, value: f64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

/// How the store is doing.
fn render_store(out: &mut String, store: &dyn Store) {
    gauge(out, "kedge_store_revision", "Revision of the last write.", store.revision().0 as f64);
    gauge(out, "kedge_store_compacted_revision", "Oldest readable revision.", store.compacted().0 as f64);
    gauge(out, "apiserver_storage_size_bytes", "Bytes that the store uses on disk.", store.disk_bytes() as f64);
    gauge(out, "kedge_store_written_bytes", "Bytes written to disk since start.", store.written_bytes() as f64);
    let condition = store.condition();
    if let Some(bytes) = condition.written_per_day {
        let help = "Bytes written to disk a day, going by the last hour.";
        gauge(out, "kedge_store_written_bytes_per_day", help, bytes as f64);
    }
    gauge(out, "kedge_store_alarm", "1 while writes fail.", f64::from(u8::from(condition.alarm.is_some())));
    gauge(out, "kedge_store_losses", "Losses of data on record.", condition.losses.len() as f64);
    if let Some(snapshot) = condition.snapshot {
        gauge(out, "kedge_store_snapshot_revision", "Revision of the newest snapshot.", snapshot.revision.0 as f64);
        gauge(out, "kedge_store_snapshot_timestamp_seconds", "When it was taken.", snapshot.time as f64);
    }
    let commits = condition.commits;
    let worst = "Longest commit of the last five to ten minutes.";
    gauge(out, "kedge_store_commit_recent_worst_seconds", worst, commits.recent_worst.as_secs_f64());
    let name = "kedge_store_commit_duration_seconds";
    let _ = writeln!(out, "# HELP {name} Durable commits, the disk's barrier included.\n# TYPE {name} histogram");
    for (count, bound) in commits.buckets.iter().zip(COMMIT_BUCKETS) {
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", commits.count);
    let _ = writeln!(out, "{name}_sum {}\n{name}_count {}", commits.seconds, commits.count);
}

/// The usual process figures, from /proc; what cannot be read is left out.
fn render_process(out: &mut String) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let status = read("status");
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()
    };
    if let Some(kb) = kilobytes("VmRSS:") {
        gauge(out, "process_resident_memory_bytes", "Resident memory.", kb * 1024.0);
    }
    if let Some(kb) = kilobytes("VmSize:") {
        gauge(out, "process_virtual_memory_bytes", "Virtual memory.", kb * 1024.0);
    }
    // The command name is in parentheses and may hold spaces; utime and stime are fields 14 and 15.
    let stat = read("stat");
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    if let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) {
        let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        gauge(out, "process_cpu_seconds_total", "Time spent on CPUs.", (user + system) / hertz);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(out, "process_open_fds", "Open file descriptors.", files.count() as f64);
    }
}
