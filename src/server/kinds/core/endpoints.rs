//! Endpoints (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
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
