//! NodeRestriction: a kubelet writes its own Node, Lease and CSINode, the status of its own pods, mirror pods bound to
//! itself, and gets tokens for its pods alone. What it may read is the Node authorizer's business.

use super::certificates::Subject;
use super::{Operation, Plugin, Reader, Request, forbidden, items};
use crate::object::{Object, ObjectExt};
use crate::server::authz::graph::Target;
use crate::server::authz::node::node_of;
use crate::server::authz::references::{MIRROR, referenced};
use crate::status::{Result, Status};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Labels of the kubernetes.io and k8s.io domains that a kubelet may set on its Node.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "node.kubernetes.io/windows-build",
];
/// Domains (and their subdomains) that a kubelet owns.
const KUBELET_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        let Some(node) = node_of(request.user) else { return Ok(()) };
        if node.is_empty() {
            return Err(forbidden(request, format!("could not determine node from user {:?}", request.user.name)));
        }
        let subresource = request.info.subresource.as_str();
        match (request.kind.group, request.kind.plural, subresource) {
            ("", "pods", "") => pod(request, node, reader).await,
            ("", "pods", "status") => pod_status(request, node),
            ("", "pods", "eviction") => eviction(request, node, reader).await,
            ("", "nodes", "" | "status") => own_node(request, node),
            ("", "serviceaccounts", "token") => token(request, node, reader).await,
            ("", "persistentvolumeclaims", "status") => claim_status(request, node),
            ("coordination.k8s.io", "leases", "") => {
                named_as_node(request, node, "can only access node lease with the same name as the requesting node")
            }
            ("storage.k8s.io", "csinodes", "" | "status") => {
                named_as_node(request, node, "can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices", "") => resource_slice(request, node),
            ("certificates.k8s.io", "certificatesigningrequests", "") => signing_request(request, node),
            _ => Ok(()),
        }
    }
}

async fn pod(request: &Request<'_>, node: &str, reader: &dyn Reader) -> Result<()> {
    match request.operation {
        Operation::Create => create_pod(request, node, reader).await,
        Operation::Delete => {
            let stored = match request.old {
                Some(old) => Some(old.clone()),
                None => reader.get("", "pods", &request.info.namespace, &request.info.name).await?,
            };
            match stored {
                Some(pod) if pod.str_at(&["spec", "nodeName"]) == node => Ok(()),
                Some(_) => {
                    let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
                    Err(forbidden(request, why))
                }
                None => Err(Status::not_found("", "pods", &request.info.name)),
            }
        }
        _ => Err(forbidden(request, format!("unexpected operation {:?}, node {node:?}", request.operation))),
    }
}

/// Only a mirror pod, bound to the node, owned by its Node object, referring to nothing.
async fn create_pod(request: &Request<'_>, node: &str, reader: &dyn Reader) -> Result<()> {
    let Some(pod) = request.object.as_deref() else { return Ok(()) };
    let refuse = |why: String| Err(forbidden(request, why));
    if !pod.annotations().is_some_and(|a| a.contains_key(MIRROR)) {
        return refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<&Value> = items(pod, &["metadata", "ownerReferences"]).collect();
    let [owner] = owners.as_slice() else {
        let which = if owners.is_empty() { "an" } else { "a single" };
        return refuse(format!("node {node:?} can only create pods with {which} owner reference set to itself"));
    };
    let at = |field: &str| owner.str_at(&[field]);
    if (at("apiVersion"), at("kind"), at("name")) != ("v1", "Node", node) {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner.get("controller") != Some(&Value::Bool(true)) {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = reader.get("", "nodes", "", node).await?;
    if stored.is_none_or(|n| n.uid() != at("uid")) {
        return refuse(format!("node {node} UID mismatch: expected owner reference of the node that exists"));
    }
    let targets = [
        (Target::ServiceAccount, "a service account"),
        (Target::Secret, "secrets"),
        (Target::ConfigMap, "configmaps"),
        (Target::Claim, "persistentvolumeclaims"),
        (Target::ResourceClaim, "resourceclaims"),
    ];
    match targets.iter().find(|(target, _)| referenced(pod, *target)) {
        Some((_, what)) => refuse(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn pod_status(request: &Request<'_>, node: &str) -> Result<()> {
    let (Some(old), Some(new)) = (request.old, request.object.as_deref()) else { return Ok(()) };
    if old.str_at(&["spec", "nodeName"]) != node {
        let why = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
        return Err(forbidden(request, why));
    }
    if labels_of(old) != labels_of(new) {
        return Err(forbidden(request, format!("node {node:?} cannot update labels through pod status")));
    }
    let claims = |pod: &Object| pod.at(&["status", "resourceClaimStatuses"]).cloned();
    if claims(old) != claims(new) {
        return Err(forbidden(request, format!("node {node:?} cannot update resource claim statuses")));
    }
    Ok(())
}

async fn eviction(request: &Request<'_>, node: &str, reader: &dyn Reader) -> Result<()> {
    let in_body = request.object.as_deref().map(ObjectExt::name).unwrap_or_default();
    let name = if request.info.name.is_empty() { in_body } else { &request.info.name };
    let Some(pod) = reader.get("", "pods", &request.info.namespace, name).await? else {
        return Err(Status::not_found("", "pods", name));
    };
    if pod.str_at(&["spec", "nodeName"]) != node {
        let why = format!("node {node} can only evict pods with spec.nodeName set to itself");
        return Err(forbidden(request, why));
    }
    Ok(())
}

fn own_node(request: &Request<'_>, node: &str) -> Result<()> {
    let refuse = |why: String| Err(forbidden(request, why));
    let Some(new) = request.object.as_deref() else {
        return refuse(format!("node {node:?} is not allowed to delete nodes"));
    };
    let name = if request.info.name.is_empty() { new.name() } else { &request.info.name };
    if name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let changed = changed_labels(new, request.old);
    let bad: Vec<&str> = changed.into_iter().filter(|label| !may_set(label)).collect();
    let Some(old) = request.old else {
        if new.at(&["spec", "configSource"]).is_some_and(|v| !v.is_null()) {
            return refuse(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
        }
        if bad.is_empty() {
            return Ok(());
        }
        return refuse(format!("node {node:?} is not allowed to set the following labels: {}", bad.join(", ")));
    };
    let list = |object: &Object, path: &[&str]| -> Vec<Value> { items(object, path).cloned().collect() };
    if list(old, &["spec", "taints"]) != list(new, &["spec", "taints"]) {
        return refuse(format!("node {node:?} is not allowed to modify taints"));
    }
    if list(old, &["metadata", "ownerReferences"]) != list(new, &["metadata", "ownerReferences"]) {
        return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    if !bad.is_empty() {
        return refuse(format!("is not allowed to modify labels: {}", bad.join(", ")));
    }
    Ok(())
}

fn labels_of(object: &Object) -> Option<&Map<String, Value>> {
    object.labels().filter(|l| !l.is_empty())
}

/// Labels that were added, removed or changed, sorted.
fn changed_labels<'a>(new: &'a Object, old: Option<&'a Object>) -> BTreeSet<&'a str> {
    let (new, old) = (new.labels(), old.and_then(ObjectExt::labels));
    let keys = |labels: Option<&'a Map<String, Value>>| labels.into_iter().flat_map(|l| l.keys().map(String::as_str));
    let at = |labels: Option<&'a Map<String, Value>>, key: &str| labels.and_then(|l| l.get(key));
    keys(new).chain(keys(old)).filter(|key| at(new, key) != at(old, key)).collect()
}

/// Whether a kubelet may set this label on its Node.
fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let below = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    if below(RESTRICTED_DOMAIN) {
        return false;
    }
    let is_kubernetes = below("kubernetes.io") || below("k8s.io");
    !is_kubernetes || KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.iter().any(|d| below(d))
}

/// A token bound to a pod of this node, for audiences that the pod mounts.
async fn token(request: &Request<'_>, node: &str, reader: &dyn Reader) -> Result<()> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let Some(wanted) = request.object.as_deref() else { return Ok(()) };
    let refuse = |why: String| Err(forbidden(request, why));
    let at = |field: &str| wanted.str_at(&["spec", "boundObjectRef", field]);
    if (at("apiVersion"), at("kind")) != ("v1", "Pod") || at("name").is_empty() {
        return refuse("node requested token not bound to a pod".into());
    }
    if at("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid".into());
    }
    let Some(pod) = reader.get("", "pods", &request.info.namespace, at("name")).await? else {
        return Err(Status::not_found("", "pods", at("name")));
    };
    if pod.uid() != at("uid") {
        return refuse(format!(
            "the UID in the bound object reference ({}) does not match the UID in record ({}). The object might have \
             been deleted and then recreated",
            at("uid"),
            pod.uid()
        ));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return refuse("node requested token bound to a pod scheduled on a different node".into());
    }
    let mut asked: Vec<&str> = items(wanted, &["spec", "audiences"]).filter_map(Value::as_str).collect();
    if asked.is_empty() {
        asked.push("");
    }
    let mounted = mounted_audiences(&pod, reader).await?;
    match asked.iter().find(|a| !mounted.contains(**a)) {
        Some(audience) => refuse(format!("audience {audience:?} not found in pod spec volume")),
        None => Ok(()),
    }
}

/// Audiences of a pod's projected tokens and of its CSI drivers' tokens. The empty one is the API server's.
async fn mounted_audiences(pod: &Object, reader: &dyn Reader) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for volume in items(pod, &["spec", "volumes"]) {
        for source in items(volume, &["projected", "sources"]) {
            if source.get("serviceAccountToken").is_some() {
                found.insert(source.str_at(&["serviceAccountToken", "audience"]).to_owned());
            }
        }
        let driver = driver_of(pod, volume, reader).await?;
        if driver.is_empty() {
            continue;
        }
        if let Some(driver) = reader.get("storage.k8s.io", "csidrivers", "", &driver).await? {
            let audiences = items(&driver, &["spec", "tokenRequests"]).map(|t| t.str_at(&["audience"]).to_owned());
            found.extend(audiences);
        }
    }
    Ok(found)
}

/// The CSI driver behind a volume: named inline, or by the PersistentVolume of its claim. Empty: none.
async fn driver_of(pod: &Object, volume: &Value, reader: &dyn Reader) -> Result<String> {
    let inline = volume.str_at(&["csi", "driver"]);
    let named = volume.str_at(&["persistentVolumeClaim", "claimName"]);
    let claim = if volume.get("ephemeral").is_some_and(Value::is_object) {
        format!("{}-{}", pod.name(), volume.str_at(&["name"]))
    } else {
        named.to_owned()
    };
    if !inline.is_empty() || claim.is_empty() {
        return Ok(inline.to_owned());
    }
    let Some(claim) = reader.get("", "persistentvolumeclaims", pod.namespace(), &claim).await? else {
        return Ok(String::new());
    };
    let volume = reader.get("", "persistentvolumes", "", claim.str_at(&["spec", "volumeName"])).await?;
    Ok(volume.map(|v| v.str_at(&["spec", "csi", "driver"]).to_owned()).unwrap_or_default())
}

/// Nothing but capacity and conditions.
fn claim_status(request: &Request<'_>, node: &str) -> Result<()> {
    let (Some(old), Some(new)) = (request.old, request.object.as_deref()) else { return Ok(()) };
    let stripped = |claim: &Object| {
        let mut claim = claim.clone();
        for path in [
            &["metadata", "managedFields"][..],
            &["metadata", "resourceVersion"],
            &["status", "capacity"],
            &["status", "conditions"],
            &["status", "allocatedResources"],
            &["status", "allocatedResourceStatuses"],
        ] {
            claim.remove_at(path);
        }
        claim
    };
    if stripped(old) == stripped(new) {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions");
    Err(forbidden(request, why))
}

fn named_as_node(request: &Request<'_>, node: &str, why: &str) -> Result<()> {
    let in_body = request.object.as_deref().map(ObjectExt::name).unwrap_or_default();
    let name = if request.operation == Operation::Create { in_body } else { &request.info.name };
    if name == node { Ok(()) } else { Err(forbidden(request, why)) }
}

fn resource_slice(request: &Request<'_>, node: &str) -> Result<()> {
    let slice = request.object.as_deref().or(request.old);
    if slice.is_none_or(|s| s.str_at(&["spec", "nodeName"]) == node) {
        return Ok(());
    }
    let verb = if request.operation == Operation::Delete { "delete" } else { "create" };
    Err(forbidden(request, format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
}

fn signing_request(request: &Request<'_>, node: &str) -> Result<()> {
    let Some(csr) = request.object.as_deref().filter(|_| request.operation == Operation::Create) else {
        return Ok(());
    };
    let signer = csr.str_at(&["spec", "signerName"]);
    if signer != KUBELET_SERVING && signer != KUBELET_CLIENT {
        return Ok(());
    }
    let Some(subject) = Subject::of_request(csr) else {
        return Err(forbidden(request, "unable to parse csr"));
    };
    let wanted = format!("system:node:{node}");
    if subject.common_name != wanted {
        return Err(forbidden(request, format!("can only create a node CSR with CN={wanted}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::may_set;

    #[test]
    fn labels_of_nodes() {
        let cases = [
            ("example.org/rack", true),
            ("rack", true),
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/anything", true),
            ("custom.node.kubernetes.io/anything", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("kubernetes.io/other", false),
            ("x.k8s.io/other", false),
            ("notkubernetes.io/other", true),
            ("node-restriction.kubernetes.io/zone", false),
            ("a.node-restriction.kubernetes.io/zone", false),
        ];
        for (label, want) in cases {
            assert_eq!(may_set(label), want, "{label}");
        }
    }
}
