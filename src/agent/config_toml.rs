//! containerd's configuration, generated at each start. Version 2: containerd 1.6 knows no other, 2.x migrates it.

use super::cgroups::Layout;
use super::containerd::{Programs, socket};
use super::{Config, pause};
use std::fmt::Write;
use std::path::PathBuf;

/// What differs between nodes and instances.
#[derive(Clone, Debug)]
pub struct Settings {
    pub root: PathBuf,
    pub state: PathBuf,
    pub socket: PathBuf,
    pub registry_config: PathBuf,
    pub cni_conf: PathBuf,
    pub cni_bin: PathBuf,
    /// Where runc keeps its state.
    pub runtime_root: PathBuf,
    pub runtime: PathBuf,
    pub systemd_cgroup: bool,
    /// We may not lower `oom_score_adj` (no CAP_SYS_RESOURCE): containers get what is permitted.
    pub restrict_oom_score_adj: bool,
}

impl Settings {
    pub fn of(config: &Config, programs: &Programs, cgroup: &Layout) -> Self {
        let (cni_conf, cni_bin) = match config.foreign_cni {
            true => ("/etc/cni/net.d".into(), "/opt/cni/bin".into()),
            false => (config.dir.join("cni/net.d"), config.dir.join("cni/bin")),
        };
        Settings {
            root: config.dir.join("containerd"),
            state: config.run_dir.join("containerd"),
            socket: socket(config),
            registry_config: config.dir.join("certs.d"),
            cni_conf,
            cni_bin,
            runtime_root: config.run_dir.join("runc"),
            runtime: programs.runtime.clone(),
            systemd_cgroup: cgroup.systemd,
            restrict_oom_score_adj: !may_lower_oom_score(),
        }
    }
}

/// CAP_SYS_RESOURCE (bit 24) among our effective capabilities.
fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps & CAP_SYS_RESOURCE != 0)
}

/// Plugins that an edge node never uses; each costs memory or start time, and `opt` makes a directory outside ours.
const DISABLED: [&str; 6] = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The file.
pub fn render(s: &Settings) -> String {
    let mut out = String::from("# Written by kedge at each start.\nversion = 2\n");
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!("root = {}", quoted(&s.root)));
    line(format!("state = {}", quoted(&s.state)));
    line(format!("disabled_plugins = {}", serde_json::json!(DISABLED)));
    // The kernel should rather end a pod; where we may not lower the score, asking for it would fail the start.
    line(format!("oom_score = {}", if s.restrict_oom_score_adj { 0 } else { -999 }));
    line("[grpc]".into());
    line(format!("address = {}", quoted(&s.socket)));
    line("[plugins.\"io.containerd.grpc.v1.cri\"]".into());
    line(format!("sandbox_image = \"{}\"", pause::IMAGE));
    line("stream_server_address = \"127.0.0.1\"".into());
    line("stream_server_port = \"0\"".into());
    line("enable_unprivileged_ports = true".into());
    line("enable_unprivileged_icmp = true".into());
    line("netns_mounts_under_state_dir = true".into());
    line(format!("restrict_oom_score_adj = {}", s.restrict_oom_score_adj));
    line("[plugins.\"io.containerd.grpc.v1.cri\".cni]".into());
    line(format!("conf_dir = {}", quoted(&s.cni_conf)));
    line(format!("bin_dir = {}", quoted(&s.cni_bin)));
    line("[plugins.\"io.containerd.grpc.v1.cri\".registry]".into());
    line(format!("config_path = {}", quoted(&s.registry_config)));
    line("[plugins.\"io.containerd.grpc.v1.cri\".containerd]".into());
    line("default_runtime_name = \"runc\"".into());
    line("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]".into());
    line("runtime_type = \"io.containerd.runc.v2\"".into());
    line("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]".into());
    line(format!("BinaryName = {}", quoted(&s.runtime)));
    line(format!("Root = {}", quoted(&s.runtime_root)));
    line(format!("SystemdCgroup = {}", s.systemd_cgroup));
    out
}

/// A TOML basic string (JSON's escapes are a subset of TOML's).
fn quoted(path: &std::path::Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
