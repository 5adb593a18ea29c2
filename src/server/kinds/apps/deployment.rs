//! Deployment (`apps/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "deployments",
    columns: &[
        Column::NAME,
        text("Ready"),
        text("Up-to-date"),
        text("Available"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    strategy: &Deployment,
    ..Kind::BASE
};

struct Deployment;

impl Strategy for Deployment {
    fn default(&self, deployment: &mut Object) {
        defaults::template(deployment, &["spec", "template"]);
        let Some(spec) = child(deployment, "spec") else { return };
        default_nil(spec, "replicas", 1);
        if let Some(strategy) = child_or_new(spec, "strategy") {
            default_zero(strategy, "type", "RollingUpdate");
            if strategy.str_at(&["type"]) == "RollingUpdate"
                && let Some(rolling) = child_or_new(strategy, "rollingUpdate")
            {
                default_nil(rolling, "maxUnavailable", "25%");
                default_nil(rolling, "maxSurge", "25%");
            }
        }
        default_nil(spec, "revisionHistoryLimit", 10);
        default_nil(spec, "progressDeadlineSeconds", 600);
    }

    fn validate(&self, deployment: &Object, errors: &mut Errors) {
        check(deployment, errors, |deployment| validate_spec(&deployment.get("spec")));
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            new.at(&["spec", "selector"]).immutable(&old.at(&["spec", "selector"]));
        });
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        let counts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        check(new, errors, |new| {
            rules::replica_counts(&new.get("status"), &counts);
            new.at(&["status", "unavailableReplicas"]).non_negative();
        });
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        podspec::template_warnings(new)
    }

    fn row(&self, deployment: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(deployment, &["spec", "template", "spec"]);
        let status = |field: &str| number(deployment, &["status", field]);
        vec![
            deployment.name().into(),
            format!("{}/{}", status("readyReplicas"), number(deployment, &["spec", "replicas"])).into(),
            status("updatedReplicas").into(),
            status("availableReplicas").into(),
            age(deployment, now),
            names,
            images,
            selector(deployment.at(&["spec", "selector"])).into(),
        ]
    }
}

fn validate_spec(spec: &View<'_>) {
    spec.get("replicas").non_negative();
    rules::workload_selector(spec, "deployment");
    let template = spec.get("template");
    podspec::restarting_template(&template);
    let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported");
    }
    validate_strategy(&spec.get("strategy"));
    spec.get("minReadySeconds").non_negative();
    spec.get("revisionHistoryLimit").non_negative();
    let progress = spec.get("progressDeadlineSeconds");
    progress.non_negative();
    if progress.is_set() && progress.number() <= spec.get("minReadySeconds").number() {
        progress.invalid("must be greater than minReadySeconds");
    }
}

fn validate_strategy(strategy: &View<'_>) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required("this should be defaulted and never be nil"),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            rules::int_or_percent(&unavailable);
            rules::int_or_percent(&surge);
            let is_zero = |v: &View<'_>| rules::is_zero_int_or_percent(v.value());
            if is_zero(&unavailable) && is_zero(&surge) {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
            rules::not_more_than_100_percent(&unavailable);
        }
        _ => strategy.get("type").not_supported(&["Recreate", "RollingUpdate"]),
    }
}
