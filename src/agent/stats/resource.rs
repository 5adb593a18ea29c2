//! `/metrics/resource`: what metrics-server reads (KEP-1206), in Prometheus' text format.

use super::{Snapshot, Usage};
use jiff::Timestamp;
use std::fmt::Write;

/// Name, help and type of a family.
const FAMILIES: [(&str, &str, &str); 7] = [
    ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", "counter"),
    ("container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge"),
    ("container_start_time_seconds", "Start time of the container since unix epoch in seconds", "gauge"),
    ("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", "counter"),
    ("node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge"),
    ("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "counter"),
    ("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge"),
];

/// The document; `None`: reading failed.
pub fn render(seen: Option<&Snapshot>) -> String {
    let mut out = String::new();
    for (name, help, kind) in FAMILIES {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        if let Some(seen) = seen {
            family(&mut out, name, seen);
        }
    }
    let error = u8::from(seen.is_none());
    let _ = writeln!(
        out,
        "# HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error {error}"
    );
    out
}

fn family(out: &mut String, name: &str, seen: &Snapshot) {
    let at = seen.time.as_millisecond();
    let value = |usage: &Usage, started: Option<Timestamp>| {
        if name.ends_with("cpu_usage_seconds_total") {
            usage.cpu_ns as f64 / 1e9
        } else if name.ends_with("working_set_bytes") {
            usage.working_set as f64
        } else {
            started.map_or(0.0, |t| t.as_millisecond() as f64 / 1e3)
        }
    };
    if name.starts_with("node_") {
        let _ = writeln!(out, "{name} {} {at}", value(&seen.usage, None));
    }
    for pod in &seen.pods {
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
        if name.starts_with("pod_") {
            let _ = writeln!(out, "{name}{{{labels}}} {} {at}", value(&pod.usage, None));
        }
        for c in pod.containers.iter().filter(|_| name.starts_with("container_")) {
            let _ = writeln!(out, "{name}{{container=\"{}\",{labels}}} {} {at}", c.name, value(&c.usage, c.started));
        }
    }
}
