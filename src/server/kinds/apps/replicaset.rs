//! ReplicaSet (`apps/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "replicasets",
    selectable: &["status.replicas"],
    columns: &[
        Column::NAME,
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    strategy: &ReplicaSet,
    ..Kind::BASE
};

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, set: &mut Object) {
        defaults::template(set, &["spec", "template"]);
        if let Some(spec) = child(set, "spec") {
            default_nil(spec, "replicas", 1);
        }
    }

    fn selectable_value(&self, set: &Object, field: &str) -> Option<String> {
        (field == "status.replicas").then(|| number(set, &["status", "replicas"]).to_string())
    }

    fn row(&self, set: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(set, &["spec", "template", "spec"]);
        vec![
            set.name().into(),
            number(set, &["spec", "replicas"]).into(),
            number(set, &["status", "replicas"]).into(),
            number(set, &["status", "readyReplicas"]).into(),
            age(set, now),
            names,
            images,
            selector(set.at(&["spec", "selector"])).into(),
        ]
    }
}
