//! EndpointSlice (`discovery.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    storage: "endpointslices",
    columns: &[Column::NAME, text("AddressType"), text("Ports"), text("Endpoints"), Column::AGE],
    strategy: &EndpointSlice,
    ..Kind::BASE
};

/// Ports and addresses that a row shows before ` + N more...`.
const SHOWN: usize = 3;

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, slice: &mut Object) {
        for port in items(slice, "ports") {
            default_nil(port, "name", "");
            default_nil(port, "protocol", "TCP");
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, slice: &Object, errors: &mut Errors) {
        check(slice, errors, |slice| {
            slice.get("addressType").require_one_of(&["FQDN", "IPv4", "IPv6"]);
            let endpoints = slice.get("endpoints");
            if endpoints.len() > MAX_ENDPOINTS {
                endpoints.too_many(MAX_ENDPOINTS);
            } else {
                endpoints.items().for_each(|endpoint| validate_endpoint(&endpoint, slice.get("addressType").str()));
            }
            validate_ports(&slice.get("ports"));
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| new.get("addressType").immutable(&old.get("addressType")));
    }

    fn row(&self, slice: &Object, now: i64) -> Vec<Value> {
        let port = |p: &Value| int_at(p, &["port"]).map_or_else(|| "*".to_owned(), |n| n.to_string());
        let ports: Vec<String> = list(slice, "ports").iter().map(port).collect();
        let addresses = list(slice, "endpoints").iter().flat_map(|e| list(e, "addresses"));
        let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
        vec![
            slice.name().into(),
            string(slice, &["addressType"]),
            or(&some_of(&ports, SHOWN), UNSET),
            or(&some_of(&addresses, SHOWN), UNSET),
            age(slice, now),
        ]
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;

fn validate_endpoint(endpoint: &View<'_>, address_type: &str) {
    let addresses = endpoint.get("addresses");
    if addresses.is_empty() {
        addresses.required("must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        addresses.too_many(MAX_ADDRESSES);
    }
    for address in addresses.items() {
        match (address_type, rules::parse_ip(address.str())) {
            ("IPv4", Some(ip)) if ip.is_ipv4() => rules::non_special_ip(&address),
            ("IPv6", Some(ip)) if ip.is_ipv6() => rules::non_special_ip(&address),
            ("IPv4", _) => address.invalid("must be a valid IPv4 address"),
            ("IPv6", _) => address.invalid("must be a valid IPv6 address"),
            ("FQDN", _) => address.format(names::dns_subdomain),
            _ => {}
        }
    }
    let name = endpoint.get("nodeName");
    if name.is_set() {
        name.format(names::dns_subdomain);
    }
    if endpoint.get("hostname").is_set() {
        endpoint.get("hostname").format(names::dns_label);
    }
    rules::labels(&endpoint.get("deprecatedTopology"));
    for (kind, hint) in [("forZones", "zone"), ("forNodes", "node")] {
        let hints = endpoint.get("hints").get(kind);
        if hints.len() > MAX_HINTS {
            hints.too_many(MAX_HINTS);
        }
        let mut seen = BTreeSet::new();
        for name in hints.items().map(|h| h.get("name")) {
            if !seen.insert(name.str()) {
                name.duplicate();
            }
            if hint == "zone" { name.formats(names::label_value) } else { name.format(names::dns_subdomain) }
        }
    }
}

fn validate_ports(ports: &View<'_>) {
    if ports.len() > MAX_PORTS {
        return ports.too_many(MAX_PORTS);
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        name.format_if_set(names::dns_label);
        if !seen.insert(name.str()) {
            name.duplicate_value(name.str());
        }
        port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"]);
        if port.get("appProtocol").is_set() {
            port.get("appProtocol").formats(names::qualified_name);
        }
    }
}
