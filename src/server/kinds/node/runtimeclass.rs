//! RuntimeClass (`node.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{resources, scheduling};
use crate::server::kinds::view::{check, check_change};
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

    fn validate(&self, class: &Object, errors: &mut Errors) {
        check(class, errors, |class| {
            class.get("handler").format(names::dns_label);
            resources::quantities(&class.at(&["overhead", "podFixed"]), resources::container_resource_name);
            rules::labels(&class.at(&["scheduling", "nodeSelector"]));
            scheduling::tolerations(&class.at(&["scheduling", "tolerations"]));
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| new.get("handler").immutable(&old.get("handler")));
    }

    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        vec![class.name().into(), string(class, &["handler"]), age(class, now)]
    }
}
