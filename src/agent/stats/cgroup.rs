//! A cgroup's counters, version 1 and 2. What cannot be read counts as nothing: containers end while we look.

use super::Usage;
use crate::agent::cgroups::Layout;
use crate::agent::qos::Qos;
use std::fs;
use std::path::{Path, PathBuf};

/// Of a pod, or of one of its containers.
pub fn usage(layout: &Layout, qos: Qos, uid: &str, container: Option<&str>) -> Usage {
    let cpu = layout.place("cpuacct", qos, uid, container);
    let memory = layout.place("memory", qos, uid, container);
    if layout.unified { unified(&cpu) } else { version_1(&cpu, &memory) }
}

fn unified(dir: &Path) -> Usage {
    let (stat, used) = (dir.join("memory.stat"), number(&dir.join("memory.current")));
    Usage {
        cpu_ns: line(&dir.join("cpu.stat"), "usage_usec") * 1000,
        memory: used,
        working_set: used.saturating_sub(line(&stat, "inactive_file")),
        rss: line(&stat, "anon"),
        faults: line(&stat, "pgfault"),
        major_faults: line(&stat, "pgmajfault"),
    }
}

fn version_1(cpu: &Path, memory: &Path) -> Usage {
    let (stat, used) = (memory.join("memory.stat"), number(&memory.join("memory.usage_in_bytes")));
    Usage {
        cpu_ns: number(&cpu.join("cpuacct.usage")),
        memory: used,
        working_set: used.saturating_sub(line(&stat, "total_inactive_file")),
        rss: line(&stat, "total_rss"),
        faults: line(&stat, "total_pgfault"),
        major_faults: line(&stat, "total_pgmajfault"),
    }
}

/// A process of a container.
pub fn process(layout: &Layout, qos: Qos, uid: &str, container: &str) -> Option<u32> {
    let dir: PathBuf = layout.place("cpu", qos, uid, Some(container));
    fs::read_to_string(dir.join("cgroup.procs")).ok()?.lines().next()?.parse().ok()
}

/// A file that holds one number.
pub fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// The number behind a key in a file of `key number` lines.
pub fn line(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}
