//! What a pod and a PersistentVolume refer to by name (upstream's `podutil.VisitPodSecretNames` and its siblings).

use super::follow::Key;
use super::graph::Target;
use crate::object::{Object, ObjectExt};
use serde_json::Value;

/// An object in the pod's namespace.
pub type Reference = (Target, String);

/// Annotation of pods that a kubelet mirrors from a file: they grant nothing.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Volume types of pods that name a secret, with the path to the name.
const VOLUME_SECRETS: &[&[&str]] = &[
    &["secret", "secretName"],
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["storageos", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
];

/// References to secrets in the spec of a PersistentVolume: (namespace, name) below these paths.
const PERSISTENT_SECRETS: &[&[&str]] = &[
    &["cephfs", "secretRef"],
    &["cinder", "secretRef"],
    &["flexVolume", "secretRef"],
    &["rbd", "secretRef"],
    &["scaleIO", "secretRef"],
    &["iscsi", "secretRef"],
    &["storageos", "secretRef"],
    &["csi", "controllerPublishSecretRef"],
    &["csi", "nodePublishSecretRef"],
    &["csi", "nodeStageSecretRef"],
    &["csi", "controllerExpandSecretRef"],
    &["csi", "nodeExpandSecretRef"],
];

/// Everything that the kubelet needs for a pod, each once.
pub fn pod_references(pod: &Object) -> Vec<Reference> {
    if pod.annotations().is_some_and(|a| a.contains_key(MIRROR)) {
        return Vec::new();
    }
    let mut found = Found(Vec::new());
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    found.add(Target::ServiceAccount, spec.str_at(&["serviceAccountName"]));
    for secret in items(spec, "imagePullSecrets") {
        found.add(Target::Secret, secret.str_at(&["name"]));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items(spec, list).for_each(|c| found.container(c));
    }
    items(spec, "volumes").for_each(|v| found.volume(pod.name(), v));
    found.resource_claims(pod, spec);
    found.0.sort();
    found.0.dedup();
    found.0
}

/// Whether a pod refers to any object of a kind, mirror pod or not.
pub fn referenced(pod: &Object, target: Target) -> bool {
    let mut pod = pod.clone();
    if let Some(annotations) =
        pod.get_mut("metadata").and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut)
    {
        annotations.remove(MIRROR);
    }
    pod_references(&pod).iter().any(|(t, _)| *t == target)
}

struct Found(Vec<Reference>);

impl Found {
    fn add(&mut self, target: Target, name: &str) {
        if !name.is_empty() {
            self.0.push((target, name.to_owned()));
        }
    }

    fn container(&mut self, container: &Value) {
        for env in items(container, "env") {
            self.add(Target::Secret, env.str_at(&["valueFrom", "secretKeyRef", "name"]));
            self.add(Target::ConfigMap, env.str_at(&["valueFrom", "configMapKeyRef", "name"]));
        }
        for source in items(container, "envFrom") {
            self.add(Target::Secret, source.str_at(&["secretRef", "name"]));
            self.add(Target::ConfigMap, source.str_at(&["configMapRef", "name"]));
        }
    }

    fn volume(&mut self, pod: &str, volume: &Value) {
        for path in VOLUME_SECRETS {
            self.add(Target::Secret, volume.str_at(path));
        }
        self.add(Target::ConfigMap, volume.str_at(&["configMap", "name"]));
        for source in volume.get("projected").map(|p| items(p, "sources")).into_iter().flatten() {
            self.add(Target::Secret, source.str_at(&["secret", "name"]));
            self.add(Target::ConfigMap, source.str_at(&["configMap", "name"]));
        }
        self.add(Target::Claim, volume.str_at(&["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some_and(Value::is_object) {
            // An ephemeral volume's claim is named after pod and volume (KEP-1698).
            self.add(Target::Claim, &format!("{pod}-{}", volume.str_at(&["name"])));
        }
    }

    fn resource_claims(&mut self, pod: &Object, spec: &Value) {
        for claim in items(spec, "resourceClaims") {
            self.add(Target::ResourceClaim, claim.str_at(&["resourceClaimName"]));
        }
        let status = pod.get("status").unwrap_or(&Value::Null);
        for claim in items(status, "resourceClaimStatuses") {
            self.add(Target::ResourceClaim, claim.str_at(&["resourceClaimName"]));
        }
        self.add(Target::ResourceClaim, status.str_at(&["extendedResourceClaimStatus", "resourceClaimName"]));
    }
}

/// The claim a PersistentVolume is bound to.
pub fn claim_of_volume(volume: &Object) -> Option<Key> {
    let at = |field| volume.str_at(&["spec", "claimRef", field]).to_owned();
    let key = (at("namespace"), at("name"));
    (!key.1.is_empty()).then_some(key)
}

/// Secrets a PersistentVolume needs. Those without a namespace are in the claim's.
pub fn volume_secrets(volume: &Object) -> Vec<Key> {
    let claim_namespace = claim_of_volume(volume).map(|(namespace, _)| namespace).unwrap_or_default();
    let spec = volume.get("spec").unwrap_or(&Value::Null);
    let reference = |path: &&[&str]| {
        let reference = spec.at(path)?;
        named(reference.str_at(&["namespace"]), reference.str_at(&["name"]), &claim_namespace)
    };
    let azure = spec.get("azureFile");
    let azure = azure.and_then(|a| named(a.str_at(&["secretNamespace"]), a.str_at(&["secretName"]), &claim_namespace));
    PERSISTENT_SECRETS.iter().filter_map(reference).chain(azure).collect()
}

fn named(namespace: &str, name: &str, default: &str) -> Option<Key> {
    let namespace = if namespace.is_empty() { default } else { namespace };
    (!name.is_empty()).then(|| (namespace.to_owned(), name.to_owned()))
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter()
}
