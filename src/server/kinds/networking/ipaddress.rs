//! IPAddress (`networking.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    scope: Scope::Cluster,
    short_names: &["ip"],
    storage: "ipaddresses",
    columns: &[Column::NAME, text("ParentRef")],
    strategy: &IpAddress,
    ..Kind::BASE
};

struct IpAddress;

impl Strategy for IpAddress {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn row(&self, address: &Object, _now: i64) -> Vec<Value> {
        vec![address.name().into(), parent(address).into()]
    }
}

/// `services/default/kubernetes`
fn parent(address: &Object) -> String {
    let Some(parent) = address.at(&["spec", "parentRef"]).filter(|p| p.is_object()) else { return NONE.to_owned() };
    let (group, namespace) = (parent.str_at(&["group"]), parent.str_at(&["namespace"]));
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{}{dot}{group}/{namespace}{slash}{}", parent.str_at(&["resource"]), parent.str_at(&["name"]))
}
