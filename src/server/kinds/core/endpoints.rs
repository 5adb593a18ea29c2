//! Endpoints (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    storage: "services/endpoints",
    columns: &[Column::NAME, text("Endpoints"), Column::AGE],
    strategy: &Endpoints,
    ..Kind::BASE
};

/// Addresses that a row shows before ` + N more...`.
const SHOWN: usize = 3;

struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, endpoints: &mut Object) {
        for subset in items(endpoints, "subsets") {
            for port in items(subset, "ports") {
                default_zero(port, "protocol", "TCP");
            }
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, endpoints: &Object, errors: &mut Errors) {
        check(endpoints, errors, |endpoints| {
            endpoints.get("subsets").items().for_each(|subset| validate_subset(&subset))
        });
    }

    fn row(&self, endpoints: &Object, now: i64) -> Vec<Value> {
        let all: Vec<String> = list(endpoints, "subsets").iter().flat_map(addresses).collect();
        vec![endpoints.name().into(), or_none(&some_of(&all, SHOWN)), age(endpoints, now)]
    }
}

/// Every address with every port; without ports (headless) the addresses alone.
fn addresses(subset: &Value) -> Vec<String> {
    let ips = || list(subset, "addresses").iter().map(|a| a.str_at(&["ip"]));
    let ports = list(subset, "ports");
    if ports.is_empty() {
        return ips().map(str::to_owned).collect();
    }
    ports.iter().flat_map(|port| ips().map(|ip| host_port(ip, number(port, &["port"])))).collect()
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn validate_subset(subset: &View<'_>) {
    let (ready, waiting) = (subset.get("addresses"), subset.get("notReadyAddresses"));
    if ready.is_empty() && waiting.is_empty() {
        subset.required("must specify `addresses` or `notReadyAddresses`");
    }
    for address in ready.items().chain(waiting.items()) {
        if rules::ip(&address.get("ip")).is_some() {
            rules::non_special_ip(&address.get("ip"));
        }
        address.get("hostname").format_if_set(names::dns_label);
        address.get("nodeName").format_if_set(names::dns_subdomain);
    }
    let ports = subset.get("ports");
    for port in ports.items() {
        let name = port.get("name");
        if name.is_empty() && ports.len() > 1 {
            name.required("");
        }
        name.format_if_set(names::dns_label);
        port.get("port").port();
        port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"]);
        if port.get("appProtocol").is_set() {
            port.get("appProtocol").formats(names::qualified_name);
        }
    }
}
