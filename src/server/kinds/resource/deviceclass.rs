//! DeviceClass (`resource.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::age;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    scope: Scope::Cluster,
    storage: "deviceclasses",
    columns: &[Column::NAME, Column::AGE],
    strategy: &DeviceClass,
    ..Kind::BASE
};

struct DeviceClass;

impl Strategy for DeviceClass {
    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        vec![class.name().into(), age(class, now)]
    }
}
