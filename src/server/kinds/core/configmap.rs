//! ConfigMap (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    storage: "configmaps",
    columns: &[Column::NAME, text("Data"), Column::AGE],
    strategy: &ConfigMap,
    ..Kind::BASE
};

struct ConfigMap;

impl Strategy for ConfigMap {
    fn row(&self, map: &Object, now: i64) -> Vec<Value> {
        let keys = count(map, &["data"]) + count(map, &["binaryData"]);
        vec![map.name().into(), keys.into(), age(map, now)]
    }
}
