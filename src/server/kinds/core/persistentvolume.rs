//! PersistentVolume (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::core::persistentvolumeclaim::validate_access_modes;
use crate::server::kinds::podspec::{self, defaults, scheduling};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, volume: &Object, errors: &mut Errors) {
        check(volume, errors, |volume| validate_spec(&volume.get("spec")));
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            let (spec, former) = (new.get("spec"), old.get("spec"));
            if SOURCES.iter().any(|(s, _)| !same(Some(spec.get(s).value()), Some(former.get(s).value()))) {
                let at = spec.get("persistentvolumesource");
                at.forbidden("spec.persistentvolumesource is immutable after creation");
            }
            let mode = spec.get("volumeMode").named(crate::field::Path::new("volumeMode"));
            mode.immutable(&former.get("volumeMode"));
            if former.get("nodeAffinity").is_set() {
                let affinity = spec.get("nodeAffinity").named(crate::field::Path::new("nodeAffinity"));
                affinity.immutable(&former.get("nodeAffinity"));
            }
        });
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

/// Volume types of PersistentVolumes. What is not a file path is known to its driver alone.
const SOURCES: &[podspec::Source] = &[
    ("hostPath", podspec::host_path),
    ("gcePersistentDisk", |s| _ = s.get("pdName").require()),
    ("awsElasticBlockStore", |s| _ = s.get("volumeID").require()),
    ("glusterfs", |s| _ = s.get("endpoints").require()),
    ("flocker", |_| ()),
    ("nfs", nfs),
    ("rbd", |s| _ = s.get("monitors").require()),
    ("quobyte", |s| _ = s.get("registry").require()),
    ("cephfs", |s| _ = s.get("monitors").require()),
    ("iscsi", |s| _ = s.get("targetPortal").require()),
    ("cinder", |s| _ = s.get("volumeID").require()),
    ("fc", |_| ()),
    ("flexVolume", |s| _ = s.get("driver").require()),
    ("azureFile", |s| _ = s.get("shareName").require()),
    ("vsphereVolume", |s| _ = s.get("volumePath").require()),
    ("photonPersistentDisk", |s| _ = s.get("pdID").require()),
    ("portworxVolume", |s| _ = s.get("volumeID").require()),
    ("azureDisk", |s| _ = s.get("diskName").require()),
    ("scaleIO", |s| _ = s.get("gateway").require()),
    ("local", local),
    ("storageos", |_| ()),
    ("csi", csi),
];

fn nfs(source: &View<'_>) {
    source.get("server").require();
    source.get("path").require();
    if !source.get("path").str().starts_with('/') {
        source.get("path").invalid_value(source.get("path").str(), "must be an absolute path");
    }
}

fn local(source: &View<'_>) {
    if source.get("path").require() {
        rules::no_backsteps(&source.get("path"));
    }
}

fn csi(source: &View<'_>) {
    podspec::csi_driver_name(&source.get("driver"));
    source.get("volumeHandle").require();
}

fn validate_spec(spec: &View<'_>) {
    validate_access_modes(&spec.get("accessModes"), "");
    let capacity = spec.get("capacity");
    capacity.require();
    if !capacity.get("storage").is_set() || capacity.len() > 1 {
        capacity.not_supported(&["storage"]);
    }
    capacity.entries().for_each(|(_, at)| rules::positive_quantity(&at));
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(&["Delete", "Recycle", "Retain"]);
    }
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            scheduling::node_selector(&required);
        } else {
            required.required("must specify required node constraints");
        }
    }
    podspec::volume_sources(spec, SOURCES);
    if spec.get("local").is_set() && !affinity.is_set() {
        affinity.required("Local volume requires node affinity");
    }
    if spec.at(&["hostPath", "path"]).str() == "/" && policy.str() == "Recycle" {
        policy.forbidden("may not be 'recycle' for a hostPath mount of '/'");
    }
    spec.get("storageClassName").format_if_set(names::dns_subdomain);
    spec.get("volumeMode").one_of_if_set(&["Block", "Filesystem"]);
    let class = spec.get("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            class.required("an empty string is disallowed");
        }
        class.format_if_set(names::dns_subdomain);
        if !spec.get("csi").is_set() {
            spec.get("csi").required("has to be specified when using volumeAttributesClassName");
        }
    }
}
