//! VolumeAttributesClass (`storage.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    scope: Scope::Cluster,
    short_names: &["vac"],
    storage: "volumeattributesclasses",
    columns: &[Column::NAME, text("DriverName"), Column::AGE],
    strategy: &VolumeAttributesClass,
    ..Kind::BASE
};

struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        vec![class.name().into(), string(class, &["driverName"]), age(class, now)]
    }
}
