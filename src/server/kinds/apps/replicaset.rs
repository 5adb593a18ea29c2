//! ReplicaSet (`apps/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{check, check_change};
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

    fn validate(&self, set: &Object, errors: &mut Errors) {
        check(set, errors, |set| {
            let spec = set.get("spec");
            spec.get("replicas").non_negative();
            spec.get("minReadySeconds").non_negative();
            rules::workload_selector(&spec, "deployment");
            podspec::restarting_template(&spec.get("template"));
            let deadline = spec.at(&["template", "spec", "activeDeadlineSeconds"]);
            if deadline.is_set() {
                deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported");
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            new.at(&["spec", "selector"]).immutable(&old.at(&["spec", "selector"]));
        });
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        let counts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        check(new, errors, |new| rules::replica_counts(&new.get("status"), &counts));
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        podspec::template_warnings(new)
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
