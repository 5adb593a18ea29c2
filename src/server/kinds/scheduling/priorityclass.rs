//! PriorityClass (`scheduling.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    scope: Scope::Cluster,
    short_names: &["pc"],
    storage: "priorityclasses",
    columns: &[Column::NAME, integer("Value"), boolean("Global-Default"), Column::AGE, text("PreemptionPolicy")],
    strategy: &PriorityClass,
    ..Kind::BASE
};

struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, class: &mut Object) {
        default_nil(class, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        vec![
            class.name().into(),
            number(class, &["value"]).into(),
            bool_at(class, &["globalDefault"]).into(),
            age(class, now),
            string(class, &["preemptionPolicy"]),
        ]
    }
}
