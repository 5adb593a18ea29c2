//! ResourceSlice (`resource.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    scope: Scope::Cluster,
    storage: "resourceslices",
    selectable: &["spec.nodeName", "spec.driver"],
    columns: &[Column::NAME, text("Node"), text("Driver"), text("Pool"), Column::AGE],
    strategy: &ResourceSlice,
    ..Kind::BASE
};

struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn row(&self, slice: &Object, now: i64) -> Vec<Value> {
        vec![
            slice.name().into(),
            or(slice.str_at(&["spec", "nodeName"]), UNSET),
            string(slice, &["spec", "driver"]),
            string(slice, &["spec", "pool", "name"]),
            age(slice, now),
        ]
    }
}
