//! Cgroups of pods: version 1 and 2, by files or by systemd (upstream's `kubepods` tree).
//!
//! ```text
//! <root>/pod<uid>                Guaranteed        (cgroupfs)
//! <root>/burstable/pod<uid>      Burstable
//! <root>/besteffort/pod<uid>     BestEffort
//! kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice    (systemd)
//! ```

use super::qos::Qos;
use super::slices;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How this machine's cgroups look, and where ours are.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Version 2 only, mounted at `/sys/fs/cgroup`.
    pub unified: bool,
    /// systemd owns the tree: pods get slices.
    pub systemd: bool,
    /// Slash path (`/kubepods`) of the pods' root.
    root: String,
}

const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers whose version 1 trees we write to ourselves; runc makes the others.
const V1_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// CPU quota period, microseconds.
pub const CPU_PERIOD_US: i64 = 100_000;
/// The least a cgroup may weigh.
pub const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;

/// Limits of one pod (or tier). None: none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub cpu_shares: Option<i64>,
    pub cpu_quota_us: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub pids: Option<i64>,
}

impl Layout {
    /// Look at the machine. `root` is the instance's pods root, `/kubepods` by default.
    pub fn detect(root: &str) -> Self {
        let unified = Path::new(MOUNT).join("cgroup.controllers").exists();
        let systemd = Path::new("/run/systemd/system").is_dir();
        Layout { unified, systemd, root: format!("/{}", root.trim_matches('/')) }
    }

    /// A pod's cgroup as the runtime wants it in `cgroup_parent`.
    pub fn pod_parent(&self, qos: Qos, uid: &str) -> String {
        if self.systemd { slice_name(&self.parts(qos, Some(uid))) } else { self.slash(&self.parts(qos, Some(uid))) }
    }

    /// Names from the root to a tier, or to a pod in it.
    fn parts(&self, qos: Qos, uid: Option<&str>) -> Vec<String> {
        let mut parts: Vec<String> = self.root.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        match qos {
            Qos::Guaranteed => {}
            Qos::Burstable => parts.push("burstable".into()),
            Qos::BestEffort => parts.push("besteffort".into()),
        }
        parts.extend(uid.map(|uid| format!("pod{uid}")));
        parts
    }

    fn slash(&self, parts: &[String]) -> String {
        format!("/{}", parts.join("/"))
    }

    /// Directories (one in version 2, one a controller in version 1) of a tier or pod.
    fn dirs(&self, parts: &[String]) -> Vec<PathBuf> {
        let below = if self.systemd { slice_path(parts) } else { parts.join("/") };
        if self.unified {
            return vec![Path::new(MOUNT).join(below)];
        }
        V1_CONTROLLERS.iter().map(|c| Path::new(MOUNT).join(c)).filter(|d| d.is_dir()).map(|d| d.join(&below)).collect()
    }

    /// Where the counters of a pod, or of one of its containers, are: in version 1 below that controller.
    pub fn place(&self, controller: &str, qos: Qos, uid: &str, container: Option<&str>) -> PathBuf {
        let parts = self.parts(qos, Some(uid));
        let root = if self.unified { PathBuf::from(MOUNT) } else { Path::new(MOUNT).join(controller) };
        let pod = root.join(if self.systemd { slice_path(&parts) } else { parts.join("/") });
        match container {
            Some(id) if self.systemd => pod.join(format!("cri-containerd-{id}.scope")),
            Some(id) => pod.join(id),
            None => pod,
        }
    }

    /// Make a pod's cgroup with its limits; may block for some milliseconds. Errors are for the log: a host may refuse some controllers, and then
    /// containers still have limits of their own.
    pub fn ensure_pod(&self, qos: Qos, uid: &str, limits: &Limits) -> io::Result<()> {
        self.ensure(&self.parts(qos, Some(uid)), limits)
    }

    /// Make a tier's cgroup with its weight.
    pub fn ensure_tier(&self, qos: Qos, limits: &Limits) -> io::Result<()> {
        self.ensure(&self.parts(qos, None), limits)
    }

    fn ensure(&self, parts: &[String], limits: &Limits) -> io::Result<()> {
        if self.systemd {
            return slices::set(&slice_name(parts), limits);
        }
        for dir in self.dirs(parts) {
            if self.unified {
                enable_controllers(&dir)?;
            }
            fs::create_dir_all(&dir)?;
            for (file, value) in self.settings(limits) {
                let path = dir.join(file);
                if path.exists() {
                    fs::write(&path, &value)
                        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
                }
            }
        }
        Ok(())
    }

    fn settings(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let or_max = |n: Option<i64>| n.map_or("max".to_owned(), |n| n.to_string());
        let shares = limits.cpu_shares.map(|s| s.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX));
        let mut out = Vec::new();
        if self.unified {
            out.extend(shares.map(|s| ("cpu.weight", weight_of_shares(s).to_string())));
            out.push(("cpu.max", format!("{} {CPU_PERIOD_US}", or_max(limits.cpu_quota_us))));
            out.push(("memory.max", or_max(limits.memory_bytes)));
        } else {
            out.extend(shares.map(|s| ("cpu.shares", s.to_string())));
            if let Some(quota) = limits.cpu_quota_us {
                out.push(("cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
                out.push(("cpu.cfs_quota_us", quota.to_string()));
            }
            out.extend(limits.memory_bytes.map(|m| ("memory.limit_in_bytes", m.to_string())));
        }
        out.extend(limits.pids.map(|p| ("pids.max", p.to_string())));
        out
    }

    /// Remove a pod's cgroup in every hierarchy. Busy ones stay (a process is still dying); the caller tries again.
    /// May block for some milliseconds.
    pub fn remove_pod(&self, qos: Qos, uid: &str) {
        self.remove(&self.parts(qos, Some(uid)));
    }

    /// Pods that have a cgroup in our tree.
    pub fn pods(&self) -> Vec<(Qos, String)> {
        let mut found = Vec::new();
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            for dir in self.everywhere(&self.parts(qos, None)) {
                for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if let Some(uid) = self.uid_of(&name)
                        && entry.path().is_dir()
                        && !found.contains(&(qos, uid.clone()))
                    {
                        found.push((qos, uid));
                    }
                }
            }
        }
        found
    }

    /// The pod's uid in the name of a cgroup directory.
    fn uid_of(&self, name: &str) -> Option<String> {
        if self.systemd {
            let name = name.strip_suffix(".slice")?;
            let uid = name.rsplit_once("-pod")?.1;
            return Some(uid.replace('_', "-"));
        }
        name.strip_prefix("pod").map(str::to_owned)
    }

    /// Like [`Layout::dirs`], with the hierarchies that only runc writes to.
    fn everywhere(&self, parts: &[String]) -> Vec<PathBuf> {
        if self.unified {
            return self.dirs(parts);
        }
        let below = if self.systemd { slice_path(parts) } else { parts.join("/") };
        let hierarchies = fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|e| e.path().join(&below));
        hierarchies.filter(|d| d.is_dir()).collect()
    }

    /// Remove the whole tree of this instance (uninstall, tests).
    pub fn remove_all(&self) {
        self.remove(&self.parts(Qos::Guaranteed, None));
    }

    fn remove(&self, parts: &[String]) {
        let dirs: Vec<PathBuf> = self.everywhere(parts).into_iter().filter(|d| d.is_dir()).collect();
        if self.systemd
            && !dirs.is_empty()
            && let Err(error) = slices::stop(&slice_name(parts))
        {
            tracing::debug!("{error}");
        }
        for dir in dirs {
            remove_tree(&dir);
        }
    }
}

/// Remove empty cgroup directories, deepest first. Files in them are the kernel's and go with them.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Turn on cpu, memory and pids for the children of every ancestor below the mount.
fn enable_controllers(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    if parent.starts_with(MOUNT) && parent != Path::new(MOUNT) {
        enable_controllers(parent)?;
    }
    fs::create_dir_all(parent)?;
    for controller in ["+cpu", "+memory", "+pids", "+cpuset"] {
        // A host may not delegate some; the limits of those are skipped.
        let _ = fs::write(parent.join("cgroup.subtree_control"), controller);
    }
    Ok(())
}

/// runc's and crun's conversion of shares (2..262144) to weight (1..10000).
pub fn weight_of_shares(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

/// CPU shares of a request.
pub fn shares_of_milli(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// CPU quota of a limit, microseconds a period; never below the kernel's least of 1 ms.
pub fn quota_of_milli(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(1000)
}

/// `kubepods-burstable-pod1_2.slice`: systemd reads a dash as a level.
fn slice_name(parts: &[String]) -> String {
    let escaped: Vec<String> = parts.iter().map(|p| p.replace('-', "_")).collect();
    format!("{}.slice", escaped.join("-"))
}

/// The directory of a slice: each level repeats its ancestors' names.
fn slice_path(parts: &[String]) -> String {
    (1..=parts.len()).map(|n| slice_name(&parts[..n])).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(systemd: bool) -> Layout {
        Layout { unified: true, systemd, root: "/kubepods".into() }
    }

    #[test]
    fn parents_by_driver() {
        let cases = [
            (false, Qos::Guaranteed, "/kubepods/poda-b"),
            (false, Qos::BestEffort, "/kubepods/besteffort/poda-b"),
            (true, Qos::Burstable, "kubepods-burstable-poda_b.slice"),
            (true, Qos::Guaranteed, "kubepods-poda_b.slice"),
        ];
        for (systemd, qos, wanted) in cases {
            assert_eq!(layout(systemd).pod_parent(qos, "a-b"), wanted);
        }
        let parts = layout(true).parts(Qos::Burstable, Some("a-b"));
        assert_eq!(slice_path(&parts), "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice");
        assert_eq!(layout(true).uid_of("kubepods-burstable-poda_b.slice").as_deref(), Some("a-b"));
    }

    #[test]
    fn cpu_numbers() {
        for (milli, shares, quota) in [(0, 2, 1000), (1, 2, 1000), (100, 102, 10_000), (1000, 1024, 100_000)] {
            assert_eq!((shares_of_milli(milli), quota_of_milli(milli)), (shares, quota), "{milli}m");
        }
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight);
        }
    }
}
