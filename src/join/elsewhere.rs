//! An agent learns where its server answers: the endpoints of Service `default/kubernetes` are kept with everything
//! else, and tried when the configured address does not answer.

use crate::cache::{Cache, Caches};
use crate::client::Line;
use crate::task::Group;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Follow the published addresses until the group ends.
pub fn follow(line: Line, caches: &Arc<Caches>, group: &Group) {
    let slices = caches.of::<EndpointSlice>();
    group.spawn("server addresses", async move {
        let mut changes = slices.subscribe();
        slices.synced().await;
        let mut known = Vec::new();
        loop {
            let published = published(&slices);
            if !published.is_empty() && known != published {
                line.also_at(published.clone());
                known = published;
            }
            if changes.next().await.is_none() {
                return;
            }
            while changes.next_change_now().is_some() {}
        }
    });
}

fn published(slices: &Cache<EndpointSlice>) -> Vec<SocketAddr> {
    let is_ours = |slice: &&Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|l| l.get("kubernetes.io/service-name")).is_some_and(|name| name == "kubernetes")
    };
    let mut found: Vec<SocketAddr> =
        slices.list_in("default").iter().filter(is_ours).flat_map(|slice| addresses(slice)).collect();
    found.sort();
    found.dedup();
    found
}

fn addresses(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten().filter(|p| p.name.as_deref() == Some("https")).filter_map(|p| p.port);
    let ports: Vec<u16> = ports.filter_map(|p| u16::try_from(p).ok()).collect();
    let ips = slice.endpoints.iter().flatten().flat_map(|e| &e.addresses).filter_map(|a| a.parse::<IpAddr>().ok());
    // A server that is reached on its own host alone tells nobody else anything.
    let ips = ips.filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    ips.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_apis_own_endpoints_count() {
        let slice = |namespace: &str, service: &str, ip: &str| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {"namespace": namespace, "name": format!("{service}-{ip}"), "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "endpoints": [{"addresses": [ip]}],
                "ports": [{"name": "https", "port": 6443}, {"name": "other", "port": 1}],
            }))
            .unwrap()
        };
        let cache = Cache::fixed([
            slice("default", "kubernetes", "192.0.2.9"),
            slice("default", "kubernetes", "192.0.2.1"),
            slice("default", "kubernetes", "127.0.0.1"),
            slice("default", "web", "192.0.2.2"),
            slice("evil", "kubernetes", "192.0.2.3"),
        ]);
        let wanted: Vec<SocketAddr> = ["192.0.2.1:6443", "192.0.2.9:6443"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(published(&cache), wanted);
    }
}
