//! Deployment (`apps/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
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
