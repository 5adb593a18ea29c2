//! `/stats/summary`: upstream's `stats/v1alpha1.Summary`.

use super::network::Interface;
use super::{ContainerStats, PodStats, Rates, Snapshot, Usage};
use crate::agent::machine::Disk;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The document.
pub fn render(seen: &Snapshot, rates: &Rates) -> Value {
    let time = text(Some(seen.time));
    let mut memory = memory(&time, &seen.usage);
    memory["availableBytes"] = seen.memory_available.into();
    let disk = seen.disk.as_ref().map(|d| filesystem(&time, d));
    json!({
        "node": {
            "nodeName": seen.node,
            "startTime": text(seen.booted),
            "cpu": cpu(&time, &seen.usage, rates.nano_cores("node", seen.usage.cpu_ns)),
            "memory": memory,
            "network": network(&time, &seen.interfaces),
            "fs": disk,
            "runtime": {"imageFs": disk},
            "rlimit": {"time": time, "maxpid": seen.processes.1, "curproc": seen.processes.0},
        },
        "pods": seen.pods.iter().map(|p| pod(seen, p, rates)).collect::<Vec<_>>(),
    })
}

fn pod(seen: &Snapshot, pod: &PodStats, rates: &Rates) -> Value {
    let time = text(Some(seen.time));
    let used: u64 = pod.containers.iter().map(|c| c.log_bytes + c.layer.map_or(0, |l| l.0)).sum();
    let mut storage = seen.disk.as_ref().map(|d| filesystem(&time, d)).unwrap_or_default();
    storage["usedBytes"] = used.into();
    json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": text(pod.started),
        "containers": pod.containers.iter().map(|c| container(seen, &pod.uid, c, rates)).collect::<Vec<_>>(),
        "cpu": cpu(&time, &pod.usage, rates.nano_cores(&pod.uid, pod.usage.cpu_ns)),
        "memory": memory(&time, &pod.usage),
        "network": network(&time, &pod.interfaces),
        "ephemeral-storage": storage,
    })
}

fn container(seen: &Snapshot, uid: &str, container: &ContainerStats, rates: &Rates) -> Value {
    let time = text(Some(seen.time));
    let disk = |bytes: u64, inodes: Option<u64>| {
        let mut fs = seen.disk.as_ref().map(|d| filesystem(&time, d)).unwrap_or_default();
        fs["usedBytes"] = bytes.into();
        fs["inodesUsed"] = inodes.into();
        fs
    };
    let entity = format!("{uid}/{}", container.name);
    json!({
        "name": container.name,
        "startTime": text(container.started),
        "cpu": cpu(&time, &container.usage, rates.nano_cores(&entity, container.usage.cpu_ns)),
        "memory": memory(&time, &container.usage),
        "rootfs": container.layer.map(|(bytes, inodes)| disk(bytes, Some(inodes))),
        "logs": disk(container.log_bytes, None),
    })
}

fn cpu(time: &str, usage: &Usage, nano_cores: Option<u64>) -> Value {
    let mut cpu = json!({"time": time, "usageCoreNanoSeconds": usage.cpu_ns});
    if let Some(rate) = nano_cores {
        cpu["usageNanoCores"] = rate.into();
    }
    cpu
}

fn memory(time: &str, usage: &Usage) -> Value {
    json!({"time": time, "usageBytes": usage.memory, "workingSetBytes": usage.working_set, "rssBytes": usage.rss,
        "pageFaults": usage.faults, "majorPageFaults": usage.major_faults})
}

fn filesystem(time: &str, disk: &Disk) -> Value {
    json!({"time": time, "availableBytes": disk.free, "capacityBytes": disk.total,
        "usedBytes": disk.total.saturating_sub(disk.free), "inodesFree": disk.inodes_free, "inodes": disk.inodes,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free)})
}

/// The first interface stands for all, as upstream's `eth0` does.
fn network(time: &str, interfaces: &[Interface]) -> Value {
    let one = |i: &Interface| {
        json!({"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes,
            "txErrors": i.tx_errors})
    };
    let Some(first) = interfaces.iter().find(|i| i.name == "eth0").or_else(|| interfaces.first()) else {
        return Value::Null;
    };
    let mut network = one(first);
    network["time"] = time.into();
    network["interfaces"] = interfaces.iter().map(one).collect();
    network
}

fn text(time: Option<Timestamp>) -> String {
    time.map(crate::time::rfc3339).unwrap_or_default()
}
