//! PersistentVolumeClaim (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::core::persistentvolume::class;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;
use serde_json::json;

pub static KIND: Kind = Kind {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[STATUS],
    storage: "persistentvolumeclaims",
    columns: &[
        Column::NAME,
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        Column::AGE,
        wide("VolumeMode"),
    ],
    strategy: &PersistentVolumeClaim,
    ..Kind::BASE
};

struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, claim: &mut Object) {
        default_claim(claim);
        if let Some(spec) = child(claim, "spec") {
            both_data_sources(spec);
        }
    }

    fn prepare_create(&self, claim: &mut Object) {
        claim.set_at(&["status"], json!({"phase": "Pending"}));
    }

    fn row(&self, claim: &Object, now: i64) -> Vec<Value> {
        let spec = |field: &str| claim.str_at(&["spec", field]);
        let bound = !spec("volumeName").is_empty();
        let status = |field: &str| claim.at(&["status", field]).filter(|_| bound);
        let capacity = status("capacity").and_then(|c| c.get("storage"));
        let phase = if claim.is_deleting() { "Terminating" } else { claim.str_at(&["status", "phase"]) };
        vec![
            claim.name().into(),
            phase.into(),
            spec("volumeName").into(),
            if bound { quantity(capacity).into() } else { "".into() },
            access_modes(status("accessModes")).into(),
            class(claim).into(),
            or(spec("volumeAttributesClassName"), UNSET),
            age(claim, now),
            or(spec("volumeMode"), UNSET),
        ]
    }
}

/// Defaults of a claim, alone or as template of a StatefulSet.
pub fn default_claim(claim: &mut Object) {
    if let Some(status) = child_or_new(claim, "status") {
        default_zero(status, "phase", "Pending");
    }
    if let Some(spec) = child(claim, "spec") {
        defaults::claim_spec(spec);
    }
}

/// `dataSource` and `dataSourceRef` say the same where both can: whichever is set fills the other.
fn both_data_sources(spec: &mut Value) {
    if is_nil(spec, "dataSource") && !is_nil(spec, "dataSourceRef") {
        let source = &spec["dataSourceRef"];
        let snapshot =
            (source.str_at(&["apiGroup"]), source.str_at(&["kind"])) == ("snapshot.storage.k8s.io", "VolumeSnapshot");
        let claim = (source.str_at(&["apiGroup"]), source.str_at(&["kind"])) == ("", "PersistentVolumeClaim");
        if is_zero(source, "namespace") && (snapshot || claim) {
            let source = source.clone();
            default_nil(spec, "dataSource", source);
        }
    } else if !is_nil(spec, "dataSource") && is_nil(spec, "dataSourceRef") {
        let source = spec["dataSource"].clone();
        default_nil(spec, "dataSourceRef", source);
    }
}
