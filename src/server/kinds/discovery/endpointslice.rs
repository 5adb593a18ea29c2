//! EndpointSlice (`discovery.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

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
