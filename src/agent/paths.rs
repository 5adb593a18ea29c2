//! Where the agent keeps what belongs to pods, as upstream's kubelet lays it out.

use super::Config;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Paths {
    kubelet: PathBuf,
    log: PathBuf,
}

impl Paths {
    pub fn new(config: &Config) -> Self {
        Paths { kubelet: config.kubelet_dir.clone(), log: config.log_dir.clone() }
    }

    /// All pods' directories, named by uid.
    pub fn pods(&self) -> PathBuf {
        self.kubelet.join("pods")
    }

    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A volume's directory; `plugin` is upstream's escaped name (`kubernetes.io~empty-dir`).
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(plugin).join(name)
    }

    /// Bind mounts of a container's sub-paths.
    pub fn subpath(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    pub fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Directory of a container's termination messages.
    pub fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    /// `<log>/pods`
    pub fn pod_logs(&self) -> PathBuf {
        self.log.join("pods")
    }

    /// `<log>/pods/<namespace>_<name>_<uid>`
    pub fn pod_log(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs().join(format!("{namespace}_{name}_{uid}"))
    }

    /// A container's log relative to its pod's log directory.
    pub fn container_log(container: &str, attempt: u32) -> String {
        format!("{container}/{attempt}.log")
    }

    /// `<log>/containers`: one link a container, named so that log collectors know the pod.
    pub fn container_links(&self) -> PathBuf {
        self.log.join("containers")
    }

    pub fn container_link(&self, namespace: &str, pod: &str, container: &str, id: &str) -> PathBuf {
        self.container_links().join(format!("{pod}_{namespace}_{container}-{id}.log"))
    }
}
