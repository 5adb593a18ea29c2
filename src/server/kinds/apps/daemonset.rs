//! DaemonSet (`apps/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, set: &Object, errors: &mut Errors) {
        check(set, errors, |set| {
            let spec = set.get("spec");
            rules::workload_selector(&spec, "daemonset");
            podspec::restarting_template(&spec.get("template"));
            let deadline = spec.at(&["template", "spec", "activeDeadlineSeconds"]);
            if deadline.is_set() {
                deadline.forbidden("activeDeadlineSeconds in DaemonSet is not Supported");
            }
            spec.get("minReadySeconds").non_negative();
            validate_strategy(&spec.get("updateStrategy"));
            spec.get("revisionHistoryLimit").non_negative();
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            new.at(&["spec", "selector"]).immutable(&old.at(&["spec", "selector"]));
        });
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        const COUNTS: [&str; 7] = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ];
        check(new, errors, |new| COUNTS.iter().for_each(|count| new.at(&["status", count]).non_negative()));
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        podspec::template_warnings(new)
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

fn validate_strategy(strategy: &View<'_>) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required(""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            rules::int_or_percent(&unavailable);
            rules::int_or_percent(&surge);
            let is_zero = |v: &View<'_>| rules::is_zero_int_or_percent(v.value());
            match (is_zero(&unavailable), is_zero(&surge)) {
                (false, false) => surge.invalid("may not be set when maxUnavailable is non-zero"),
                (true, true) => unavailable.required("cannot be 0 when maxSurge is 0"),
                _ => {}
            }
            rules::not_more_than_100_percent(&unavailable);
            rules::not_more_than_100_percent(&surge);
        }
        _ => strategy.get("type").named(strategy.path().clone()).not_supported(&["RollingUpdate", "OnDelete"]),
    }
}
