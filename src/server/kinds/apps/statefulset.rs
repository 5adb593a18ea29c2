//! StatefulSet (`apps/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::core::persistentvolumeclaim::default_claim;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

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
            default_zero(strategy, "type", "RollingUpdate");
            if strategy.str_at(&["type"]) == "RollingUpdate"
                && let Some(rolling) = child_or_new(strategy, "rollingUpdate")
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

    fn row(&self, set: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(set, &["spec", "template", "spec"]);
        let ready = number(set, &["status", "readyReplicas"]);
        let ready = format!("{ready}/{}", number(set, &["spec", "replicas"]));
        vec![set.name().into(), ready.into(), age(set, now), names, images]
    }
}
