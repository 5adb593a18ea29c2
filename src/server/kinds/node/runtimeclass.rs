//! RuntimeClass (`node.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    scope: Scope::Cluster,
    storage: "runtimeclasses",
    columns: &[Column::NAME, text("Handler"), Column::AGE],
    strategy: &RuntimeClass,
    ..Kind::BASE
};

struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        vec![class.name().into(), string(class, &["handler"]), age(class, now)]
    }
}
