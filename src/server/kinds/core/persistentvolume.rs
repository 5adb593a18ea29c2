//! PersistentVolume (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    scope: Scope::Cluster,
    short_names: &["pv"],
    subresources: &[STATUS],
    storage: "persistentvolumes",
    columns: &[
        Column::NAME,
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        Column::AGE,
        wide("VolumeMode"),
    ],
    strategy: &PersistentVolume,
    ..Kind::BASE
};

/// The class's name before it was a field.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, volume: &mut Object) {
        if let Some(status) = child_or_new(volume, "status") {
            default_zero(status, "phase", "Pending");
        }
        if let Some(spec) = child(volume, "spec") {
            default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
            defaults::claim_spec(spec);
            defaults::volume_source(spec);
        }
    }

    fn row(&self, volume: &Object, now: i64) -> Vec<Value> {
        let spec = |field: &str| volume.str_at(&["spec", field]);
        let claim = match volume.at(&["spec", "claimRef"]) {
            Some(claim) if claim.is_object() => format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"])),
            _ => String::new(),
        };
        let phase = if volume.is_deleting() { "Terminating" } else { volume.str_at(&["status", "phase"]) };
        vec![
            volume.name().into(),
            quantity(volume.at(&["spec", "capacity", "storage"])).into(),
            access_modes(volume.at(&["spec", "accessModes"])).into(),
            spec("persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            class(volume).into(),
            or(spec("volumeAttributesClassName"), UNSET),
            string(volume, &["status", "reason"]),
            age(volume, now),
            or(spec("volumeMode"), UNSET),
        ]
    }
}

/// Storage class of a volume or claim.
pub fn class(obj: &Object) -> &str {
    let old = obj.annotations().and_then(|a| a.get(CLASS_ANNOTATION)).and_then(Value::as_str);
    old.unwrap_or_else(|| obj.str_at(&["spec", "storageClassName"]))
}
