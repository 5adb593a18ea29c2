//! Discovery: what the server serves. Legacy forms and aggregated v2 (KEP-3352), all derived from the kinds table.

use crate::object::api_version;
use crate::server::codec::{self, Offer};
use crate::server::document::{Asked, Body, Document};
use crate::server::kinds::{Kind, Scope, Subresource, Verbs};
use crate::status::{Result, Status};
use serde_json::{Value, json};
use std::fmt::Write;

/// `Content-Type` of aggregated discovery; clients compare it by its parameters.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups in upstream's order of priority: clients that find a short name in several groups take the first. Others
/// follow by name.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Answer `/api`, `/apis` and what is below them without naming a resource; None for any other path and for groups
/// and versions that no kind has.
pub fn serve(asked: Asked<'_>, kinds: &[&Kind]) -> Option<Result<Document>> {
    let segments: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
    let document = match segments.as_slice() {
        ["api"] if codec::wants_discovery(asked.accept, "v2") => return Some(aggregated(asked, kinds, true)),
        ["apis"] if codec::wants_discovery(asked.accept, "v2") => return Some(aggregated(asked, kinds, false)),
        ["api"] => json!({"kind": "APIVersions", "apiVersion": "v1", "versions": versions(kinds, ""),
            "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let groups: Vec<Value> = groups(kinds, false).iter().map(|g| group(kinds, g)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => resource_list(kinds, "", version)?,
        ["apis", name] if !versions(kinds, name).is_empty() => {
            let mut group = group(kinds, name);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["apis", name, version] => resource_list(kinds, name, version)?,
        _ => return None,
    };
    Some(plain(asked, &document))
}

/// A legacy document in the format that `Accept` asks for.
fn plain(asked: Asked<'_>, document: &Value) -> Result<Document> {
    let accepted = codec::accept(asked.accept, Offer { protobuf: true, views: false })?;
    let body = Body {
        bytes: codec::encode(document, accepted)?,
        content_type: codec::media_type(accepted, false).to_owned(),
        vary_accept: true,
        ..Default::default()
    };
    Ok(Document::Body(body))
}

/// All groups (the core group alone, or all but it) in order of priority.
fn groups<'a>(kinds: &[&'a Kind], core: bool) -> Vec<&'a str> {
    let mut names: Vec<&str> = kinds.iter().map(|k| k.group).filter(|g| g.is_empty() == core).collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by_key(|name| GROUP_ORDER.iter().position(|g| g == name).unwrap_or(GROUP_ORDER.len()));
    names
}

/// Versions of a group, the preferred one first: general availability before beta before alpha, newer before older.
fn versions<'a>(kinds: &[&'a Kind], group: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = kinds.iter().filter(|k| k.group == group).map(|k| k.version).collect();
    found.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
    found.dedup();
    found
}

/// Kubernetes' version order: (2 GA, 1 beta, 0 alpha or none of these; major; minor).
fn version_rank(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let (major, stage) = rest.split_at(digits(rest));
    let number = |text: &str| text.parse().unwrap_or(0);
    match (stage, stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
        ("", ..) => (2, number(major), 0),
        (_, Some(minor), _) => (1, number(major), number(minor)),
        (_, _, Some(minor)) => (0, number(major), number(minor)),
        _ => (0, 0, 0),
    }
}

fn group(kinds: &[&Kind], name: &str) -> Value {
    let entry = |version: &str| json!({"groupVersion": api_version(name, version), "version": version});
    let versions: Vec<Value> = versions(kinds, name).into_iter().map(entry).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// The verbs of a resource as discovery lists them.
pub fn verbs(kind: &Kind) -> &'static [&'static str] {
    match kind.verbs {
        Verbs::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        Verbs::NoCollectionDelete => &["create", "delete", "get", "list", "patch", "update", "watch"],
        Verbs::CreateOnly => &["create"],
        Verbs::ReadOnly => &["get", "list"],
    }
}

/// Group, version and kind of what a subresource speaks.
pub fn spoken(kind: &Kind, subresource: &Subresource) -> (&'static str, &'static str, &'static str) {
    subresource.kind.unwrap_or((kind.group, kind.version, kind.kind))
}

/// The APIResourceList of a group-version; None where no kind has it.
fn resource_list(kinds: &[&Kind], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.iter().filter(|k| k.group == group && k.version == version) {
        let mut resource = json!({"name": kind.plural, "singularName": kind.singular,
            "namespaced": kind.is_namespaced(), "kind": kind.kind, "verbs": verbs(kind)});
        for (key, list) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
            if !list.is_empty() {
                resource[key] = json!(list);
            }
        }
        resources.push(resource);
        for sub in kind.subresources {
            let mut resource = json!({"name": format!("{}/{}", kind.plural, sub.name), "singularName": "",
                "namespaced": kind.is_namespaced(), "kind": kind.kind, "verbs": sub.verbs});
            // kubectl drain evicts only if it finds another group-version's kind named here.
            let (other_group, other_version, other_kind) = spoken(kind, sub);
            resource["kind"] = other_kind.into();
            if (other_group, other_version) != (group, version) {
                resource["group"] = other_group.into();
                resource["version"] = other_version.into();
            }
            resources.push(resource);
        }
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": resources});
    if resources_of(&list).is_empty() { None } else { Some(list) }
}

fn resources_of(list: &Value) -> &[Value] {
    list["resources"].as_array().map_or(&[], Vec::as_slice)
}

/// Aggregated discovery of the core group or of all others.
fn aggregated(asked: Asked<'_>, kinds: &[&Kind], core: bool) -> Result<Document> {
    let items: Vec<Value> = groups(kinds, core).into_iter().map(|g| aggregated_group(kinds, g)).collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items});
    let bytes = serde_json::to_vec(&list).map_err(Status::internal)?;
    let etag = format!("\"{}\"", digest(&[&bytes]));
    if asked.holds(&etag) {
        return Ok(Document::NotModified { etag });
    }
    let body = Body {
        bytes: bytes.into(),
        content_type: AGGREGATED.to_owned(),
        etag: Some(etag),
        vary_accept: true,
        ..Default::default()
    };
    Ok(Document::Body(body))
}

fn aggregated_group(kinds: &[&Kind], group: &str) -> Value {
    let of_version = |version: &str| {
        let members = kinds.iter().filter(|k| k.group == group && k.version == version);
        let mut resources: Vec<Value> = members.map(|k| aggregated_resource(k)).collect();
        resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = versions(kinds, group).into_iter().map(of_version).collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response_kind = |(group, version, kind)| json!({"group": group, "version": version, "kind": kind});
    let scope = if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" };
    let mut resource = json!({
        "resource": kind.plural, "responseKind": response_kind((kind.group, kind.version, kind.kind)),
        "scope": scope, "singularResource": kind.singular, "verbs": verbs(kind),
    });
    for (key, list) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !list.is_empty() {
            resource[key] = json!(list);
        }
    }
    let subresource = |sub: &Subresource| json!({"subresource": sub.name, "responseKind": response_kind(spoken(kind, sub)), "verbs": sub.verbs});
    if !kind.subresources.is_empty() {
        resource["subresources"] = kind.subresources.iter().map(subresource).collect();
    }
    resource
}

/// SHA-256 of all parts in upper-case hexadecimal, as upstream's ETags look.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = String::new();
    for byte in context.finish().as_ref() {
        let _ = write!(out, "{byte:02X}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::kinds::TABLE;

    const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

    fn get(path: &str, accept: &str) -> (Body, Value) {
        let asked = Asked { path, accept: Some(accept), ..Default::default() };
        match serve(asked, TABLE) {
            Some(Ok(Document::Body(body))) => {
                let value = serde_json::from_slice(&body.bytes).unwrap_or_default();
                (body, value)
            }
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn legacy() {
        assert_eq!(get("/api", "*/*").1["versions"], json!(["v1"]));
        let groups = get("/apis", "").1;
        let names: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
        assert_eq!(&names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
        assert!(!names.contains(&""));
        let autoscaling = get("/apis/autoscaling/", "").1;
        assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(autoscaling["versions"].as_array().unwrap().len(), 2);
        for path in ["/apis/nothing.example.com", "/apis/apps/v7", "/api/v2", "/apis/apps/v1/deployments", "/version"] {
            assert_eq!(serve(Asked { path, ..Default::default() }, TABLE), None, "{path}");
        }
    }

    #[test]
    fn subresources_name_the_kind_they_speak() {
        let list = get("/api/v1", "application/json").1;
        let find = |list: &Value, name: &str| {
            resources_of(list).iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
        };
        let eviction = find(&list, "pods/eviction");
        assert_eq!(
            (&eviction["group"], &eviction["version"], &eviction["kind"]),
            (&json!("policy"), &json!("v1"), &json!("Eviction"))
        );
        assert_eq!(find(&list, "pods")["shortNames"], json!(["po"]));
        assert!(find(&list, "pods/status").get("group").is_none());
        let scale = find(&get("/apis/apps/v1", "").1, "deployments/scale");
        assert_eq!((&scale["group"], &scale["kind"]), (&json!("autoscaling"), &json!("Scale")));
    }

    #[test]
    fn aggregated_discovery_and_its_etag() {
        let (body, list) = get("/apis", KUBECTL);
        assert_eq!(body.content_type, AGGREGATED);
        assert!(body.vary_accept);
        let total: usize = ["/api", "/apis"]
            .iter()
            .flat_map(|path| get(path, KUBECTL).1["items"].as_array().unwrap().clone())
            .flat_map(|group| group["versions"].as_array().unwrap().clone())
            .map(|version| version["resources"].as_array().unwrap().len())
            .sum();
        assert_eq!(total, TABLE.len());
        assert_eq!(list["items"][1]["versions"][0]["resources"][2]["resource"], "deployments");
        let etag = body.etag.unwrap();
        let again = Asked { path: "/apis", accept: Some(KUBECTL), if_none_match: Some(&etag), ..Default::default() };
        assert_eq!(serve(again, TABLE), Some(Ok(Document::NotModified { etag })));
    }

    #[test]
    fn version_order() {
        let mut versions = ["v1alpha1", "v2", "v1", "v1beta2", "v10", "foo", "v1beta1"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
