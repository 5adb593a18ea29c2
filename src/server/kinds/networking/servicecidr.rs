//! ServiceCIDR (`networking.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "servicecidrs",
    columns: &[Column::NAME, text("CIDRs"), Column::AGE],
    strategy: &ServiceCidr,
    ..Kind::BASE
};

struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn row(&self, cidr: &Object, now: i64) -> Vec<Value> {
        let cidrs = cidr.get("spec").map(|s| list(s, "cidrs")).unwrap_or_default();
        let cidrs: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
        vec![cidr.name().into(), cidrs.join(",").into(), age(cidr, now)]
    }
}
