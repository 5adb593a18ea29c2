//! StatefulSet (`apps/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::core::persistentvolumeclaim::default_claim;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;
use serde_json::json;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "statefulsets",
    columns: &[Column::NAME, text("Ready"), Column::AGE, CONTAINERS, IMAGES],
    strategy: &StatefulSet,
    ..Kind::BASE
};

struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, set: &mut Object) {
        defaults::template(set, &["spec", "template"]);
        let Some(spec) = child(set, "spec") else { return };
        default_zero(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = child_or_new(spec, "updateStrategy") {
            // An explicit RollingUpdate without parameters stays without.
            if is_zero(strategy, "type") {
                default_zero(strategy, "type", "RollingUpdate");
                child_or_new(strategy, "rollingUpdate");
            }
            if strategy.str_at(&["type"]) == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                default_nil(rolling, "partition", 0);
            }
        }
        if let Some(policy) = child_or_new(spec, "persistentVolumeClaimRetentionPolicy") {
            default_zero(policy, "whenDeleted", "Retain");
            default_zero(policy, "whenScaled", "Retain");
        }
        default_nil(spec, "replicas", 1);
        default_nil(spec, "revisionHistoryLimit", 10);
        for claim in items(spec, "volumeClaimTemplates") {
            default_zero(claim, "apiVersion", "v1");
            default_zero(claim, "kind", "PersistentVolumeClaim");
            default_claim(claim);
        }
    }

    fn validate(&self, set: &Object, errors: &mut Errors) {
        check(set, errors, |set| validate_spec(&set.get("spec")));
        // Mounts refer to the claims as if they were volumes of the template.
        check(&with_claims_as_volumes(set), errors, |set| {
            let template = set.at(&["spec", "template"]);
            podspec::restarting_template(&template);
            let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
            if deadline.is_set() {
                deadline.invalid("must not be specified");
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        let mut spec = new.get("spec").cloned().unwrap_or_default();
        for field in UPDATABLE {
            keep(&mut spec, &old["spec"], field);
        }
        if !same(Some(&spec), old.get("spec")) {
            let fields: Vec<String> = UPDATABLE.iter().map(|f| format!("'{f}'")).collect();
            let (last, others) = fields.split_last().expect("the list is not empty");
            let why = format!(
                "updates to statefulset spec for fields other than {} and {last} are forbidden",
                others.join(", ")
            );
            errors.forbidden(&crate::field::Path::new("spec"), why);
        }
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        let counts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        check(new, errors, |new| rules::replica_counts(&new.get("status"), &counts));
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        podspec::template_warnings(new)
    }

    fn row(&self, set: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(set, &["spec", "template", "spec"]);
        let ready = number(set, &["status", "readyReplicas"]);
        let ready = format!("{ready}/{}", number(set, &["spec", "replicas"]));
        vec![set.name().into(), ready.into(), age(set, now), names, images]
    }
}

const UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn with_claims_as_volumes(set: &Object) -> Object {
    let mut set = set.clone();
    let names: Vec<String> = list(&set["spec"], "volumeClaimTemplates").iter().map(|c| c.name().to_owned()).collect();
    let Some(spec) = descend(&mut set, &["spec", "template", "spec"]).filter(|_| !names.is_empty()) else { return set };
    let mut volumes = list(spec, "volumes").to_vec();
    // A claim's volume takes the place of the template's of the same name.
    volumes.retain(|v| !names.iter().any(|name| name == v.str_at(&["name"])));
    volumes.extend(names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})));
    spec.set_at(&["volumes"], volumes.into());
    set
}

fn validate_spec(spec: &View<'_>) {
    let policy = spec.get("podManagementPolicy");
    match policy.str() {
        "OrderedReady" | "Parallel" => {}
        "" => policy.required(""),
        _ => policy.invalid("must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "OnDelete" if rolling.is_set() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").non_negative();
            rules::int_or_percent(&rolling.get("maxUnavailable"));
        }
        "" => strategy.required(""),
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"] {
        retention.get(when).one_of_if_set(&["Retain", "Delete"]);
    }
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.get(field).non_negative();
    }
    spec.at(&["ordinals", "start"]).non_negative();
    rules::workload_selector(spec, "statefulset");
}
