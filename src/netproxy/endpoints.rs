//! Which endpoints of a Service port are used, from its EndpointSlices. Pure.
//!
//! Ready ones; when there are none, those on their way out that still serve (KEP-1669). When every ready endpoint says for
//! whom it is, and one is for this node or its zone, only those that are (KEP-2433, KEP-3015: `trafficDistribution`).

use super::net::Family;
use super::plan::{Here, protocol};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Endpoints of one Service port that are used; of more, the first by address.
const MAX_ENDPOINTS: usize = 10_000;

/// The endpoints that one Service port uses.
#[derive(Debug, Default)]
pub struct Endpoints {
    pub all: Vec<SocketAddr>,
    /// On this node.
    pub local: Vec<SocketAddr>,
}

/// What matters of an endpoint, and whether this node or its zone is among those it is for (None: it does not say).
#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    ready: bool,
    local: bool,
    for_node: Option<bool>,
    for_zone: Option<bool>,
}

/// Do clients get an answer from this endpoint now?
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// Does it still answer although it is going away?
fn is_leaving(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let is = |of: fn(&EndpointConditions) -> Option<bool>| conditions.and_then(of) == Some(true);
    is(|c| c.serving) && is(|c| c.terminating)
}

/// The endpoints of a Service port on this node and in all.
pub fn endpoints(port: &ServicePort, slices: &[Arc<EndpointSlice>], here: Here<'_>) -> Endpoints {
    let mut found: BTreeMap<SocketAddr, Candidate> = BTreeMap::new();
    for slice in slices {
        let same = |p: &&EndpointPort| {
            p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
        };
        let number = slice.ports.iter().flatten().find(same).and_then(|p| u16::try_from(p.port?).ok());
        let Some(number) = number else { continue };
        for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e) || is_leaving(e)) {
            // All addresses of an endpoint mean the same; consumers use the first (API documentation).
            let address = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
            if let Some(address) = address.filter(|a| Family::of(*a) == here.family) {
                let entry = found.entry(SocketAddr::new(address, number)).or_default();
                // While a slice is rewritten an endpoint may be in two of them: ready in one is ready.
                if !entry.ready {
                    *entry = candidate(endpoint, here);
                }
            }
        }
    }
    let near = nearness(found.values());
    let all = pick(&found, |_| true, near);
    Endpoints { all, local: pick(&found, |c| c.local, |_| true) }
}

fn candidate(endpoint: &Endpoint, here: Here<'_>) -> Candidate {
    let hints = endpoint.hints.clone().unwrap_or_default();
    let nodes: Vec<String> = hints.for_nodes.unwrap_or_default().into_iter().map(|n| n.name).collect();
    let zones: Vec<String> = hints.for_zones.unwrap_or_default().into_iter().map(|z| z.name).collect();
    let among = |names: &[String], own: &str| (!names.is_empty()).then(|| names.iter().any(|name| name == own));
    Candidate {
        ready: is_ready(endpoint),
        local: endpoint.node_name.as_deref() == Some(here.node_name),
        for_node: among(&nodes, here.node_name),
        for_zone: among(&zones, here.zone),
    }
}

/// Which endpoints are near enough: hints count only when all ready endpoints have them, and one is for us.
fn nearness<'a>(all: impl Iterator<Item = &'a Candidate> + Clone) -> fn(&Candidate) -> bool {
    let ready = all.filter(|c| c.ready);
    let hinted = |hint: fn(&Candidate) -> Option<bool>| {
        ready.clone().all(|c| hint(c).is_some()) && ready.clone().any(|c| hint(c) == Some(true))
    };
    if hinted(|c| c.for_node) {
        |c| c.for_node == Some(true)
    } else if hinted(|c| c.for_zone) {
        |c| c.for_zone == Some(true)
    } else {
        |_| true
    }
}

/// Those that are ready and near; when there are none, those on their way out, near or not.
fn pick(
    found: &BTreeMap<SocketAddr, Candidate>,
    among: fn(&Candidate) -> bool,
    near: fn(&Candidate) -> bool,
) -> Vec<SocketAddr> {
    let candidates = || found.iter().filter(|(_, c)| among(c));
    let ready: Vec<_> = candidates().filter(|(_, c)| c.ready && near(c)).collect();
    let chosen = if ready.is_empty() { candidates().filter(|(_, c)| !c.ready).collect() } else { ready };
    chosen.into_iter().map(|(address, _)| *address).take(MAX_ENDPOINTS).collect()
}

/// How many endpoints of this node take new connections, for load balancers that ask (`healthCheckNodePort`).
pub fn local_ready(slices: &[Arc<EndpointSlice>], node_name: &str) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let local = endpoints.filter(|e| is_ready(e) && e.node_name.as_deref() == Some(node_name));
    local.filter_map(|e| e.addresses.first()).collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Endpoints "address node zone/node-hint zone-hint", "-" for none; a "!" before the address for one that is leaving.
    fn used(zone: &str, endpoints: &[&str]) -> Vec<String> {
        let endpoint = |text: &&str| {
            let mut words = text.split(' ');
            let address = words.next().unwrap();
            let leaving = address.starts_with('!');
            let node = words.next().unwrap();
            let hint = |word: Option<&str>| match word {
                None | Some("-") => json!([]),
                Some(name) => json!([{ "name": name }]),
            };
            let (nodes, zones) = (hint(words.next()), hint(words.next()));
            json!({ "addresses": [address.trim_start_matches('!')], "nodeName": node,
                "conditions": { "ready": !leaving, "serving": true, "terminating": leaving },
                "hints": { "forNodes": nodes, "forZones": zones } })
        };
        let slice = json!({ "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() });
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let here = Here { node_name: "here", zone, node_ip: [192, 0, 2, 1].into(), family: Family::V4 };
        let port = ServicePort { port: 80, ..ServicePort::default() };
        super::endpoints(&port, &slices, here).all.iter().map(|a| a.ip().to_string()).collect()
    }

    #[test]
    fn near_endpoints_are_preferred() {
        let cases: [(&str, &[&str], &[&str]); 9] = [
            ("z", &["10.0.0.1 here", "10.0.0.2 there"], &["10.0.0.1", "10.0.0.2"]),
            ("z", &["10.0.0.1 here - z", "10.0.0.2 there - y"], &["10.0.0.1"]),
            ("z", &["10.0.0.1 here here z", "10.0.0.2 there there z"], &["10.0.0.1"]),
            ("z", &["10.0.0.1 other other z", "10.0.0.2 there there z"], &["10.0.0.1", "10.0.0.2"]),
            // Nobody is for this zone, the node has none, or one endpoint does not say: everybody.
            ("x", &["10.0.0.1 here - z", "10.0.0.2 there - y"], &["10.0.0.1", "10.0.0.2"]),
            ("", &["10.0.0.1 here - z", "10.0.0.2 there - y"], &["10.0.0.1", "10.0.0.2"]),
            ("z", &["10.0.0.1 here - z", "10.0.0.2 there"], &["10.0.0.1", "10.0.0.2"]),
            // What is leaving has no say, and serves only when nobody else does.
            ("z", &["10.0.0.1 here - z", "!10.0.0.2 there"], &["10.0.0.1"]),
            ("z", &["!10.0.0.1 here - y", "!10.0.0.2 there - z"], &["10.0.0.1", "10.0.0.2"]),
        ];
        for (zone, endpoints, expected) in cases {
            assert_eq!(used(zone, endpoints), expected, "{zone} {endpoints:?}");
        }
    }
}
