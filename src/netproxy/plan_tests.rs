use super::*;
use crate::netproxy::net;
use crate::netproxy::nft::Field;
use serde_json::{Value, json};

/// An element as people read it: `services 10.43.0.80 tcp 80 = 0 2`.
pub fn show(place: &Place, data: &Data) -> String {
    let set = rules::SETS.iter().find(|s| s.name == place.set).unwrap();
    let data = match data {
        Data::None => String::new(),
        Data::Value(value) => format!(" = {}", fields(set.data, value)),
        Data::Verdict(verdict) => format!(" = {verdict:?}"),
    };
    format!("{} {}{data}", place.set, fields(set.key, &place.key))
}

fn fields(kinds: &[Field], mut bytes: &[u8]) -> String {
    let mut words = Vec::new();
    for kind in kinds {
        let (value, rest) = bytes.split_at(kind.bytes(Family::V4));
        bytes = rest;
        words.push(match kind {
            Field::Address => net::address(value).unwrap().to_string(),
            Field::Proto => match i32::from(value[0]) {
                libc::IPPROTO_TCP => "tcp".into(),
                libc::IPPROTO_UDP => "udp".into(),
                other => other.to_string(),
            },
            Field::Port => u16::from_be_bytes([value[0], value[1]]).to_string(),
            Field::Number => u32::from_ne_bytes(value.try_into().unwrap()).to_string(),
            Field::Verdict => unreachable!(),
        });
    }
    assert!(bytes.is_empty(), "as long as the set's fields");
    words.join(" ")
}

fn plan_of(spec: Value, slices: Value) -> Plan {
    plan_in(Family::V4, spec, slices)
}

fn plan_in(family: Family, spec: Value, slices: Value) -> Plan {
    let metadata = json!({ "namespace": "default", "name": "web", "labels": spec["labels"] });
    let status = json!({ "loadBalancer": { "ingress": spec["ingress"] } });
    let object: Service =
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap();
    let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
    let slices: Vec<_> = slices.into_iter().map(Arc::new).collect();
    service(&object, &slices, Here { node_name: "here", zone: "", node_ip: "192.0.2.1".parse().unwrap(), family })
}

/// A slice of port 8080 with endpoints "address", "address@node", with "!" for leaving and "-" for not ready.
fn slice(endpoints: &[&str]) -> Value {
    let endpoint = |text: &&str| {
        let (marks, text) =
            (&text[..text.len() - text.trim_start_matches(['!', '-']).len()], text.trim_start_matches(['!', '-']));
        let (address, node) = text.split_once('@').unwrap_or((text, "there"));
        json!({ "addresses": [address], "nodeName": node, "conditions":
            { "ready": marks.is_empty(), "serving": marks != "-", "terminating": marks == "!" } })
    };
    json!({ "addressType": "IPv4", "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] })
}

fn check(spec: Value, endpoints: &[&str], expected: &[&str]) {
    let plan = plan_of(spec, json!([slice(endpoints)]));
    let shown: BTreeSet<String> = plan.elements.iter().map(|(place, data)| show(place, data)).collect();
    let expected: BTreeSet<String> = expected.iter().map(|s| (*s).to_owned()).collect();
    assert_eq!(shown, expected);
    for target in plan.elements.values().filter_map(|d| match d {
        Data::Verdict(Verdict::Goto(chain)) if chain != rules::REJECT => Some(chain),
        _ => None,
    }) {
        assert!(plan.chains.contains_key(target), "{target}");
    }
}

fn port() -> Value {
    json!([{ "name": "http", "port": 80 }])
}

#[test]
fn cluster_ip() {
    let spec = json!({ "clusterIP": "10.43.0.80", "ports": port() });
    check(
        spec.clone(),
        &["10.42.1.2", "10.42.0.2@here", "-10.42.0.3", "!10.42.0.4"],
        &[
            "services 10.43.0.80 tcp 80 = 0 2",
            "endpoints 10.43.0.80 tcp 80 0 = 10.42.0.2 8080",
            "endpoints 10.43.0.80 tcp 80 1 = 10.42.1.2 8080",
            "hairpin 10.42.0.2 10.42.0.2",
        ],
    );
    check(spec.clone(), &["-10.42.0.3"], &[]);
    check(
        spec,
        &["-10.42.0.3", "!10.42.0.4"],
        &["services 10.43.0.80 tcp 80 = 0 1", "endpoints 10.43.0.80 tcp 80 0 = 10.42.0.4 8080"],
    );
}

#[test]
fn node_port_with_affinity() {
    let spec = json!({ "type": "NodePort", "clusterIP": "10.43.0.80", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
        "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }] });
    check(
        spec,
        &["10.42.1.2"],
        &[
            "services 10.43.0.80 tcp 80 = 120 1",
            "nodeports tcp 30080 = 10.43.0.80 tcp 80 120 1",
            "endpoints 10.43.0.80 tcp 80 0 = 10.42.1.2 8080",
            "sticky 10.43.0.80 tcp 80 10.42.1.2 8080",
        ],
    );
}

#[test]
fn external_traffic_policy_local() {
    let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.43.0.80", "externalTrafficPolicy": "Local",
        "ingress": [{ "ip": "203.0.113.9" }, { "ip": "203.0.113.10", "ipMode": "Proxy" }, { "hostname": "x" }], "ports": port() });
    check(
        spec.clone(),
        &["10.42.1.2", "10.42.0.2@here"],
        &[
            "services 10.43.0.80 tcp 80 = 0 2",
            "external 203.0.113.9 tcp 80 = 10.43.0.80 tcp 80 0 2",
            "external-local 203.0.113.9 tcp 80 = 10.43.0.80 tcp 80 1 1",
            "endpoints 10.43.0.80 tcp 80 0 = 10.42.0.2 8080",
            "endpoints 10.43.0.80 tcp 80 1 = 10.42.1.2 8080",
            "endpoints-local 10.43.0.80 tcp 80 0 = 10.42.0.2 8080",
            "hairpin 10.42.0.2 10.42.0.2",
        ],
    );
    check(
        spec.clone(),
        &["10.42.1.2"],
        &[
            "services 10.43.0.80 tcp 80 = 0 1",
            "external 203.0.113.9 tcp 80 = 10.43.0.80 tcp 80 0 1",
            "external-local 203.0.113.9 tcp 80 = 10.43.0.80 tcp 80 1 0",
            "endpoints 10.43.0.80 tcp 80 0 = 10.42.1.2 8080",
            "no-endpoints 203.0.113.9 tcp 80 = Drop",
        ],
    );
    check(spec, &[], &["no-endpoints 203.0.113.9 tcp 80 = Goto(\"reject\")"]);
}

#[test]
fn what_is_not_served() {
    for spec in [
        json!({ "clusterIP": "None", "ports": port() }),
        json!({ "type": "ExternalName", "externalName": "example.org" }),
        json!({ "clusterIP": "fd00::80", "ports": port() }),
        json!({ "clusterIP": "10.43.0.80", "ports": port(), "labels": { "service.kubernetes.io/service-proxy-name": "x" } }),
        json!({ "clusterIP": "10.43.0.80", "ports": [{ "name": "other", "port": 80 }] }),
        json!({ "clusterIP": "10.43.0.80", "ports": [{ "name": "http", "port": 80, "protocol": "UDP" }] }),
        json!({ "clusterIP": "10.43.0.80", "ports": [{ "name": "http", "port": 99999 }] }),
    ] {
        let plan = plan_of(spec.clone(), json!([slice(&["10.42.1.2"])]));
        assert_eq!(plan.elements, BTreeMap::new(), "{spec}");
    }
}

#[test]
fn both_families_of_a_dual_stack_service() {
    let spec = json!({ "clusterIP": "10.43.0.80", "clusterIPs": ["10.43.0.80", "fd00::80"], "ports": port() });
    let six = json!({ "addressType": "IPv6", "endpoints": [{ "addresses": ["fd01::2"] }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] });
    let slices = json!([slice(&["10.42.1.2", "10.42.1.3"]), six]);
    let count =
        |family| plan_in(family, spec.clone(), slices.clone()).elements.keys().filter(|p| p.set == "endpoints").count();
    assert_eq!((count(Family::V4), count(Family::V6)), (2, 1));
}

#[test]
fn udp_fronts_name_their_endpoints() {
    let spec = json!({ "type": "NodePort", "clusterIP": "10.43.0.53",
        "ports": [{ "name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP" }] });
    let slices = json!([{ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.42.1.2"] }],
        "ports": [{ "name": "dns", "port": 5353, "protocol": "UDP" }] }]);
    let targets = BTreeSet::from(["10.42.1.2:5353".parse().unwrap()]);
    let front =
        |address: Option<&str>, port| (Front { address: address.map(|a| a.parse().unwrap()), port }, targets.clone());
    assert_eq!(plan_of(spec, slices).udp, BTreeMap::from([front(Some("10.43.0.53"), 53), front(None, 30053)]));
}
