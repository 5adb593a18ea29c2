//! What the node and its pods use, read from the kernel when somebody asks: nothing is sampled in between.

mod cgroup;
mod network;
pub mod resource;
pub mod summary;

use super::context::Agent;
use super::machine::{self, Disk};
use super::pods::view::View;
use super::qos::Qos;
use crate::task::Group;
use jiff::Timestamp;
use network::Interface;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Processor time and memory of a cgroup, or of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time since the beginning, nanoseconds.
    pub cpu_ns: u64,
    pub memory: u64,
    /// Without what the kernel can drop at once (inactive file pages).
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    pub faults: u64,
    pub major_faults: u64,
}

/// One running container.
pub struct ContainerStats {
    pub name: String,
    pub started: Option<Timestamp>,
    pub usage: Usage,
    /// Bytes and inodes of its writable layer, as the runtime counts them.
    pub layer: Option<(u64, u64)>,
    pub log_bytes: u64,
}

/// One pod with a running sandbox.
pub struct PodStats {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub started: Option<Timestamp>,
    pub usage: Usage,
    /// Empty for pods on the host's network.
    pub interfaces: Vec<Interface>,
    pub containers: Vec<ContainerStats>,
}

/// Everything at one moment.
pub struct Snapshot {
    pub time: Timestamp,
    pub node: String,
    pub booted: Option<Timestamp>,
    pub usage: Usage,
    pub memory_total: u64,
    pub memory_available: u64,
    pub interfaces: Vec<Interface>,
    pub disk: Option<Disk>,
    /// Processes there are and may be.
    pub processes: (u64, u64),
    pub pods: Vec<PodStats>,
}

impl Snapshot {
    /// Look at everything.
    pub async fn take(agent: &Arc<Agent>) -> anyhow::Result<Self> {
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        for stats in agent.cri.container_stats().await.unwrap_or_default() {
            let value = |n: &Option<k8s_cri::v1::UInt64Value>| n.as_ref().map_or(0, |n| n.value);
            if let (Some(id), Some(layer)) = (stats.attributes, stats.writable_layer) {
                layers.insert(id.id, (value(&layer.used_bytes), value(&layer.inodes_used)));
            }
        }
        let agent = agent.clone();
        Group::blocking(move || Self::look(&agent, &layers)).await
    }

    fn look(agent: &Agent, layers: &HashMap<String, (u64, u64)>) -> Self {
        let views = agent.views.all();
        let running = views.iter().filter(|v| v.sandbox.is_some());
        let mut pods: Vec<PodStats> = running.map(|view| pod(agent, view, layers)).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Snapshot {
            time: Timestamp::now(),
            node: agent.config.node_name.clone(),
            booted: booted(),
            usage: machine_usage(),
            memory_total: agent.machine.memory_bytes,
            memory_available: machine::memory("MemAvailable:").unwrap_or(0),
            interfaces: network::read(Path::new("/proc/self/net/dev")),
            disk: machine::disk(&agent.config.dir).ok(),
            processes: processes(),
            pods,
        }
    }
}

fn pod(agent: &Agent, view: &View, layers: &HashMap<String, (u64, u64)>) -> PodStats {
    let meta = &view.pod.metadata;
    let uid = meta.uid.clone().unwrap_or_default();
    let qos = Qos::of(&view.pod);
    let running = view.containers.iter().filter(|c| c.is_running());
    let containers: Vec<ContainerStats> = running
        .map(|c| ContainerStats {
            name: c.name.clone(),
            started: c.started_at(),
            usage: cgroup::usage(&agent.layout, qos, &uid, Some(&c.id)),
            layer: layers.get(&c.id).copied(),
            log_bytes: std::fs::metadata(&c.log_path).map_or(0, |m| m.len()),
        })
        .collect();
    let host_network = view.pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let ids = view.containers.iter().filter(|c| c.is_running() && !host_network).map(|c| c.id.as_str());
    let process = ids.filter_map(|id| cgroup::process(&agent.layout, qos, &uid, id)).next();
    PodStats {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        started: view.status.start_time.as_ref().map(|t| t.0),
        usage: cgroup::usage(&agent.layout, qos, &uid, None),
        interfaces: process.map(|pid| network::read(Path::new(&format!("/proc/{pid}/net/dev")))).unwrap_or_default(),
        containers,
        uid,
    }
}

/// The machine's own, from /proc: the root cgroup has no figures in version 2.
fn machine_usage() -> Usage {
    let memory = |key| machine::memory(key).unwrap_or(0);
    let used = memory("MemTotal:").saturating_sub(memory("MemFree:"));
    Usage {
        cpu_ns: busy_ns(&std::fs::read_to_string("/proc/stat").unwrap_or_default()),
        memory: used,
        working_set: used.saturating_sub(memory("Inactive(file):")),
        rss: memory("AnonPages:"),
        faults: cgroup::line(Path::new("/proc/vmstat"), "pgfault"),
        major_faults: cgroup::line(Path::new("/proc/vmstat"), "pgmajfault"),
    }
}

/// Time that the processors were busy: user, nice, system, irq, softirq, steal. /proc/stat counts in 1/100 s.
fn busy_ns(stat: &str) -> u64 {
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(|f| f.parse().unwrap_or(0)).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum::<u64>() * 10_000_000
}

fn booted() -> Option<Timestamp> {
    let seconds = cgroup::line(Path::new("/proc/stat"), "btime");
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

fn processes() -> (u64, u64) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let threads = load.split_whitespace().nth(3).and_then(|t| t.split('/').nth(1)?.parse().ok()).unwrap_or(0);
    (threads, cgroup::number(Path::new("/proc/sys/kernel/pid_max")))
}

/// Entities whose last reading is kept; when full, all are forgotten and the next answer has no rates.
const MAX_REMEMBERED: usize = 4096;

/// Processor use over the time since the last answer.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, (Instant, u64)>>);

impl Rates {
    /// Billionths of a processor that `entity` used since it was last asked about; None the first time.
    pub fn nano_cores(&self, entity: &str, cpu_ns: u64) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.0.lock();
        if last.len() >= MAX_REMEMBERED {
            last.clear();
        }
        let (at, before) = last.insert(entity.to_owned(), (now, cpu_ns))?;
        let passed = now.duration_since(at).as_nanos().max(1);
        let used = u128::from(cpu_ns.checked_sub(before)?);
        u64::try_from(used * 1_000_000_000 / passed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time() {
        let stat = "cpu  100 20 30 4000 50 6 7 8 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy_ns(stat), 171 * 10_000_000);
        assert_eq!(busy_ns(""), 0);
        assert!(machine_usage().cpu_ns > 0 && machine_usage().working_set > 0);
        assert!(booted().is_some() && processes().1 > 0);
    }

    #[test]
    fn rates_need_two_readings() {
        let rates = Rates::default();
        assert_eq!(rates.nano_cores("a", 5), None);
        assert!(rates.nano_cores("a", 5_000_000).is_some());
        assert_eq!(rates.nano_cores("a", 4), None, "the counter began anew");
    }
}
