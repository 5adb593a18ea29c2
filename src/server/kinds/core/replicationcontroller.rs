//! ReplicationController (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::check;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "controllers",
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
    strategy: &ReplicationController,
    ..Kind::BASE
};

struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, controller: &mut Object) {
        defaults::template(controller, &["spec", "template"]);
        let labels = controller.at(&["spec", "template", "metadata", "labels"]).filter(|l| l.is_object()).cloned();
        if let Some(labels) = labels {
            default_zero(&mut controller["spec"], "selector", labels.clone());
            if controller.labels().is_none_or(|l| l.is_empty()) {
                controller.set_at(&["metadata", "labels"], labels);
            }
        }
        if let Some(spec) = child(controller, "spec") {
            default_nil(spec, "replicas", 1);
        }
    }

    fn selectable_value(&self, controller: &Object, field: &str) -> Option<String> {
        (field == "status.replicas").then(|| number(controller, &["status", "replicas"]).to_string())
    }

    fn validate(&self, controller: &Object, errors: &mut Errors) {
        check(controller, errors, |controller| {
            let spec = controller.get("spec");
            spec.get("minReadySeconds").non_negative();
            spec.get("replicas").non_negative();
            let (selector, template) = (spec.get("selector"), spec.get("template"));
            selector.require();
            if !template.is_set() {
                return template.required("");
            }
            let labels = template.at(&["metadata", "labels"]);
            if !LabelSelector::from_map(Some(selector.value())).matches_labels(labels.value().as_object()) {
                rules::selector_mismatch(&labels);
            }
            podspec::restarting_template(&template);
            let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
            if deadline.is_set() {
                deadline.forbidden("activeDeadlineSeconds in ReplicationController is not Supported");
            }
        });
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        let counts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        check(new, errors, |new| rules::replica_counts(&new.get("status"), &counts));
    }

    fn row(&self, controller: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(controller, &["spec", "template", "spec"]);
        vec![
            controller.name().into(),
            number(controller, &["spec", "replicas"]).into(),
            number(controller, &["status", "replicas"]).into(),
            number(controller, &["status", "readyReplicas"]).into(),
            age(controller, now),
            names,
            images,
            labels(controller.at(&["spec", "selector"])).into(),
        ]
    }
}
