//! DaemonSet (`apps/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[STATUS],
    storage: "daemonsets",
    columns: &[
        Column::NAME,
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        integer("Up-to-date"),
        integer("Available"),
        text("Node Selector"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    strategy: &DaemonSet,
    ..Kind::BASE
};

struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, set: &mut Object) {
        defaults::template(set, &["spec", "template"]);
        let Some(spec) = child(set, "spec") else { return };
        if let Some(strategy) = child_or_new(spec, "updateStrategy") {
            default_zero(strategy, "type", "RollingUpdate");
            if strategy.str_at(&["type"]) == "RollingUpdate"
                && let Some(rolling) = child_or_new(strategy, "rollingUpdate")
            {
                default_nil(rolling, "maxUnavailable", 1);
                default_nil(rolling, "maxSurge", 0);
            }
        }
        default_nil(spec, "revisionHistoryLimit", 10);
    }

    fn row(&self, set: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(set, &["spec", "template", "spec"]);
        let status = |field: &str| number(set, &["status", field]).into();
        vec![
            set.name().into(),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            labels(set.at(&["spec", "template", "spec", "nodeSelector"])).into(),
            age(set, now),
            names,
            images,
            selector(set.at(&["spec", "selector"])).into(),
        ]
    }
}
