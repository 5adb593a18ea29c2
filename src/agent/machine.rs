//! What this machine has: capacity and allocatable of the Node, facts for `nodeInfo`.

use crate::quantity::{Format, Quantity};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Facts that do not change while we run.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    /// Of the file system that holds the data directory.
    pub disk_bytes: u64,
    /// `hugepages-2Mi` and the like → bytes.
    pub hugepages: BTreeMap<String, u64>,
    pub max_pods: u32,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

/// Kept free for the node itself: below it the memory-pressure eviction of later versions begins (upstream's default
/// hard threshold).
const MEMORY_RESERVED_BYTES: u64 = 100 << 20;
/// Share of the disk that is not for pods, percent (upstream's `nodefs.available` threshold).
const DISK_RESERVED_PERCENT: u64 = 10;

impl Machine {
    /// Look; `data` is a directory on the disk that counts.
    pub fn detect(data: &Path, max_pods: u32) -> Self {
        let read = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: memory("MemTotal:").unwrap_or(0),
            disk_bytes: disk(data).map_or(0, |d| d.total),
            hugepages: hugepages(),
            max_pods,
            machine_id: read("/etc/machine-id"),
            system_uuid: read("/sys/class/dmi/id/product_uuid"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: os_image(),
        }
    }

    /// The architecture as Go names it.
    pub fn architecture(&self) -> &'static str {
        super::pause::architecture()
    }

    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        self.resources(0, 0)
    }

    /// What pods may have.
    pub fn allocatable_all(&self) -> BTreeMap<String, Quantity> {
        let huge: u64 = self.hugepages.values().sum();
        self.resources(MEMORY_RESERVED_BYTES + huge, self.disk_bytes / 100 * DISK_RESERVED_PERCENT)
    }

    pub fn allocatable(&self, resource: &str) -> Option<Quantity> {
        self.allocatable_all().remove(resource)
    }

    fn resources(&self, memory_reserved: u64, disk_reserved: u64) -> BTreeMap<String, Quantity> {
        let binary = |bytes: u64| Quantity::from_units(bytes as i64, Format::BinarySi);
        let plain = |n: u64| Quantity::from_units(n as i64, Format::DecimalSi);
        // Whole KiB, as upstream reports them.
        let memory = self.memory_bytes.saturating_sub(memory_reserved) / 1024 * 1024;
        let mut out = BTreeMap::from([
            ("cpu".to_owned(), plain(self.cpus)),
            ("memory".to_owned(), binary(memory)),
            ("ephemeral-storage".to_owned(), binary(self.disk_bytes.saturating_sub(disk_reserved) / 1024 * 1024)),
            ("pods".to_owned(), plain(u64::from(self.max_pods))),
        ]);
        out.extend(self.hugepages.iter().map(|(name, bytes)| (name.clone(), binary(*bytes))));
        out
    }
}

/// A line of /proc/meminfo in bytes.
pub fn memory(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Space of a file system.
pub struct Disk {
    pub total: u64,
    pub free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

pub fn disk(path: &Path) -> nix::Result<Disk> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let block = stat.fragment_size() as u64;
    Ok(Disk {
        total: stat.blocks() as u64 * block,
        free: stat.blocks_available() as u64 * block,
        inodes: stat.files() as u64,
        inodes_free: stat.files_available() as u64,
    })
}

/// Reserved huge pages by size.
fn hugepages() -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")?.parse::<u64>().ok()) else {
            continue;
        };
        let count =
            fs::read_to_string(entry.path().join("nr_hugepages")).ok().and_then(|n| n.trim().parse::<u64>().ok());
        let size = Quantity::from_units((kib * 1024) as i64, Format::BinarySi);
        out.insert(format!("hugepages-{size}"), count.unwrap_or(0) * kib * 1024);
    }
    out
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux".to_owned(), |n| n.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_is_less_than_capacity() {
        let machine = Machine {
            cpus: 2,
            memory_bytes: 1 << 30,
            disk_bytes: 100 << 30,
            hugepages: BTreeMap::from([("hugepages-2Mi".to_owned(), 4 << 20)]),
            max_pods: 110,
            ..Default::default()
        };
        let text = |map: BTreeMap<String, Quantity>, key: &str| map[key].to_string();
        assert_eq!(text(machine.capacity(), "memory"), "1Gi");
        assert_eq!(text(machine.allocatable_all(), "memory"), "920Mi");
        assert_eq!(text(machine.allocatable_all(), "ephemeral-storage"), "90Gi");
        assert_eq!(text(machine.allocatable_all(), "hugepages-2Mi"), "4Mi");
        assert_eq!(text(machine.capacity(), "pods"), "110");
    }
}
