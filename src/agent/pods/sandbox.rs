//! A pod's sandbox as the runtime wants it.

use super::{dns, hosts, security};
use crate::agent::context::Agent;
use crate::agent::labels;
use crate::agent::qos::{self, Qos};
use crate::agent::resources;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;

/// The configuration; also part of every container's creation.
pub fn config(agent: &Agent, pod: &Pod, attempt: u32) -> cri::PodSandboxConfig {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let (name, namespace, uid) = (text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    let host_network = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let resolver = dns::Resolver::of_node(&agent.config);
    cri::PodSandboxConfig {
        // On the host's network a pod has the host's name.
        hostname: if host_network { String::new() } else { hosts::hostname(&agent.config, pod) },
        log_directory: agent.paths.pod_log(&namespace, &name, &uid).to_string_lossy().into_owned(),
        dns_config: Some(dns::settings(&agent.config, &resolver, pod)),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: labels::of_sandbox(pod, &agent.instance),
        annotations: metadata.annotations.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        linux: Some(linux(agent, pod, &uid)),
        metadata: Some(cri::PodSandboxMetadata { name, uid, namespace, attempt }),
        windows: None,
    }
}

fn linux(agent: &Agent, pod: &Pod, uid: &str) -> cri::LinuxPodSandboxConfig {
    let limits = resources::pod_limits(pod);
    let sysctls = pod.spec.iter().flat_map(|s| &s.security_context).flat_map(|c| c.sysctls.iter().flatten());
    cri::LinuxPodSandboxConfig {
        cgroup_parent: agent.layout.pod_parent(Qos::of(pod), uid),
        security_context: Some(security::of_sandbox(pod, &agent.config.kubelet_dir)),
        sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
        overhead: Some(cri::LinuxContainerResources::default()),
        resources: Some(cri::LinuxContainerResources {
            cpu_shares: limits.cpu_shares.unwrap_or(0),
            cpu_quota: limits.cpu_quota_us.unwrap_or(0),
            cpu_period: crate::agent::cgroups::CPU_PERIOD_US,
            memory_limit_in_bytes: limits.memory_bytes.unwrap_or(0),
            oom_score_adj: qos::OOM_SCORE_SANDBOX,
            ..Default::default()
        }),
    }
}

/// Every declared port with a host port; the CNI plugin makes those reachable.
fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    let containers = super::plan::containers(pod);
    let ports = containers.iter().flat_map(|(_, c)| c.ports.iter().flatten());
    let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        };
        cri::PortMapping {
            protocol: protocol as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        }
    };
    ports.filter(|p| p.host_port.is_some_and(|n| n > 0)).map(mapping).collect()
}

/// System controls that are namespaced and harmless (upstream's safe set); others are refused.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Why this node does not take a pod: reason and message. None: it does.
pub fn refusal(pod: &Pod) -> Option<(&'static str, String)> {
    let spec = pod.spec.as_ref()?;
    let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    for sysctl in sysctls {
        let name = sysctl.name.replace('/', ".");
        let host_side = (spec.host_network == Some(true) && name.starts_with("net."))
            || (spec.host_ipc == Some(true) && name.starts_with("kernel.shm"));
        if host_side || !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Some(("SysctlForbidden", format!("forbidden sysctl: \"{}\" not allowlisted", sysctl.name)));
        }
    }
    None
}
