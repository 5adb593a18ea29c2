//! What others read about this node: `/stats/summary`, `/metrics`, `/metrics/resource`, `/configz`.

use super::Pods;
use crate::agent::Config;
use crate::agent::stats::{Rates, resource, summary};
use crate::status::{Result, Status};
use axum::body::Body;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use std::fmt::Write;

/// `/stats/summary`.
pub async fn stats(pods: &dyn Pods, rates: &Rates) -> Result<Response<Body>> {
    let seen = pods.snapshot().await.map_err(Status::internal)?;
    super::json(&summary::render(&seen, rates))
}

/// `/metrics/resource`.
pub async fn resources(pods: &dyn Pods) -> Result<Response<Body>> {
    let seen = pods.snapshot().await;
    if let Err(error) = &seen {
        tracing::warn!(error = format!("{error:#}"), "the node's usage cannot be read");
    }
    Ok(metrics_text(resource::render(seen.ok().as_ref())))
}

/// `/metrics`: the kubelet's own.
pub async fn metrics(pods: &dyn Pods) -> Result<Response<Body>> {
    let seen = pods.snapshot().await.map_err(Status::internal)?;
    let containers: usize = seen.pods.iter().map(|p| p.containers.len()).sum();
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, labels: &str, value: u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}");
    };
    gauge("kubelet_node_name", "The node's name. The count is always 1.", &format!("{{node=\"{}\"}}", seen.node), 1);
    gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox", "", seen.pods.len() as u64);
    let state = "{container_state=\"running\"}";
    gauge("kubelet_running_containers", "Number of containers currently running", state, containers as u64);
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", "", resident());
    Ok(metrics_text(out))
}

/// `/configz`: what this kubelet does, in the terms of upstream's KubeletConfiguration.
pub fn configz(config: &Config) -> Value {
    json!({"kubeletconfig": {
        "enableServer": true, "port": config.kubelet_port, "address": "0.0.0.0",
        "authentication": {"x509": {"clientCAFile": ""}, "webhook": {"enabled": true}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook"},
        "clusterDomain": config.cluster_domain, "clusterDNS": [config.cluster_dns],
        "resolvConf": config.resolv_conf, "maxPods": config.max_pods, "cgroupRoot": config.cgroup_root,
        "podLogsDir": config.log_dir.join("pods"), "rotateCertificates": true, "serverTLSBootstrap": true,
        "nodeLeaseDurationSeconds": 40, "enableDebuggingHandlers": true, "enableSystemLogHandler": true,
        "failSwapOn": false, "containerRuntimeEndpoint": config.container_runtime_endpoint,
    }})
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * page as u64
}

fn metrics_text(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
