//! The Node authorizer (KEP-4601 included): a kubelet sees its own Node and Lease, and what its pods refer to.

use super::graph::{Graph, Target};
use super::rule::Rule;
use super::{Authorizer, Decision};
use crate::selector::FieldSelector;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::Result;
use crate::wire::tunnel::PATH;
use async_trait::async_trait;
use std::sync::{Arc, LazyLock};

const USER_PREFIX: &str = "system:node:";
pub const NODES_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node behind a user, as upstream's node identifier tells it.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    user.is_in(NODES_GROUP).then_some(name)
}

/// Allows nodes what is theirs; never denies.
pub struct NodeAuthorizer {
    graph: Arc<Graph>,
}

impl NodeAuthorizer {
    pub fn new(graph: Arc<Graph>) -> Self {
        NodeAuthorizer { graph }
    }

    /// `Ok`: allowed; `Err`: no opinion, with the reason.
    fn decide(&self, node: &str, info: &RequestInfo) -> Result<(), String> {
        if !info.is_resource {
            return tunnel(info).or_else(|_| fixed(info));
        }
        match (info.group.as_str(), info.resource.as_str()) {
            ("", "secrets") => self.read(node, Target::Secret, info),
            ("", "configmaps") => self.read(node, Target::ConfigMap, info),
            ("", "persistentvolumeclaims") if info.subresource == "status" => {
                one_of(info, &["update", "patch"], "can only get/update/patch this type")?;
                self.related(node, Target::Claim, info)
            }
            ("", "persistentvolumeclaims") => self.get(info).and_then(|()| self.related(node, Target::Claim, info)),
            ("resource.k8s.io", "resourceclaims") => {
                self.get(info).and_then(|()| self.related(node, Target::ResourceClaim, info))
            }
            ("", "persistentvolumes") => {
                self.get(info)?;
                unrelated_unless(self.graph.volume_is_related(node, &info.name), node)
            }
            ("storage.k8s.io", "volumeattachments") => {
                self.get(info)?;
                unrelated_unless(self.graph.attachment_is_on(node, &info.name), node)
            }
            ("", "serviceaccounts") => self.service_account(node, info),
            ("coordination.k8s.io", "leases") => lease(node, info),
            ("storage.k8s.io", "csinodes") => csi_node(node, info),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, info),
            ("", "nodes") => own_node(node, info),
            ("", "pods") => self.pod(node, info),
            ("certificates.k8s.io", "podcertificaterequests") => certificate_request(node, info),
            _ => fixed(info),
        }
    }

    fn get(&self, info: &RequestInfo) -> Result<(), String> {
        one_of(info, &["get"], "can only get individual resources of this type")?;
        plain(info, "cannot get subresource")
    }

    /// get, list and watch of one object by name.
    fn read(&self, node: &str, target: Target, info: &RequestInfo) -> Result<(), String> {
        one_of(info, &["get", "list", "watch"], "can only read resources of this type")?;
        plain(info, "cannot read subresource")?;
        if info.namespace.is_empty() {
            return Err("can only read namespaced object of this type".into());
        }
        self.related(node, target, info)
    }

    fn related(&self, node: &str, target: Target, info: &RequestInfo) -> Result<(), String> {
        if info.name.is_empty() {
            return Err("No Object name found".into());
        }
        unrelated_unless(self.graph.is_related(node, target, &info.namespace, &info.name), node)
    }

    fn service_account(&self, node: &str, info: &RequestInfo) -> Result<(), String> {
        match (info.verb.as_str(), info.subresource.as_str()) {
            ("get", "") => self.related(node, Target::ServiceAccount, info),
            ("create", "token") if !info.name.is_empty() => self.related(node, Target::ServiceAccount, info),
            ("create", "token") => Err("can only create tokens for individual service accounts".into()),
            ("create", _) => Err("can only create token subresource of serviceaccount".into()),
            _ => Err("can only get individual service accounts and create their tokens".into()),
        }
    }

    fn pod(&self, node: &str, info: &RequestInfo) -> Result<(), String> {
        let is_own = || unrelated_unless(self.graph.pod_is_on(node, &info.namespace, &info.name), node);
        match (info.subresource.as_str(), info.verb.as_str()) {
            ("", "get") => is_own(),
            ("", "list" | "watch") if selects(info, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !info.name.is_empty() => is_own(),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
            // NodeRestriction narrows these to the node's own (mirror) pods.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }

    fn resource_slice(&self, node: &str, info: &RequestInfo) -> Result<(), String> {
        plain(info, "cannot authorize ResourceSlice subresources")?;
        match info.verb.as_str() {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => unrelated_unless(self.graph.slice_is_on(node, &info.name), node),
            "watch" | "list" | "deletecollection" if selects(info, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                Err("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
            }
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                      patch, delete, deletecollection"
                .into()),
        }
    }
}

/// Beyond upstream: each node makes its own tunnel and answers for its streams (the endpoint knows which are whose).
fn tunnel(info: &RequestInfo) -> Result<(), String> {
    let below = info.path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below { one_of(info, &["post", "delete"], "") } else { Err(String::new()) }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<Decision> {
        let no_opinion = |reason: String| Decision::NoOpinion { reason };
        Ok(match node_of(user) {
            None => no_opinion(String::new()),
            Some("") => no_opinion(format!("unknown node for user {:?}", user.name)),
            Some(node) => match self.decide(node, info) {
                Ok(()) => Decision::Allow { reason: String::new() },
                Err(reason) => no_opinion(reason),
            },
        })
    }

    async fn rules(&self, user: &UserInfo, _namespace: &str) -> Result<super::Rules> {
        // A node's rights depend on its pods: they cannot be listed.
        Ok(super::Rules { incomplete: node_of(user).is_some(), ..Default::default() })
    }
}

/// Fixed rights of all nodes, where nothing is subdivided.
fn fixed(info: &RequestInfo) -> Result<(), String> {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| crate::server::bootstrap::policy::cluster_role("system:node"));
    if RULES.iter().any(|r| r.allows(info)) { Ok(()) } else { Err(String::new()) }
}

fn one_of(info: &RequestInfo, verbs: &[&str], otherwise: &str) -> Result<(), String> {
    if verbs.contains(&info.verb.as_str()) { Ok(()) } else { Err(otherwise.into()) }
}

fn plain(info: &RequestInfo, otherwise: &str) -> Result<(), String> {
    if info.subresource.is_empty() { Ok(()) } else { Err(otherwise.into()) }
}

fn unrelated_unless(related: bool, node: &str) -> Result<(), String> {
    if related { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
}

/// Whether the field selector pins a field to a value.
fn selects(info: &RequestInfo, field: &str, value: &str) -> bool {
    FieldSelector::parse(&info.field_selector).is_ok_and(|selector| selector.exact(field) == Some(value))
}

fn lease(node: &str, info: &RequestInfo) -> Result<(), String> {
    const VERBS: &[&str] = &["get", "create", "update", "patch", "delete"];
    one_of(info, VERBS, "can only get, create, update, patch, or delete a node lease")?;
    if info.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // The name of a new object is not in its path: NodeRestriction checks that.
    if info.verb != "create" && info.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(node: &str, info: &RequestInfo) -> Result<(), String> {
    const VERBS: &[&str] = &["get", "create", "update", "patch", "delete"];
    one_of(info, VERBS, "can only get, create, update, patch, or delete a CSINode")?;
    if !matches!(info.subresource.as_str(), "" | "status") {
        return Err("cannot authorize CSINode subresources".into());
    }
    if info.verb != "create" && info.name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(node: &str, info: &RequestInfo) -> Result<(), String> {
    match (info.subresource.as_str(), info.verb.as_str()) {
        // NodeRestriction narrows writes to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if info.name == node => Ok(()),
        ("", "get" | "list" | "watch") if info.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", info.name))
        }
        _ => Err(String::new()),
    }
}

fn certificate_request(node: &str, info: &RequestInfo) -> Result<(), String> {
    plain(info, "nodes may not access the status subresource of PodCertificateRequests")?;
    match info.verb.as_str() {
        "create" | "get" => Ok(()),
        "list" | "watch" if selects(info, "spec.nodeName", node) => Ok(()),
        "list" | "watch" => Err("can only list/watch podcertificaterequests with nodeName field selector".into()),
        _ => Err("can only create, get, list, or watch PodCertificateRequests".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;
    use serde_json::json;

    fn graph() -> Graph {
        let graph = Graph::default();
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "1"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "all"}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "vol"}}, {"persistentVolumeClaim": {"claimName": "data"}},
                {"name": "scratch", "ephemeral": {}}, {"projected": {"sources": [{"configMap": {"name": "root"}}]}}]}});
        graph.put_pod(&("ns".into(), "p".into()), Revision(1), &pod);
        let pending = json!({"metadata": {"name": "q"}, "spec": {"imagePullSecrets": [{"name": "later"}]}});
        graph.put_pod(&("ns".into(), "q".into()), Revision(2), &pending);
        let volume = json!({"spec": {"claimRef": {"namespace": "ns", "name": "data"},
            "csi": {"nodeStageSecretRef": {"namespace": "storage", "name": "stage"}}}});
        graph.put_volume("pv1", &volume);
        graph
    }

    /// `verb group/resource[/sub] namespace/name[?selector]`
    fn request(text: &str) -> RequestInfo {
        let mut parts = text.split(' ');
        let mut next = || parts.next().unwrap_or("");
        let (verb, resource, object) = (next(), next(), next());
        let (object, selector) = object.split_once('?').unwrap_or((object, ""));
        let (namespace, name) = object.split_once('/').unwrap_or(("", object));
        let mut resource = resource.splitn(3, '/');
        let mut next = || resource.next().unwrap_or("").to_owned();
        RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: next(),
            resource: next(),
            subresource: next(),
            namespace: namespace.into(),
            name: name.into(),
            field_selector: selector.into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn decisions() {
        let authorizer = NodeAuthorizer::new(Arc::new(graph()));
        let allowed = [
            "get /secrets ns/pull",
            "get /secrets ns/env",
            "list /secrets ns/vol",
            "get /configmaps ns/all",
            "watch /configmaps ns/root",
            "get /persistentvolumeclaims ns/data",
            "get /persistentvolumeclaims ns/p-scratch",
            "get /persistentvolumes pv1",
            "get /secrets storage/stage",
            "create /serviceaccounts/token ns/sa",
            "get /serviceaccounts ns/sa",
            "get /nodes n1",
            "update /nodes/status n1",
            "get /pods ns/p",
            "list /pods /?spec.nodeName=n1",
            "patch /pods/status ns/p",
            "update coordination.k8s.io/leases kube-node-lease/n1",
            "create coordination.k8s.io/leases kube-node-lease/",
            "create /events ns/",
            "list /services /",
            "create authentication.k8s.io/tokenreviews",
            "get storage.k8s.io/csinodes n1",
            "watch node.k8s.io/runtimeclasses /",
            "patch /persistentvolumeclaims/status ns/data",
        ];
        let refused = [
            "get /secrets ns/other",
            "get /secrets ns/later",
            "list /secrets ns/",
            "get /secrets other/pull",
            "update /secrets ns/pull",
            "get /persistentvolumes pv2",
            "create /serviceaccounts/token ns/default",
            "get /nodes n2",
            "list /nodes /",
            "delete /nodes n1",
            "get /pods ns/q",
            "list /pods /",
            "list /pods /?spec.nodeName=n2",
            "list /pods /?spec.nodeName!=n1",
            "update coordination.k8s.io/leases kube-node-lease/n2",
            "get coordination.k8s.io/leases kube-system/n1",
            "create /pods/exec ns/p",
            "get /namespaces default",
            "list apps/deployments /",
            "get storage.k8s.io/csinodes n2",
        ];
        let node = UserInfo::authenticated("system:node:n1", &[NODES_GROUP]);
        for (list, want) in [(&allowed[..], true), (&refused[..], false)] {
            for text in list {
                let got = authorizer.authorize(&node, &request(text)).await.unwrap();
                assert_eq!(matches!(got, Decision::Allow { .. }), want, "{text}: {got:?}");
            }
        }
        let impostor = UserInfo::authenticated("system:node:n1", &[]);
        let got = authorizer.authorize(&impostor, &request("get /secrets ns/pull")).await.unwrap();
        assert_eq!(got, Decision::NoOpinion { reason: String::new() });
    }

    #[test]
    fn a_deleted_pod_gives_up_its_references() {
        let graph = graph();
        assert!(graph.is_related("n1", Target::Secret, "ns", "pull"));
        graph.put_pod(
            &("ns".into(), "p".into()),
            Revision(9),
            &json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}}),
        );
        assert!(!graph.is_related("n1", Target::Secret, "ns", "pull"));
        assert!(!graph.volume_is_related("n1", "pv1"));
    }
}
