//! The agent: kubelet over CRI (DESIGN D6). Sees the cluster through `client` and `cache` only.

pub mod api;
pub mod cgroups;
pub mod config_toml;
pub mod containerd;
pub mod cri;
pub mod images;
pub mod pause;
pub mod qos;
pub mod resources;

use std::net::IpAddr;
use std::path::PathBuf;

/// Everything the agent needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    pub node_labels: Vec<(String, String)>,
    /// `<data-dir>/agent`
    pub dir: PathBuf,
    /// `/run/kedge` (or an instance's own)
    pub run_dir: PathBuf,
    /// Pod volumes and plugins: `<data-dir>/agent/kubelet`.
    pub kubelet_dir: PathBuf,
    /// `/var/log/pods`, `/var/log/containers`
    pub log_dir: PathBuf,
    /// Parent of all pod cgroups: `/kubepods` (an instance's own in tests).
    pub cgroup_root: String,
    /// A foreign CRI socket; None: our own containerd.
    pub container_runtime_endpoint: Option<String>,
    /// The resolver file pods inherit.
    pub resolv_conf: Option<PathBuf>,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Port of the kubelet's HTTPS API (10250).
    pub kubelet_port: u16,
    /// PEM files: serving certificate of the kubelet API, the CA that signs clients.
    pub serving_cert: PathBuf,
    pub serving_key: PathBuf,
    pub client_ca: PathBuf,
    pub max_pods: u32,
}
