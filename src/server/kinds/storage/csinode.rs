//! CSINode (`storage.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "csinodes",
    columns: &[Column::NAME, integer("Drivers"), Column::AGE],
    strategy: &CsiNode,
    ..Kind::BASE
};

struct CsiNode;

impl Strategy for CsiNode {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, node: &Object, now: i64) -> Vec<Value> {
        vec![node.name().into(), count(node, &["spec", "drivers"]).into(), age(node, now)]
    }
}
