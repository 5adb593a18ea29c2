//! PersistentVolumeClaim (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::core::persistentvolume::class;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, claim: &Object, errors: &mut Errors) {
        check(claim, errors, |claim| validate_spec(&claim.get("spec")));
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, validate_change);
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

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// `accessModes` of claims and volumes.
pub fn validate_access_modes(modes: &View<'_>, why_required: &str) {
    if modes.is_empty() {
        modes.required(why_required);
    }
    for mode in modes.items() {
        mode.named(modes.path().clone()).one_of(ACCESS_MODES);
    }
    let (exclusive, shared): (Vec<&str>, Vec<&str>) =
        modes.items().map(|m| m.str()).filter(|m| ACCESS_MODES.contains(m)).partition(|m| *m == "ReadWriteOncePod");
    if !exclusive.is_empty() && !shared.is_empty() {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

/// The spec of a claim, alone or as template.
pub fn validate_spec(spec: &View<'_>) {
    validate_access_modes(&spec.get("accessModes"), "at least 1 access mode is required");
    rules::label_selector(&spec.get("selector"));
    let storage = spec.at(&["resources", "requests", "storage"]);
    let storage = storage.named(spec.path().child("resources").key("storage"));
    if storage.is_set() {
        rules::positive_quantity(&storage)
    } else {
        storage.required("")
    }
    spec.get("storageClassName").format_if_set(names::dns_subdomain);
    spec.get("volumeAttributesClassName").format_if_set(names::dns_subdomain);
    spec.get("volumeMode").one_of_if_set(&["Block", "Filesystem"]);
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for one in [&source, &reference].into_iter().filter(|s| s.is_set()) {
        data_source(one);
    }
    if !reference.get("namespace").is_empty() {
        if source.is_set() {
            let why = "may not be specified when dataSourceRef.namespace is specified";
            spec.invalid_value(source.path().to_string(), why);
        }
    } else if source.is_set() && reference.is_set() {
        let parts = ["apiGroup", "kind", "name"];
        if parts.iter().any(|part| source.get(part).str() != reference.get(part).str()) {
            spec.invalid_value(source.path().to_string(), "must match dataSourceRef");
        }
    }
}

fn data_source(source: &View<'_>) {
    source.get("name").require();
    source.get("kind").require();
    let (group, kind) = (source.get("apiGroup"), source.get("kind").str());
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        source.invalid_value(kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    group.format_if_set(names::dns_subdomain);
    source.get("namespace").format_if_set(names::dns_label);
}

/// Bound claims may grow (and shrink back to what they have); a claim may be bound and given its class.
fn validate_change(new: &View<'_>, old: &View<'_>) {
    let (mut spec, former) = (new.get("spec").value().clone(), old.get("spec").value());
    let bound = old.at(&["status", "phase"]).str() == "Bound";
    if old.at(&["spec", "volumeName"]).is_empty() {
        keep(&mut spec, former, "volumeName");
    }
    if former.get("storageClassName").is_none() {
        keep(&mut spec, former, "storageClassName");
    }
    if bound {
        let requests = former.at(&["resources", "requests", "storage"]).cloned();
        if let Some(requests) = requests {
            spec.set_at(&["resources", "requests", "storage"], requests);
        }
        keep(&mut spec, former, "volumeAttributesClassName");
    }
    if !same(Some(&spec), Some(former)) {
        new.get("spec").forbidden(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let path = &["spec", "resources", "requests", "storage"];
    let capacity = old.at(&["status", "capacity", "storage"]).quantity().unwrap_or_default();
    if let (Some(size), Some(before)) = (new.at(path).quantity(), old.at(path).quantity())
        && size < before
        && size <= capacity
    {
        new.at(path).forbidden("field can not be less than status.capacity");
    }
}
