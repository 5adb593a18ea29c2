//! PriorityClass (`scheduling.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, class: &Object, errors: &mut Errors) {
        check(class, errors, validate_class);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            if new.get("value").number() != old.get("value").number() {
                new.get("value").forbidden("may not be changed in an update.");
            }
            new.get("preemptionPolicy").immutable(&old.get("preemptionPolicy"));
        });
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

/// What users may choose; above are the system's own classes.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2 * HIGHEST_USER_PRIORITY + 1000),
    ("system-cluster-critical", 2 * HIGHEST_USER_PRIORITY),
];

fn validate_class(class: &View<'_>) {
    let (name, value) = (class.at(&["metadata", "name"]), class.get("value"));
    if name.str().starts_with("system-") {
        let why = match SYSTEM.iter().find(|(known, _)| *known == name.str()) {
            None => format!("{} is not a known system priority class", name.str()),
            Some((_, known)) if *known != value.number() => {
                format!("value of {} PriorityClass must be {known}", name.str())
            }
            Some(_) if class.get("globalDefault").is_true() => {
                format!("globalDefault of {} PriorityClass must be false", name.str())
            }
            Some(_) => String::new(),
        };
        if !why.is_empty() {
            name.forbidden(format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            ));
        }
    } else if value.number() > HIGHEST_USER_PRIORITY {
        value.forbidden(format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"));
    }
    class.get("preemptionPolicy").one_of_if_set(&["PreemptLowerPriority", "Never"]);
}
